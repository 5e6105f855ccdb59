"""What a run tells of itself: the log, its speed, and the steps that were left out.

`metrics.jsonl` has no times in it, so that equal runs give equal bytes; `speed.jsonl` beside it has tokens/s, MFU,
memory, the seconds that a step waited for its rows, and the tokens of each source.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from phikit.jobs.progress import bar
from phikit.model.config import ModelConfig
from phikit.model.layout import Layout
from phikit.model.ranks import Ranks
from phikit.records.io import write_text
from phikit.train.cost import PEAKS, train_flops
from phikit.train.feed import Share


def peak_of(device: torch.device) -> float | None:
    """None where it is not known: no MFU is shown then."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((v for k, v in PEAKS.items() if k in name), None)


class Watch:
    """Times steps and shows them on the terminal."""

    def __init__(self, model: ModelConfig, layout: Layout, ranks: Ranks) -> None:
        self.model, self.layout, self.ranks = model, layout, ranks
        self.peak = peak_of(ranks.device)
        self.rows: list[dict[str, Any]] = []
        self.sources: dict[str, int] = {}  # tokens seen of each, on this rank
        self._begin, self._tokens = 0.0, 0
        self._bar: Any = None

    @property
    def seconds(self) -> list[float]:
        """Of each step of this process."""
        return [r["seconds"] for r in self.rows]

    @contextmanager
    def show(self, label: str, done: int, steps: int) -> Iterator[None]:
        if not self.ranks.first:
            yield
            return
        with bar(label, total=steps, unit="steps", done=done) as self._bar:
            yield
            self._bar = None

    def begin(self, tokens: int) -> None:
        self._begin, self._tokens = time.perf_counter(), tokens

    def end(self, row: dict[str, Any], share: Share, waited: float) -> None:
        """`waited`: seconds of the step in which it had no rows."""
        seconds = time.perf_counter() - self._begin
        tokens = row["tokens"] - self._tokens
        for name, n in share.by_source.items():
            self.sources[name] = self.sources.get(name, 0) + n
        found: dict[str, Any] = {
            "step": row["step"],
            "seconds": round(seconds, 6),
            "rows_seconds": round(waited, 6),
            "tokens_s": round(tokens / seconds, 1),
        }
        if self.peak:
            flops = train_flops(self.model, tokens, share.pairs * self.layout.data)
            found["mfu"] = round(flops / seconds / (self.peak * self.layout.ranks), 4)
        found["memory_gb"] = round(_memory() / 1e9, 3)
        found["sources"] = dict(self.sources)
        self.rows.append(found)
        if self._bar:
            more = {"MFU": f"{found['mfu']:.1%}"} if "mfu" in found else {}
            self._bar.advance(1, loss=f"{row['loss']:.3f}", **{"tok/s": f"{found['tokens_s']:,.0f}"}, **more)


def _memory() -> int:
    """Bytes: the device's peak, or on the CPU what the process has now."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def write_log(path: Path, log: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps({k: _round(v) for k, v in row.items()}) + "\n" for row in log))


def _round(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def log_skipped(work: Path, ranks: Ranks, row: dict[str, Any], share: Share, bad: list[int]) -> Path:
    """Adds a line to this rank's `skipped-<rank>.jsonl`: the step, and source and number of each of its rows, of the
    forward passes `bad` alone where their losses tell. Returns the file."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"skipped-{ranks.rank}.jsonl"
    rows = [r for i in bad for r in share.origin(i)] or [
        r for i in range(share.real) for r in share.origin(i)
    ]
    line = {**{k: str(v) if isinstance(v, float) else v for k, v in row.items()}, "passes": bad, "rows": rows}
    with path.open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")
    return path
