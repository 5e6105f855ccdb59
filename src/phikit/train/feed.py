"""This rank's part of each step's rows. On CUDA, and where shards lie behind a URL, those of the next step are made
while this one trains, so that the device does not wait for them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from phikit.model.ranks import Ranks


class Rows(Protocol):
    """Where rows come from: random access, so that the state of training is the number of rows consumed. A
    batch has `source` names and `parts(micro)`, the forward passes, each with `size`, its tokens."""

    def batch(self, first: int, count: int) -> Any: ...


@dataclass(frozen=True)
class Share:
    """A rank's forward passes of one step. The last of `parts` may only run along, because every rank must run
    equally many: the first `real` count. `pairs`: of a query and a key that it sees, for FLOPs."""

    parts: Sequence[Any]
    real: int
    count: float
    tokens: int
    source: Sequence[str]
    pairs: float = 0.0
    by_source: dict[str, int] = field(default_factory=dict)

    def origin(self, part: int) -> list[str]:
        """Source and number of each row of a forward pass."""
        p = self.parts[part]
        numbers = getattr(p, "row", None) or getattr(p, "which", ())
        names = getattr(p, "source", None) or ["pairs"] * len(numbers)
        return [f"{name} {number}" for name, number in zip(names, numbers)] or list(names)


class Feed:
    def __init__(self, rows: Rows, objective: Any, micro: int, ranks: Ranks) -> None:
        self.rows, self.objective, self.micro, self.ranks = rows, objective, micro, ranks
        self.waited = 0.0  # seconds for the rows of the last step
        # On a CPU a thread would only take a core from the step under way, unless it waits for a network.
        ahead = ranks.device.type == "cuda" or getattr(rows, "remote", False)
        self._pool = ThreadPoolExecutor(1, "rows") if ahead else None
        self._next: tuple[int, Future] | None = None

    def take(self, first: int, count: int) -> Share:
        """Of rows first .. first + count - 1."""
        begin = time.perf_counter()
        share = self._take(first, count)
        self.waited = time.perf_counter() - begin
        return share

    def _take(self, first: int, count: int) -> Share:
        if self._pool is None:
            return self._make(first, count)
        made = self._next
        share = made[1].result() if made and made[0] == first else self._make(first, count)
        self._next = first + count, self._pool.submit(self._make, first + count, count)
        return share

    def _make(self, first: int, count: int) -> Share:
        return self.objective.share(self.rows, first, count, self.micro, self.ranks)
