"""Token shards: documents of one source as ids, loss weights and offsets, memory-mapped.

A shard folder holds `tokens.npy` (uint32), `weights.npy` (uint8, loss weight x 100) and `offsets.npy` (int64,
one more than documents), and `ids.txt` (a document id a line, for provenance); or `place.json` alone, which says where
such a folder is, on this machine or behind a URL.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from phikit.records.arrays import RemoteArray, load_array
from phikit.records.io import atomic_path, read_json, write_json, write_text
from phikit.records.remote import Place, Remote, place
from phikit.records.types import Dialog, Document
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer

WEIGHT_SCALE = 100
PLACE = "place.json"
LOOKED_AT = 1 << 18  # tokens


@dataclass(frozen=True)
class TokenShard:
    """Document d is tokens[offsets[d]:offsets[d+1]]; weights say how much each token counts as a target."""

    tokens: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray

    @property
    def documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def remote(self) -> bool:
        """Whether its tokens come over a network."""
        return isinstance(self.tokens, RemoteArray)

    @classmethod
    def load(cls, folder: Place) -> TokenShard:
        """Of a local folder, or of a URL (`records.remote`), whose tokens and weights are then read as they are
        needed."""
        if isinstance(folder, Path) and (folder / PLACE).is_file():
            folder = place(read_json(folder / PLACE)["at"])
        tokens, weights, offsets = (load_array(folder / f"{n}.npy") for n in ("tokens", "weights", "offsets"))
        return cls(tokens, weights, offsets[:])  # type: ignore[arg-type]  # both kinds of array give slices

    def save(self, folder: Path, ids: Sequence[str]) -> None:
        for name in ("tokens", "weights", "offsets"):
            with atomic_path(folder / f"{name}.npy") as tmp, tmp.open("wb") as f:
                np.save(f, getattr(self, name))
        write_text(folder / "ids.txt", "".join(i + "\n" for i in ids))


def placed(folder: Path, at: str, vocab: int) -> TokenShard:
    """Says in `folder` that its shard lies at `at`, a folder or URL. Raises ValueError where there is none, or where
    its first tokens are not of a vocabulary of `vocab`."""
    where = place(at)
    where = where.expanduser().resolve() if isinstance(where, Path) else where
    if not is_shard(where):
        raise ValueError(f"{where}: no token shard: tokens.npy, weights.npy and offsets.npy belong there")
    shard = TokenShard.load(where)
    some = shard.tokens[:LOOKED_AT]
    if len(some) and some.max() >= vocab:
        raise ValueError(
            f"{where}: it holds token {some.max()}, the tokenizer has {vocab:,}: it was made with another one"
        )
    write_json(folder / PLACE, {"at": where.url if isinstance(where, Remote) else str(where)})
    return shard


def is_shard(folder: Place) -> bool:
    """Whether a shard lies there."""
    if isinstance(folder, Path) and (folder / PLACE).is_file():
        return True
    try:
        (folder / "offsets.npy").stat()
    except (FileNotFoundError, ValueError):  # of a local folder, of a URL
        return False
    return True


class ShardWriter:
    """A shard written document by document; memory holds its offsets alone. Files are put in place by `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.offsets = folder, array("q", [0])
        folder.mkdir(parents=True, exist_ok=True)
        self._types = {"tokens": np.dtype(np.uint32), "weights": np.dtype(np.uint8)}
        self._files = {name: self._draft(name).open("wb") for name in self._types}
        for name, file in self._files.items():
            self._header(name, file)
        self._ids = self._draft("ids").open("w", encoding="utf-8")

    def add(self, id: str, tokens: Sequence[int], weights: Sequence[int]) -> None:
        for (name, file), row in zip(self._files.items(), (tokens, weights)):
            file.write(np.asarray(row, self._types[name]).tobytes())
        self.offsets.append(self.offsets[-1] + len(tokens))
        self._ids.write(id + "\n")

    def extend(self, sizes: np.ndarray, tokens: bytes, weights: bytes, ids: str) -> None:
        """Documents as they lie in another shard: their lengths, little-endian arrays, a line for each id."""
        self._files["tokens"].write(tokens)
        self._files["weights"].write(weights)
        self.offsets.frombytes((np.cumsum(sizes, dtype=np.int64) + self.offsets[-1]).tobytes())
        self._ids.write(ids)

    def close(self) -> None:
        for name, file in self._files.items():
            file.seek(0)
            self._header(name, file)  # numpy keeps room in it for a longer shape
        with self._draft("offsets").open("wb") as f:
            np.save(f, np.frombuffer(self.offsets, np.int64))
        for file in (*self._files.values(), self._ids):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for name in (*self._types, "offsets"):
            self._draft(name).replace(self.folder / f"{name}.npy")
        self._draft("ids").replace(self.folder / "ids.txt")

    def _header(self, name: str, file: BinaryIO) -> None:
        about = {"descr": self._types[name].str, "fortran_order": False, "shape": (self.offsets[-1],)}
        np.lib.format.write_array_header_1_0(file, about)

    def _draft(self, name: str) -> Path:
        return self.folder / f".{name}.tmp"


def encode_documents(
    tokenizer: Tokenizer, documents: Sequence[Document], weights: Sequence[tuple[float, float]]
) -> list[tuple[list[int], list[int]]]:
    """`encode_shard` as a list of (ids, weights) for each document."""
    shard = encode_shard(tokenizer, documents, weights)
    return [
        (shard.tokens[a:b].tolist(), shard.weights[a:b].tolist()) for a, b in pairwise(shard.offsets.tolist())
    ]


def encode_shard(
    tokenizer: Tokenizer, documents: Sequence[Document], weights: Sequence[tuple[float, float]]
) -> TokenShard:
    """Each document's ids with an end-of-text, and their loss weights. `weights` are (answer, other) of each:
    `meta["answers"]` holds character spans that count `answer`; all else, and the whole of a document without
    spans, counts `other`."""
    spans = [d.meta.get("answers") or () for d in documents]
    flat, bounds = tokenizer.encode_flat([d.text for d, s in zip(documents, spans) if not s])
    placed = tokenizer.encode_with_offsets([d.text for d, s in zip(documents, spans) if s])
    plain, marked = iter(np.diff(bounds).tolist()), iter(placed)
    own = [next(marked) if s else None for s in spans]
    sizes = np.array([len(o[0]) if o else next(plain) for o in own], np.int64) + 1
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    low = [round(other * WEIGHT_SCALE) for _, other in weights]
    shard = TokenShard(
        np.full(offsets[-1], tokenizer.end_of_text, np.uint32),
        np.repeat(np.array(low, np.uint8), sizes),
        offsets,
    )
    even = np.repeat([not s for s in spans], sizes)
    even[offsets[1:] - 1] = False  # end-of-texts are there already
    shard.tokens[even] = flat
    for d, found in enumerate(own):
        if found:
            part = slice(offsets[d], offsets[d + 1])
            ids, shard.weights[part] = _weighted(*found, spans[d], weights[d], tokenizer.end_of_text)
            shard.tokens[part] = ids
    return shard


def _weighted(ids, offsets, spans, weights: tuple[float, float], end: int) -> tuple[list[int], list[int]]:
    high, low = (round(w * WEIGHT_SCALE) for w in weights)
    own, left = [], sorted(spans, reverse=True)
    for a, b in offsets:  # tokens and spans both go from left to right
        while left and left[-1][1] <= a:
            left.pop()
        own.append(high if left and b > left[-1][0] else low)
    return [*ids, end], [*own, high]


def encode_dialog(tokenizer: Tokenizer, dialog: Dialog) -> tuple[list[int], list[int]]:
    """Ids and weights of a chat: only assistant content and its end-of-turn count. A dialog in which nothing
    counts is an error that names it: it would train on nothing, silently."""
    rendered = chat.render(tokenizer, dialog.turns)
    if not any(rendered.train):
        raise ValueError(f"dialog {dialog.id} ({dialog.source}) has no assistant turn to train on")
    return list(rendered.tokens), [WEIGHT_SCALE * t for t in rendered.train]


def make_shard(encoded: Iterable[tuple[list[int], list[int]]]) -> TokenShard:
    tokens: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    offsets = [0]
    for ids, w in encoded:
        tokens.append(np.asarray(ids, dtype=np.uint32))
        weights.append(np.asarray(w, dtype=np.uint8))
        offsets.append(offsets[-1] + len(ids))
    empty = np.zeros(0, dtype=np.uint32)
    return TokenShard(
        np.concatenate(tokens) if tokens else empty,
        np.concatenate(weights) if weights else empty.astype(np.uint8),
        np.asarray(offsets, dtype=np.int64),
    )
