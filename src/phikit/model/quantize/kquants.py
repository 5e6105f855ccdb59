"""Q4_K, Q5_K and Q6_K blocks of GGUF from fp32 weights, many blocks at a time.

A block is 256 weights of one row. Q4_K and Q5_K: eight parts of 32, weight = d * scale * level - dmin * low;
Q6_K: sixteen parts of 16, weight = d * scale * (level - 32). The search is llama.cpp's own (its reference
quantizers without an importance matrix): a grid over the step of each part, weighted least squares at each
grid point, the smallest weighted squared error wins. Sums run in its order and in fp32, so that the bytes are
equal, too (tests/unit/test_model_quantize.py).

Inside, a part is a column of a [32, P] or [16, P] array: numpy then adds the rows of a column one after
another, and every operation runs over P parts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]  # fp32: numpy keeps the type, checkers do not see it
Bytes = NDArray[np.uint8]
BLOCK = 256
STEP = 256  # blocks at a time: the work arrays of a step stay in the cache; 64 takes 1.5 times as long
_TINY = np.float32(1e-15)  # a part of smaller weights is all zero
_f = np.float32
_LOW, _HALF = np.uint8(15), np.uint8(4)  # the low four bits of a byte, and how far the others lie


def q4_k(x: Floats) -> Bytes:
    """[n * 256] fp32 weights to [n, 144] bytes."""
    return _in_steps(_q4_k, x, 144)


def q5_k(x: Floats) -> Bytes:
    """[n * 256] fp32 weights to [n, 176] bytes."""
    return _in_steps(_q5_k, x, 176)


def q6_k(x: Floats) -> Bytes:
    """[n * 256] fp32 weights to [n, 210] bytes."""
    return _in_steps(_q6_k, x, 210)


def _in_steps(quantize: Callable[[Floats], Bytes], x: Floats, size: int) -> Bytes:
    blocks = x.reshape(-1, BLOCK)
    out = np.empty((len(blocks), size), np.uint8)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for at in range(0, len(blocks), STEP):
            out[at : at + STEP] = quantize(blocks[at : at + STEP])
    return out


def _q4_k(blocks: Floats) -> Bytes:
    head, levels = _scales_and_lows(blocks, 15, -1.0, 20)
    return np.concatenate((head, _nibbles(levels)), axis=1)


def _q5_k(blocks: Floats) -> Bytes:
    head, levels = _scales_and_lows(blocks, 31, -0.5, 15)
    bits = np.arange(8, dtype=np.uint8)[:, None]
    high = np.bitwise_or.reduce((levels >> 4) << bits, axis=1)  # bit s of byte j: level j of part s
    return np.concatenate((head, high, _nibbles(levels & _LOW)), axis=1)


def _q6_k(blocks: Floats) -> Bytes:
    n = len(blocks)
    x = np.ascontiguousarray(blocks.reshape(-1, 16).T)
    found, step = _symmetric(x, 32)
    found = found.reshape(n, 16)
    # The scale of greatest size becomes -128; the first one where two are equal.
    first = np.abs(found).argmax(1)
    top = found[np.arange(n), first]
    live = np.abs(top) >= _TINY
    back = np.where(live, _f(-128) / top, _f(0))
    d = np.where(live, 1 / back, _f(0)).astype(np.float16)
    scales = np.minimum(127, np.rint(back[:, None] * found)).astype(np.int8)
    wide = (d.astype(_f)[:, None] * scales).reshape(-1)
    levels = np.where(wide != 0, np.rint(x / wide), np.rint(x * step))
    levels = (np.clip(levels, -32, 31) + 32).astype(np.uint8)
    levels[:, step == 0] = 0
    q = levels.T.reshape(n, 2, 4, 32)
    low = np.concatenate((q[:, :, :2] & _LOW, q[:, :, 2:] & _LOW), axis=2)
    low = (low[:, :, :2] | low[:, :, 2:] << _HALF).reshape(n, 128)
    shift = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = np.bitwise_or.reduce((q >> _HALF) << shift, axis=2).reshape(n, 64)
    out = np.concatenate((low, high, scales.view(np.uint8), d[:, None].view(np.uint8)), axis=1)
    out[~live] = 0
    return out


def _scales_and_lows(blocks: Floats, top: int, first: float, steps: int) -> tuple[Bytes, Bytes]:
    """([n, 16] d, dmin and packed scales; [n, 8, 32] levels) of Q4_K (`top` 15) and Q5_K (31)."""
    n = len(blocks)
    x = np.ascontiguousarray(blocks.reshape(-1, 32).T)
    scale, low, step, start = _asymmetric(x, top, first, steps)
    d, scales = _six_bits(scale.reshape(n, 8))
    dmin, lows = _six_bits(low.reshape(n, 8))
    wide = (d.astype(_f)[:, None] * scales).reshape(-1)
    shift = (dmin.astype(_f)[:, None] * lows).reshape(-1)
    levels = np.where(wide != 0, np.rint((x + shift) / wide), np.rint((x - start) * step))
    levels = np.clip(levels, 0, top).astype(np.uint8).T.reshape(n, 8, 32)
    packed = np.empty((n, 12), np.uint8)  # the high two bits of parts 4 to 7 lie above those of 0 to 3
    packed[:, :4] = scales[:, :4] | scales[:, 4:] >> 4 << 6
    packed[:, 4:8] = lows[:, :4] | lows[:, 4:] >> 4 << 6
    packed[:, 8:] = scales[:, 4:] & _LOW | (lows[:, 4:] & _LOW) << 4
    head = np.concatenate((np.stack((d, dmin), axis=1).view(np.uint8), packed), axis=1)
    return head, levels


def _six_bits(values: Floats) -> tuple[NDArray[np.float16], Bytes]:
    """Eight values at most 63 times a common factor: [n] factor, [n, 8] numbers."""
    most = np.maximum(values.max(1), 0)
    back = np.where(most > 0, _f(63) / most, _f(0))
    numbers = np.rint(back[:, None] * values).astype(np.int32).astype(np.uint8)
    return (most / _f(63)).astype(np.float16), np.minimum(numbers, np.uint8(63))


def _nibbles(levels: Bytes) -> Bytes:
    pairs = levels[:, 0::2] | levels[:, 1::2] << _HALF
    return pairs.reshape(len(levels), 128)


def _asymmetric(x: Floats, top: int, first: float, steps: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Per column of x [32, P]: scale, low (x ~ scale * level - low, level 0 to `top`), and the step and start
    that gave the levels: rint((x - start) * step)."""
    weights = np.abs(x)
    weights += np.sqrt(_sum(x * x) / _f(32))
    sum_w, sum_x = _sum(weights), _sum(weights * x)
    most, low = x.max(0), np.minimum(x.min(0), 0)
    flat = most == low
    levels, a, b = np.empty_like(x), np.empty_like(x), np.empty_like(x)

    def error(scale: Floats, low: Floats) -> Floats:
        np.multiply(levels, scale, out=a)
        np.add(a, low, out=a)
        np.subtract(a, x, out=a)
        np.multiply(a, a, out=a)
        np.multiply(a, weights, out=a)
        return _sum(a)

    best_step, best_start = _f(top) / (most - low), low
    scale = 1 / best_step
    np.subtract(x, low, out=b)
    np.rint(np.multiply(b, best_step, out=b), out=levels)
    best = error(scale, low)
    for i in range(steps + 1):
        # Each grid point starts from the best line so far: its low end may lie above the smallest weight.
        step = (_f(first) + _f(0.1) * _f(i) + _f(top)) / (most - low)
        np.subtract(x, low, out=b)
        np.rint(np.multiply(b, step, out=b), out=levels)
        np.clip(levels, 0, top, out=levels)
        np.multiply(weights, levels, out=a)
        sum_l = _sum(a)
        sum_l2 = _sum(np.multiply(a, levels, out=b))
        sum_xl = _sum(np.multiply(a, x, out=b))
        det = sum_w * sum_l2 - sum_l * sum_l
        this_scale = (sum_w * sum_xl - sum_x * sum_l) / det
        this_low = (sum_l2 * sum_x - sum_l * sum_xl) / det
        over = this_low > 0  # a start above zero cannot be stored
        this_low[over] = 0
        np.copyto(this_scale, sum_xl / sum_l2, where=over)
        now = error(this_scale, this_low)
        better = (det > 0) & (now < best)
        best, best_step = np.where(better, now, best), np.where(better, step, best_step)
        best_start = np.where(better, low, best_start)
        scale, low = np.where(better, this_scale, scale), np.where(better, this_low, low)
    scale[flat], best_step[flat], best_start[flat] = 0, 0, 0
    return scale, -low, best_step, best_start


