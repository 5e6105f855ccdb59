"""Mutations of JSON by its values, of a safetensors header, and of a tokenizer.json."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from phikit.model.safetensors_header import DTYPES
from phikit.text.splits import GPT2, SPLIT

NAMES = {
    "safetensors": ("a", "__metadata__", "dtype", "shape", "data_offsets", "", "x" * 90),
    "tokenizer": (
        "model", "type", "vocab", "merges", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder",
        "pretokenizers", "pattern", "Regex", "String", "id", "content", "special", "single_word", "truncation", "a",
        "dropout", "unk_token", "byte_fallback", "ignore_merges", "continuing_subword_prefix", "normalizers",
        "processors", "decoders", "single", "pair", "special_tokens", "start", "stop", "prepend",
    ),
}  # fmt: skip
VALUES = {
    "safetensors": (*DTYPES, "F33", [0, 0], [0, 4], [2, 3], [1] * 9, [], {}, {"format": "pt"}),
    "tokenizer": (
        SPLIT % 3, SPLIT % 1, GPT2, "(a*)*b", "BPE", "Unigram", "WordPiece", "a b", "a", ["a", "b"], ["a"], [], {},
        {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "Sequence", "pretokenizers": [], "normalizers": [], "decoders": []}, {"type": "NFC"},
        {"type": "Replace", "pattern": {"String": "ab"}, "content": "a"}, {"type": "Prepend", "prepend": " "},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
         "special_tokens": {}},
        {"id": 7, "content": "<x>", "special": True}, {"id": 7, "content": "<y>", "special": False},
    ),
}  # fmt: skip


class Fields(list):
    """An object as its (name, value) pairs, so that a name may be there twice."""


@dataclass(frozen=True)
class Raw:
    """Characters that stand in the text as they are."""

    text: str


ANY = (0, 1, -1, 2, 7, 4095, 1 << 21, 1 << 31, 1 << 53, (1 << 56) - 1, 1 << 56, 1 << 63, 1 << 64, 0.0, 1.0, 1e308, True,
       False, None, "", "x" * 81, "x" * 4097, "\ud800", "\0", "\u00e9", Raw("NaN"), Raw("-Infinity"), Raw("1e999"),
       Raw("9" * 4400), Raw("[" * 3000), Raw("[" * 300 + "]" * 300), Raw("01"), Raw("\\"), Raw('"\ud800"'),
       Raw(""))  # fmt: skip


def mutate_text(raw: str, rng: random.Random, kind: str) -> str:
    """JSON text with some values changed. Raises ValueError where it is none, RecursionError where it is nested too
    deeply to be edited."""
    return write(change(read(raw), rng, kind))


def read(raw: str) -> Any:
    return json.loads(raw, object_pairs_hook=Fields)


def write(value: Any) -> str:
    if isinstance(value, Fields):
        return "{" + ",".join(f"{json.dumps(k)}:{write(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    if isinstance(value, dict):
        return write(Fields(value.items()))
    return value.text if isinstance(value, Raw) else json.dumps(value)


def change(root: Any, rng: random.Random, kind: str) -> Any:
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        places: list[tuple[list, int]] = [(box := [root], 0)]
        for holder, i in places:
            value = holder[i][1] if isinstance(holder, Fields) else holder[i]
            if isinstance(value, list):
                places += [(value, k) for k in range(len(value))]
        # A place deep in a large list is one among thousands: half of the time choose among the first.
        _deed(*rng.choice(places[: 64 if rng.random() < 0.5 else None]), places, rng, kind)
        root = box[0] if box else None
    return root


def _deed(holder: list, i: int, places: list[tuple[list, int]], rng: random.Random, kind: str) -> None:
    named = isinstance(holder, Fields)
    value = holder[i][1] if named else holder[i]
    deed = rng.randrange(9)
    if deed == 0:
        del holder[i]
        return
    if deed == 1:
        holder.insert(rng.randrange(len(holder) + 1), holder[i])
        return
    if deed == 2 and named:
        holder[i] = (rng.choice((*NAMES[kind], *(k for k, _ in holder[:20]))), value)
        return
    if deed == 3 and isinstance(value, Fields):
        value.append((rng.choice(NAMES[kind]), deepcopy(rng.choice((*VALUES[kind], *ANY)))))
        return
    if deed == 4:
        other, k = rng.choice(places)
        if k < len(other):
            new = other[k][1] if isinstance(other, Fields) else other[k]
            value = (
                read(write(new)) if not isinstance(new, Raw) and len(write(new)) < 4000 and _sound(new) else 0
            )
    elif deed == 5 and type(value) is int:
        value += rng.choice((-1, 1, 2, 8))
    elif deed == 6 and isinstance(value, str) and value:
        at = rng.randrange(len(value))
        value = value[:at] + rng.choice(("", "a", " ", "\u0120", "\U0001f600")) + value[at + 1 :]
    elif deed == 7:
        value = [value]
    else:
        value = deepcopy(rng.choice(VALUES[kind] if rng.random() < 0.5 else ANY))
    holder[i] = (holder[i][0], value) if named else value


def _sound(value: Any) -> bool:
    """Whether it can be read again."""
    try:
        read(write(value))
    except (ValueError, RecursionError):
        return False
    return True


def mutate_tokenizer(data: bytes, rng: random.Random, max_size: int) -> bytes:
    try:
        raw = mutate_text(data.decode(), rng, "tokenizer")
    except (ValueError, RecursionError):
        raw = '{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},"added_tokens":[]}'
    return _bytes(raw)[:max_size]


def mutate_safetensors(data: bytes, rng: random.Random, max_size: int) -> bytes:
    n = int.from_bytes(data[:8], "little")
    size = max(len(data) - 8 - n, 0)
    try:
        root = change(read(data[8 : 8 + n].decode()), rng, "safetensors")
        if rng.random() < 0.5:
            size = _repair(root)
        header = _bytes(write(root))
    except (ValueError, RecursionError):
        header, size = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8
    lengths = (0, 1, 2, 1 << 23, (1 << 23) + 1, 1 << 63, (1 << 64) - 1)
    length = len(header) if rng.random() < 0.93 else rng.choice(lengths)
    size += rng.choice((-1, 1, 8)) if rng.random() < 0.1 else 0
    return (length.to_bytes(8, "little") + header + bytes(min(max(size, 0), 1 << 14)))[:max_size]


def _repair(root: Any) -> int:
    """Offsets one after another in the order of the header; the bytes of all tensors."""
    at = 0
    for _, entry in root if isinstance(root, Fields) else ():
        if not isinstance(entry, Fields):
            continue
        found = dict(entry)
        shape, type_ = found.get("shape"), found.get("dtype")
        if (
            isinstance(shape, list)
            and all(type(d) is int and 0 <= d < 64 for d in shape)
            and isinstance(type_, str)
        ):
            size = DTYPES.get(type_, 1)
            for d in shape:
                size *= d
            if at + size < 1 << 14:
                entry[:] = [(k, [at, at + size] if k == "data_offsets" else v) for k, v in entry]
                at += size
    return at


def _bytes(raw: str) -> bytes:
    return raw.encode("utf-8", "surrogatepass")
