"""Long documents (report section 3.3): what the sources `<source>_long` of midtraining are, as views of shards.

natural        documents of more than `isolate` tokens; those of at least `upweight_from` count `upweight` times. A
               shard that is itself named `<source>_long` was made to be long (the report's synthetic sets of over 4K):
               all of its documents above `short` are taken.
packed-short   the other side of the report's ablation: samples as pretraining sees them (documents of the plain source,
               cut at `short` tokens) are joined into rows of the whole context that pass for one document: tokens see
               across the ends of samples, and positions run on. What was made long is not cut, for its parts would ask
               about what they do not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

SUFFIX = "_long"


@dataclass(frozen=True)
class LongDocuments:
    """Lengths in tokens; `short` is the context of pretraining."""

    form: Literal["natural", "packed-short"]
    short: int
    isolate: int
    upweight_from: int
    upweight: float = 1.0

    def chosen(self, lengths: np.ndarray, made: bool) -> np.ndarray:
        """Indices of a natural source's documents, repeated as they count. `made`: the shard holds texts made to be
        long. Where `upweight` is no whole number the repeats of documents differ by one, and it is their mean."""
        (long,) = np.nonzero(lengths > (self.short if made else self.isolate))
        heavy = lengths[long] >= self.upweight_from
        repeats = np.ones(len(long), dtype=np.int64)
        repeats[heavy] = np.diff(np.floor(self.upweight * np.arange(heavy.sum() + 1) + 0.5).astype(np.int64))
        return np.repeat(long, repeats)


def is_long(name: str) -> bool:
    return name.endswith(SUFFIX)


def plain(name: str) -> str:
    """The source that a long one is made of."""
    return name.removesuffix(SUFFIX)
