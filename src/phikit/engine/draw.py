"""Drawing tokens with numpy alone, for engines that have logits but no torch.

As in `phikit.engine.sampling`: draw t of a sample is a hash of (key, t), so a sample depends on its request's seed
and not on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from phikit.engine.base import GenRequest

_BLOCK = 256
_HEAD = 512  # ids sorted first for top_p; nearly always enough
_MASK = 0xFFFFFFFFFFFFFFFF


def uniform(key: int, counter: int) -> float:
    """In [0, 1), by splitmix64's finalizer applied twice; equal to `sampling.uniforms`."""
    x = _mix(_mix(key) + counter * 0x9E3779B97F4A7C15 & _MASK)
    return (x >> 11) * 2.0**-53


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def log_total(logits_V: np.ndarray) -> float:
    """log of the sum of exponentials: a log-probability is its logit less this."""
    return _shares(logits_V)[1]


def pick(logits_V: np.ndarray, temperature: float, top_p: float, u: float) -> tuple[int, float]:
    """A token, and `log_total`. The token is the arg-max at temperature 0, else the id whose cumulative probability
    first exceeds u after scaling by the temperature and keeping the smallest set of mass >= top_p. Logits may be
    -inf, not all."""
    p, total = _shares(logits_V)
    if temperature <= 0:
        return int(p.argmax()), total
    if temperature != 1:
        p = _shares(logits_V / np.float32(max(temperature, 1e-6)))[0]
    if top_p >= 1:
        return _at(p, u), total
    ids = _nucleus(p, top_p)
    return int(ids[_at(p[ids], u)]), total


def shaped(logits_V: np.ndarray, request: GenRequest, tokens: Sequence[int]) -> np.ndarray:
    """Logits after the request's penalties, top_k and min_p, in llama.cpp's order; -inf where it forbids a token.
    `tokens` are the prompt and what was drawn so far."""
    x = logits_V.astype(np.float32, copy=True)
    recent = (
        tokens if request.repeat_last < 0 else tokens[len(tokens) - min(request.repeat_last, len(tokens)) :]
    )
    if len(recent) and request.has_penalties:
        ids, counts = np.unique(np.asarray(recent), return_counts=True)
        old = x[ids]
        old = np.where(old > 0, old / request.repeat_penalty, old * request.repeat_penalty)
        x[ids] = old - counts * np.float32(request.frequency_penalty) - np.float32(request.presence_penalty)
    if 0 < request.top_k < len(x):
        keep = np.argpartition(x, -request.top_k)[-request.top_k :]
        kept = np.full_like(x, -np.inf)
        kept[keep] = x[keep]
        x = kept
    if request.min_p > 0:
        x[x < x.max() + math.log(min(request.min_p, 1.0))] = -np.inf
    return x


def _shares(logits_V: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities times a constant, and the log of the sum of exponentials."""
    top = logits_V.max()
    p = np.subtract(logits_V, top)
    np.exp(p, out=p)
    return p, float(top) + math.log(float(p.sum()))


def _at(p: np.ndarray, u: float) -> int:
    """The index whose cumulative share of p first exceeds u; one of positive p. Sums of blocks tell the block, so
    that only its own entries are added up one by one."""
    blocks = np.add.reduceat(p, np.arange(0, len(p), _BLOCK)).astype(np.float64)
    ends = np.cumsum(blocks)
    aim = u * ends[-1]
    b = min(int(np.searchsorted(ends, aim, side="right")), int(np.flatnonzero(blocks)[-1]))
    inside = p[b * _BLOCK : (b + 1) * _BLOCK]
    cdf = np.cumsum(inside, dtype=np.float64)
    found = int(np.searchsorted(cdf, aim - (ends[b] - blocks[b]), side="right"))
    return b * _BLOCK + min(found, int(np.flatnonzero(inside)[-1]))


def _nucleus(p_V: np.ndarray, top_p: float) -> np.ndarray:
    """Ids of the smallest set of mass >= top_p, in id order; at least the most probable one."""
    total = float(p_V.sum())
    head = min(_HEAD, len(p_V))
    while True:
        ids = np.argpartition(p_V, -head)[-head:] if head < len(p_V) else np.arange(len(p_V))
        ids = ids[np.argsort(-p_V[ids], kind="stable")]
        before = np.cumsum(p_V[ids], dtype=np.float64) - p_V[ids]
        if head == len(p_V) or before[-1] + p_V[ids[-1]] >= top_p * total:
            keep = before < top_p * total
            keep[0] = True
            return np.sort(ids[keep])
        head = min(8 * head, len(p_V))


def best(logits_V: np.ndarray, total: float, count: int) -> list[tuple[int, float]]:
    """The `count` most probable ids with their log-probabilities, best first."""
    count = min(count, len(logits_V))
    ids = np.argpartition(logits_V, -count)[-count:]
    ids = ids[np.argsort(-logits_V[ids], kind="stable")]
    return [(int(i), float(logits_V[i]) - total) for i in ids]


def sample_key(seed: int, number: int) -> int:
    """The key of sample `number` of a request, equal to TorchEngine's."""
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) & _MASK
