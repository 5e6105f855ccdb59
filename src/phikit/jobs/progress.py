"""Progress of long work: a bar on a terminal, a line every ten seconds elsewhere.

with bar("pretrain", total=tokens, unit="tok") as b:
    b.advance(8192, loss=2.31)
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")
LINE_SECONDS = 10.0


class Bar(Protocol):
    def advance(self, n: float = 1, **shown: object) -> None: ...


class _Lines:
    """A plain line now and then: for logs and CI, where a redrawn bar would be noise."""

    def __init__(self, label: str, total: float | None, unit: str, done: float = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.before, self.done = done, done
        self.start, self.last = time.monotonic(), time.monotonic()
        self.shown: dict[str, object] = {}

    def advance(self, n: float = 1, **shown: object) -> None:
        self.done += n
        self.shown.update(shown)
        if time.monotonic() - self.last >= LINE_SECONDS:
            self.last = time.monotonic()
            self.line()

    def line(self) -> None:
        seconds = max(time.monotonic() - self.start, 1e-9)
        rate = (self.done - self.before) / seconds
        part = f"{self.done:,.0f}" + (f"/{self.total:,.0f}" if self.total else "")
        left = f", {max(self.total - self.done, 0) / rate:.0f} s left" if self.total and rate else ""
        extra = "".join(f", {k} {v}" for k, v in self.shown.items())
        print(f"  {self.label}: {part} {self.unit}, {rate:,.1f}/s{left}{extra}", file=sys.stderr, flush=True)


class _Rich:
    def __init__(self, progress, task) -> None:
        self.progress, self.task, self.shown = progress, task, {}

    def advance(self, n: float = 1, **shown: object) -> None:
        self.shown.update(shown)
        extra = "  ".join(f"{k} {v}" for k, v in self.shown.items())
        self.progress.update(self.task, advance=n, extra=extra)


@contextlib.contextmanager
def bar(label: str, total: float | None = None, unit: str = "rows", done: float = 0) -> Iterator[Bar]:
    """A progress bar on stderr. `done` is what an earlier run did: no part of the rate. PHIKIT_QUIET=1 shows
    nothing."""
    if os.environ.get("PHIKIT_QUIET"):
        yield _Silent()
        return
    if not sys.stderr.isatty():
        lines = _Lines(label, total, unit, done)
        yield lines
        if time.monotonic() - lines.start >= LINE_SECONDS:
            lines.line()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description}"), BarColumn(30), TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(), TextColumn("{task.fields[extra]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Rich(progress, progress.add_task(label, total=total, completed=int(done), extra=""))


def note(text: str) -> None:
    """A line beside the bars: what somebody who waits should know. PHIKIT_QUIET=1 shows nothing."""
    if not os.environ.get("PHIKIT_QUIET"):
        print(f"  {text}", file=sys.stderr, flush=True)


class _Silent:
    def advance(self, n: float = 1, **shown: object) -> None: ...


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "rows") -> Iterator[T]:
    """`for x in track(rows, "dedup")`: a bar that moves by one for each item."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with bar(label, total, unit) as b:
        for item in items:
            yield item
            b.advance()
