"""Batches from packed shards. The state is one integer: rows consumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phikit.mixture.long import LongDocuments, is_long, plain
from phikit.mixture.order import Order, Phase
from phikit.mixture.pack import pack, pack_pieces, windows
from phikit.mixture.shards import WEIGHT_SCALE, TokenShard, is_shard
from phikit.records.ids import seed_of
from phikit.records.remote import Place

STREAMS = 16  # rows of shards behind URLs that are fetched at once


@dataclass(frozen=True)
class Batch:
    """Numpy arrays of shape [B, T]. `weight` is the loss weight of `targets` (0 where there is none);
    `segment` is the document within the row (-1 padding), `position` counts from 0 in each document."""

    tokens: np.ndarray
    targets: np.ndarray
    weight: np.ndarray
    segment: np.ndarray
    position: np.ndarray
    source: tuple[str, ...]  # per row
    row: tuple[int, ...] = ()  # its number within the source

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each row without padding."""
        return (self.segment >= 0).sum(1)

    @property
    def size(self) -> int:
        return int(self.sizes.sum())

    def parts(self, micro: int) -> Iterator[Batch]:
        """Its forward passes: `micro` rows each."""
        return (self.slice(a, a + micro) for a in range(0, len(self.tokens), micro))

    def slice(self, a: int, b: int) -> Batch:
        rows = slice(a, b)
        return Batch(
            self.tokens[rows], self.targets[rows], self.weight[rows], self.segment[rows], self.position[rows],
            self.source[rows], self.row[rows],
        )  # fmt: skip


class PackedSource:
    """One shard packed into rows of `context` tokens."""

    def __init__(
        self,
        shard: TokenShard,
        context: int,
        seed: int,
        documents: np.ndarray | None = None,
        *,
        joined: int | None = None,
    ) -> None:
        """`documents`: indices to use (repeats upweight), default all; packed in an order drawn from `seed`. With
        `joined` they are cut at so many tokens, and the pieces of a row pass for one document."""
        self.shard, self.context, self.joined = shard, context, joined is not None
        self.documents = np.arange(shard.documents) if documents is None else documents
        rng = np.random.default_rng(seed)
        if joined is None:
            order = self.documents[rng.permutation(len(self.documents))]
            self.pieces, self.offsets = pack(shard.lengths, context, order)
        else:  # pieces of one document are not to come together again
            cut = list(windows(shard.lengths, min(joined, context), self.documents))
            self.pieces, self.offsets = pack_pieces((cut[i] for i in rng.permutation(len(cut))), context)
        self.rows = len(self.offsets) - 1

    def fill(
        self, row: int, tokens: np.ndarray, weight: np.ndarray, segment: np.ndarray, position: np.ndarray
    ) -> None:
        """Writes one row's tokens, own weights, segments and positions into 1-D views of length `context`."""
        at = 0
        for number, (d, start, end) in enumerate(self.pieces[self.offsets[row] : self.offsets[row + 1]]):
            a, n = self.shard.offsets[d] + start, end - start
            tokens[at : at + n] = self.shard.tokens[a : a + n]
            weight[at : at + n] = self.shard.weights[a : a + n]
            segment[at : at + n] = 0 if self.joined else number
            position[at : at + n] = np.arange(n) + (at if self.joined else 0)
            at += n


class Loader:
    """`batch(first, count)`: rows first .. first + count - 1 of the order; random access, so that any number of
    ranks and any resume point see the same data."""

    def __init__(
        self, sources: Mapping[str, PackedSource], phases: Sequence[Phase], seed: int, pad: int
    ) -> None:
        self.sources, self.pad = dict(sources), pad
        self.context = next(iter(sources.values())).context
        self.remote = any(p.shard.remote for p in sources.values())
        self._pool = ThreadPoolExecutor(STREAMS, "shards") if self.remote else None
        self.order = Order(phases, {s: p.rows for s, p in sources.items()}, seed)

    def batch(self, first: int, count: int) -> Batch:
        shape = (count, self.context)
        tokens = np.full(shape, self.pad, dtype=np.int64)
        own = np.zeros(shape, dtype=np.float32)
        segment = np.full(shape, -1, dtype=np.int64)
        position = np.zeros(shape, dtype=np.int64)
        rows = [self.order.row(first + b) for b in range(count)]

        def fill(b: int) -> None:
            name, row = rows[b]
            self.sources[name].fill(row, tokens[b], own[b], segment[b], position[b])

        for _ in (self._pool.map if self._pool else map)(fill, range(count)):
            pass
        return finish(tokens, own, segment, position, *zip(*rows))


def finish(
    tokens: np.ndarray, own: np.ndarray, segment: np.ndarray, position: np.ndarray, source=(), row=()
) -> Batch:
    """Targets are the next token of the same document; the weight of a target is that token's own weight."""
    targets, weight = np.zeros_like(tokens), np.zeros_like(own)
    targets[:, :-1] = tokens[:, 1:]
    same = (segment[:, 1:] == segment[:, :-1]) & (segment[:, 1:] >= 0)
    weight[:, :-1] = own[:, 1:] / WEIGHT_SCALE * same
    return Batch(tokens, targets, weight, segment, position, source, row)


def open_sources(
    folder: Place, names: Sequence[str], context: int, seed: int, long: LongDocuments | None = None
) -> dict[str, PackedSource]:
    """Packed sources from shard folders `folder/<name>`, local or behind a URL; with `long` those named
    `<source>_long` are made by its rule. Raises ValueError for a name that has no shard, or of which a rule leaves no
    document."""
    return {n: _open(folder, n, context, seed_of(seed, "pack", n), long) for n in names}


def _open(folder: Place, name: str, context: int, seed: int, long: LongDocuments | None) -> PackedSource:
    viewed = long if is_long(name) else None
    of = name
    if viewed and not (viewed.form == "natural" and is_shard(folder / name)):
        of = plain(name)
    if not is_shard(folder / of):
        raise ValueError(
            f"source {name!r} is not there{_others(folder)}" if of == name
            else f"source {name!r} is made of {of!r}, which is not there{_others(folder)}"
        )  # fmt: skip
    shard = TokenShard.load(folder / of)
    if viewed is None:
        return PackedSource(shard, context, seed)
    if viewed.form == "packed-short":
        return PackedSource(shard, context, seed, joined=viewed.short)
    documents = viewed.chosen(shard.lengths, made=of == name)
    if not len(documents):
        raise ValueError(
            f"source {name!r}: {of!r} has no document of more than {viewed.isolate:,} tokens: lower midtrain.isolate, "
            "or leave it out of midtrain.long_fractions"
        )
    return PackedSource(shard, context, seed, documents)


def _others(folder: Place) -> str:
    if not isinstance(folder, Path):
        return f" ({folder})"
    return f"; there are {sorted(p.name for p in folder.iterdir() if is_shard(p))}"
