"""How long the documents of a source are: shares of its tokens by powers of two."""

from __future__ import annotations

import numpy as np

from phikit.mixture.loader import PackedSource

FILE = "lengths.json"  # of the stages mixture and midtrain: histograms by source
Histogram = dict[str, float]  # share of the tokens in documents of 2^k .. 2^(k+1) - 1 tokens, by str(2^k)


def histogram(lengths: np.ndarray) -> Histogram:
    """All buckets from the first to the last that holds anything; empty for no tokens."""
    lengths = np.asarray(lengths, dtype=np.int64)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return {}
    powers = np.frexp(lengths.astype(np.float64))[1] - 1  # exact, unlike a floor of log2
    tokens = np.bincount(powers, weights=lengths)
    first = int(powers.min())
    return {str(1 << k): float(tokens[k] / lengths.sum()) for k in range(first, len(tokens))}


def of_shard(lengths: np.ndarray) -> dict[str, Histogram]:
    """A source as it lies in its shard: `before`."""
    return {"before": histogram(lengths)}


def of_source(source: PackedSource) -> dict[str, Histogram]:
    """A source as it is trained on: documents (samples, where they are joined) as they lie in the shard, `before`, and
    repeated or joined, `after`."""
    if source.joined:
        sizes = source.pieces[:, 2] - source.pieces[:, 1]
        rows = np.add.reduceat(sizes, source.offsets[:-1]) if len(sizes) else sizes
        return {"before": histogram(sizes), "after": histogram(rows)}
    lengths = source.shard.lengths
    once = np.unique(source.documents)
    return {"before": histogram(lengths[once]), "after": histogram(lengths[source.documents])}