def _symmetric(x: Floats, half: int) -> tuple[Floats, Floats]:
    """Per column of x [16, P]: scale (x ~ scale * level, level -half to half - 1) and the step that gave the
    levels: rint(x * step). Both are 0 where the column is zero. Errors weigh x squared."""
    columns = np.arange(x.shape[1])
    top = x[np.abs(x).argmax(0), columns]
    zero = np.abs(top) < _TINY
    top = np.where(zero, _f(1), top)
    weights = x * x
    weighted = weights * x
    levels, a = np.empty_like(x), np.empty_like(x)

    def sums(step: Floats) -> tuple[Floats, Floats]:
        np.rint(np.multiply(x, step, out=a), out=levels)
        np.clip(levels, -half, half - 1, out=levels)
        sum_lx = _sum(np.multiply(weighted, levels, out=a))
        np.multiply(weights, levels, out=a)
        return sum_lx, _sum(np.multiply(a, levels, out=a))

    best_step = _f(-half) / top
    sum_lx, sum_l2 = sums(best_step)
    scale = np.where(sum_l2 != 0, sum_lx / sum_l2, _f(0))
    best = scale * sum_lx
    for i in (*range(-9, 0), *range(1, 10)):
        step = -(_f(half) + _f(0.1) * _f(i)) / top
        sum_lx, sum_l2 = sums(step)
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        scale = np.where(better, sum_lx / sum_l2, scale)
        best = np.where(better, scale * sum_lx, best)
        best_step = np.where(better, step, best_step)
    return np.where(zero, _f(0), scale), np.where(zero, _f(0), best_step)


def _sum(x: Floats) -> Floats:
    """Over the rows, one after another (not pairwise): the order of a plain loop."""
    return np.add.reduce(x, axis=0)
