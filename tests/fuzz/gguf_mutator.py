"""Mutations of a GGUF by its fields, so that what a fuzzer changes lies behind the first checks too."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

from gguf_bytes import ARRAY, BOOL, STRING, UINT32, Gguf, Tensor, array, text

from phikit.model.gguf_header import TENSOR_TYPES

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
WHOLE = (0, 1, 2, 3, 4, 5, 7, 8, 16, 24, 31, 32, 33, 64, 255, 256, 4096, 65535, 65536, 1 << 21, (1 << 24) + 1,
         1 << 26, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 55, 1 << 56, (1 << 63) - 1, 1 << 63, (1 << 64) - 32,
         (1 << 64) - 1)  # fmt: skip
_PARTS = (
    "embedding_length", "block_count", "feed_forward_length", "context_length", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count",
    "attention.key_length", "attention.sliding_window", "expert_count", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.attn_factor", "rope.scale_linear", "attention.causal", "vocab_size", "x",
)  # fmt: skip
KEYS = (
    "general.architecture", "general.alignment", "general.file_type", "general.name",
    *(f"{a}.{p}" for a in ("phi3", "llama") for p in _PARTS),
    *(f"tokenizer.ggml.{n}" for n in ("model", "pre", "tokens", "token_type", "merges", "bos_token_id",
      "eos_token_id", "eot_token_id")), "tokenizer.chat_template",
)  # fmt: skip
TENSORS = ("token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight",
           "rope_factors_long.weight", "blk.0.attn_q.weight")  # fmt: skip
WORDS = ("phi3", "llama", "gpt2", "dbrx", "default", "smollm", "none", "", "a b", "\u0120a", "<|im_end|>", "[UNUSED7]",
         b"\xff", b"a\0b", "x" * 300)  # fmt: skip


def parse(data: bytes) -> Gguf:
    """The fields. Raises ValueError, IndexError or struct.error for bytes that are too broken to have them."""
    version, n_tensors, n_keys = struct.unpack_from("<IQQ", data, 4)
    if n_tensors > 500 or n_keys > 500:
        raise ValueError("too many to edit")
    at = 24

    def take(n: int) -> bytes:
        nonlocal at
        if n > len(data) - at:
            raise ValueError("cut")
        at += n
        return data[at - n : at]

    def number(code: str) -> int:
        return struct.unpack("<" + code, take(struct.calcsize("<" + code)))[0]

    def value(kind: int) -> bytes:
        begin = at
        if kind == STRING:
            take(number("Q"))
        elif kind == ARRAY:
            item, n = number("I"), number("Q")
            if n > len(data):
                raise ValueError("cut")
            if item in (STRING, ARRAY):
                for _ in range(n):
                    value(item)
            else:
                take(n * _SIZES[item])
        else:
            take(_SIZES[kind])
        return data[begin:at]

    g = Gguf(magic=data[:4], version=version)
    try:
        for _ in range(n_keys):
            name, kind = take(number("Q")), number("I")
            g.keys.append((name, kind, value(kind)))  # type: ignore[arg-type]
            if name == b"general.alignment" and kind == UINT32:
                g.alignment = min(max(struct.unpack("<I", g.keys[-1][2])[0], 1), 4096)
        for _ in range(n_tensors):
            name = take(number("Q"))
            dims = tuple(number("Q") for _ in range(min(number("I"), 9)))
            g.tensors.append(Tensor(name, dims, number("I"), number("Q")))  # type: ignore[arg-type]
    except KeyError as e:
        raise ValueError("unknown type") from e
    g.data = max(len(data) - -(-at // g.alignment) * g.alignment, 0)
    return g


def mutate(data: bytes, rng: random.Random, max_size: int) -> bytes:
    """Some fields changed; often the places of the tensors are then made to fit again."""
    try:
        g = parse(data)
    except (ValueError, IndexError, struct.error):
        g = Gguf([("general.architecture", STRING, text("phi3"))], [Tensor(TENSORS[0])], 128)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        rng.choice((_key, _key, _key, _tensor, _tensor, _frame))(g, rng)
    if rng.random() < 0.6:
        _repair(g)
    out = g.bytes() if g.data <= max_size else replace(g, data=0).bytes()
    if rng.random() < 0.1:
        out = out[: rng.randrange(len(out) + 1)]
    return out[:max_size]


def _key(g: Gguf, rng: random.Random) -> None:
    i = rng.randrange(len(g.keys)) if g.keys else -1
    kind = rng.choice((*_SIZES, STRING, STRING, ARRAY, ARRAY, 13))
    deed = rng.randrange(7) if i >= 0 else 6
    if deed == 0:
        del g.keys[i]
    elif deed == 1:
        g.keys.insert(rng.randrange(len(g.keys) + 1), g.keys[i])
    elif deed == 2:
        g.keys[i] = (rng.choice(KEYS), *g.keys[i][1:])
    elif deed == 3:
        g.keys[i] = (g.keys[i][0], kind, _value(kind, rng))
    elif deed == 4:  # the same type, another value
        g.keys[i] = (*g.keys[i][:2], _value(g.keys[i][1], rng))
    elif deed == 5 and g.keys[i][2]:
        raw = bytearray(g.keys[i][2])
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        g.keys[i] = (*g.keys[i][:2], bytes(raw))
    else:
        g.keys.append((rng.choice(KEYS), kind, _value(kind, rng)))


def _value(kind: int, rng: random.Random) -> bytes:
    if kind == STRING:
        return text(rng.choice(WORDS)) if rng.random() < 0.9 else struct.pack("<Q", rng.choice(WHOLE))
    if kind == BOOL:
        return bytes([rng.choice((0, 1, 1, 2))])
    if kind == ARRAY:
        item, n = rng.choice((*_SIZES, STRING, STRING, ARRAY, 99)), rng.choice((0, 1, 2, 5, 300))
        items = [_value(item, rng) for _ in range(n)] if item != ARRAY or n < 3 else []
        return array(item, items, None if rng.random() < 0.8 else rng.choice(WHOLE))
    whole = rng.choice(WHOLE) if rng.random() < 0.7 else rng.randrange(1, 512)
    if kind in (6, 12):
        return struct.pack(
            "<f" if kind == 6 else "<d", rng.choice((0.5, 1e-5, 10_000.0, -1.0, 0.0, float("nan")))
        )
    return whole.to_bytes(8, "little")[: _SIZES.get(kind, 4)]


def _tensor(g: Gguf, rng: random.Random) -> None:
    i = rng.randrange(len(g.tensors)) if g.tensors else -1
    deed = rng.randrange(7) if i >= 0 else 6
    if deed == 0:
        del g.tensors[i]
    elif deed == 1:
        g.tensors.append(replace(g.tensors[i]))
    elif deed == 2:
        g.tensors[i].name = rng.choice((*TENSORS, "", "x" * 70_000, b"\xff"))  # type: ignore[assignment]
    elif deed == 3:
        g.tensors[i].dims = tuple(
            rng.choice(WHOLE) if rng.random() < 0.5 else rng.choice((1, 2, 32, 256))
            for _ in range(rng.choice((0, 1, 1, 2, 2, 2, 3, 4, 5)))
        )
    elif deed == 4:
        g.tensors[i].kind = rng.choice((*TENSOR_TYPES, 4, 9, 15, 36, 255))
    elif deed == 5:
        others = [t.offset for t in g.tensors]
        g.tensors[i].offset = max(
            rng.choice((*WHOLE, *others)) + rng.choice((0, 0, 1, g.alignment, -g.alignment)), 0
        )
        g.tensors[i].offset &= (1 << 64) - 1
    else:
        dims = rng.choice((8, 32, 256)), rng.choice((1, 3))
        g.tensors.append(Tensor(rng.choice(TENSORS), dims, rng.choice((0, 1, 8, 12))))


def _frame(g: Gguf, rng: random.Random) -> None:
    deed = rng.randrange(8)
    if deed == 0:
        g.n_tensors = rng.choice((*WHOLE, len(g.tensors) + 1, max(len(g.tensors) - 1, 0)))
    elif deed == 1:
        g.n_keys = rng.choice((*WHOLE, len(g.keys) + 1, max(len(g.keys) - 1, 0)))
    elif deed == 2:
        g.version = rng.choice((2, 3, 3, *WHOLE)) & 0xFFFFFFFF
    elif deed == 3:
        g.alignment = rng.choice((1, 8, 16, 64, 256))
        g.keys.append(("general.alignment", UINT32, struct.pack("<I", g.alignment)))
    elif deed == 4:
        g.data = max(g.data + rng.choice((-33, -32, -1, 1, 32, 4096)), 0)
    elif deed == 5:
        g.magic = rng.choice((b"GGUF", b"FUGG", b"GGML"))
    else:
        rng.shuffle(g.tensors)


def _repair(g: Gguf) -> None:
    """Places one after another, and as much data as they need."""
    end = 0
    for t in g.tensors:
        count = 1
        for d in t.dims:
            count *= d
        _, block, size = TENSOR_TYPES.get(t.kind, ("", 1, 4))
        if count < 1 << 16:
            t.offset = -(-end // g.alignment) * g.alignment
            end = t.offset + count // block * size
    g.data = end
