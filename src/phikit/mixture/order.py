"""Which row is the i-th of training: a pure function of (seed, i), never materialised.

Rows are drawn in blocks of `BLOCK`. Within a block each source gets its exact share (cumulative rounding, so
that shares stay exact), in an order seeded by the block. The k-th draw of a source is row
perm_e[k mod R] of its epoch e = k div R. The state of a loader is therefore one integer: rows consumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from phikit.records.ids import seed_of

BLOCK = 1024  # the largest source absorbs the rounding of the others: fine up to about 30 sources


@dataclass(frozen=True, slots=True)
class Phase:
    """Up to row `until` (exclusive), sources come in these fractions (they sum to 1)."""

    until: int
    fractions: Mapping[str, float]


class Order:
    """`row(i)` gives (source, row index within the source), up to the end of the last phase."""

    def __init__(self, phases: Sequence[Phase], rows: Mapping[str, int], seed: int) -> None:
        """`rows`: packed rows per source. Raises ValueError for a source that is asked for and has none."""
        self.phases, self.rows, self.seed = tuple(phases), dict(rows), seed
        self.sources = sorted({s for p in phases for s in p.fractions})
        for phase in phases:
            for source, fraction in phase.fractions.items():
                if fraction > 0 and not self.rows.get(source):
                    raise ValueError(
                        f"mixture: source {source!r} is given {fraction:.0%} of a phase but has no rows; "
                        f"sources with rows: {sorted(s for s, n in self.rows.items() if n)}"
                    )
        self._block = lru_cache(maxsize=8)(self._make_block)
        self._permutation = lru_cache(maxsize=4 * len(self.sources))(self._make_permutation)

    def row(self, i: int) -> tuple[str, int]:
        phase, start = self._starts(i + 1)[-1]
        source, k = self._block(phase, (i - start) // BLOCK)[(i - start) % BLOCK]
        epoch, j = divmod(k, self.rows[source])
        return source, int(self._permutation(source, epoch)[j])

    def drawn(self, upto: int) -> dict[str, int]:
        """Rows of each source among the first `upto`; exact at the ends of blocks and phases."""
        return {
            s: sum(self._count(p, s, upto - start) for p, start in self._starts(upto)) for s in self.sources
        }

    def epochs(self, total: int) -> dict[str, float]:
        """How often each source is seen in `total` rows: derived, never an input (report table 5)."""
        return {s: n / self.rows[s] for s, n in self.drawn(total).items() if self.rows.get(s)}

    def _starts(self, upto: int) -> list[tuple[int, int]]:
        """(phase, first row) of every phase that begins before row `upto`."""
        firsts = [0, *(p.until for p in self.phases[:-1])]
        return [(p, first) for p, first in enumerate(firsts) if first < upto]

    def _count(self, phase: int, source: str, rows: int) -> int:
        """Draws of a source in the first `rows` rows of a phase. Every source but the largest is rounded from its
        exact share and the largest takes the rest: counts are exact over any prefix, and pure."""
        rows = min(rows, self.phases[phase].until - self._starts_of(phase))
        fractions = self.phases[phase].fractions
        largest = max(sorted(fractions), key=lambda s: fractions[s])
        if source != largest:
            return int(rows * fractions.get(source, 0.0) + 0.5)
        return rows - sum(int(rows * f + 0.5) for s, f in fractions.items() if s != largest)

    def _make_block(self, phase: int, block: int) -> list[tuple[str, int]]:
        start = self._starts_of(phase)
        earlier = self.drawn(start) if phase else dict.fromkeys(self.sources, 0)
        labels: list[str] = []
        following: dict[str, int] = {}  # the next draw of each source
        for s in self.sources:
            a, b = self._count(phase, s, block * BLOCK), self._count(phase, s, (block + 1) * BLOCK)
            labels += [s] * (b - a)
            following[s] = earlier[s] + a
        draws = []
        # Only the sources are shuffled: the draws of one stay in order, so that its epochs do not mix.
        rng = np.random.default_rng(seed_of(self.seed, "block", phase, block))
        for j in rng.permutation(len(labels)):
            s = labels[j]
            draws.append((s, following[s]))
            following[s] += 1
        return draws

    def _starts_of(self, phase: int) -> int:
        return self.phases[phase - 1].until if phase else 0

    def _make_permutation(self, source: str, epoch: int) -> np.ndarray:
        return np.random.default_rng(seed_of(self.seed, source, epoch)).permutation(self.rows[source])
