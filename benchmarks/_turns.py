"""Two servers of one GGUF that answer in turns: rounds, ratios with their intervals, and the lines that are printed."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PAIRS = 30
CONTEXT, THREADS = 512, 2  # tokens a slot
GOAL, TTFT_GOAL = 0.95, 0.005  # ratio; seconds


@dataclass
class Round:
    """One engine in one round: tokens per second, median first token over the streams in seconds, texts. `cpu`: seconds
    of the counted work, all threads and processes, where they are known."""

    rate: float
    first: float
    texts: list[str]
    cpu: float | None = None


@dataclass
class Result:
    ours: list[Round] = field(default_factory=list)
    peer: list[Round] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        low, ratio, high = interval([o.rate / p.rate for o, p in zip(self.ours, self.peer)])
        late_low, late, late_high = interval([o.first - p.first for o, p in zip(self.ours, self.peer)])
        pairs = [(a, b) for o, p in zip(self.ours, self.peer) for a, b in zip(o.texts, p.texts)]
        cpu = [p.cpu / o.cpu for o, p in zip(self.ours, self.peer) if o.cpu and p.cpu]
        return {
            "ours": round(statistics.median(o.rate for o in self.ours), 1),
            "peer": round(statistics.median(p.rate for p in self.peer), 1),
            "ratio": round(ratio, 3), "low": round(low, 3), "high": round(high, 3),
            **({"cpu_ratio": round(statistics.median(cpu), 3)} if cpu else {}),
            "first_ours_ms": round(1e3 * statistics.median(o.first for o in self.ours), 1),
            "first_peer_ms": round(1e3 * statistics.median(p.first for p in self.peer), 1),
            "first_later_ms": round(1e3 * late, 1), "first_later_low_ms": round(1e3 * late_low, 1),
            "first_later_high_ms": round(1e3 * late_high, 1),
            "equal_texts": round(sum(a == b for a, b in pairs) / len(pairs), 4), "n": len(self.ours),
        }  # fmt: skip


def compare(
    name: str,
    about: str | None,
    measure: Callable[[str, int, int], Result],
    *,
    peer: str,
    many: str,
    lengths: Mapping[int, int],
) -> int:
    """The command line of a benchmark: `measure(model, how many at once, pairs)` for each key of `lengths`, which
    `many` names (streams, clients). Prints a line for each, and the JSON line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument(f"--{many}", type=int, nargs="+", choices=list(lengths), default=list(lengths))
    parser.add_argument("--model", help="a GGUF file (default: the embedded teacher)")
    a = parser.parse_args()
    # Before llama.cpp's OpenMP is loaded, for both: the cores are shared with whatever else runs here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from phikit.store.teacher import smollm2_path

    path = a.model or str(smollm2_path())
    rows: list[dict[str, Any]] = []
    for count in getattr(a, many):
        rows.append(r := {many: count, **measure(path, count, a.pairs).row()})
        cpu = f", CPU {r['cpu_ratio']}" if "cpu_ratio" in r else ""
        later = f"{r['first_later_ms']} ms [{r['first_later_low_ms']}, {r['first_later_high_ms']}]"
        print(
            f"{count:2} {many}: {r['ours']} tokens/s, llama.cpp server {r['peer']}: ratio {r['ratio']} "
            f"[{r['low']}, {r['high']}]{cpu}; equal texts {r['equal_texts']:.1%}; "
            f"first token {r['first_ours_ms']} ms, {r['first_peer_ms']} ms, later by {later}",
            flush=True,
        )
    worst = min(rows, key=lambda r: r["low"])
    print(
        json.dumps({
            "name": name, "ours": worst["ours"], "peer": worst["peer"], "peer_name": peer,
            "peer_version": importlib.metadata.version("xllamacpp"), "unit": "tokens/s", "ratio": worst["ratio"],
            "low": worst["low"], "high": worst["high"], "agree": all(r["equal_texts"] >= 0.9 for r in rows),
            "n": a.pairs, "bound": 1.0,
            "goal": all(r["low"] >= GOAL and r["first_later_ms"] <= 1e3 * TTFT_GOAL for r in rows), many: rows,
        })
    )  # fmt: skip
    return 0


def llama_server(path: str, streams: int, *, listen: bool = False) -> Any:
    """llama.cpp's server in this process at its best setting: a slot for each stream, continuous batching, no
    second copy of prompts in memory. `listen`: on any free port of 127.0.0.1."""
    import xllamacpp

    x: Any = xllamacpp
    params = x.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.kv_unified = CONTEXT * streams, streams, False
    params.cont_batching = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.cache_ram_mib = 0
    params.ui = False
    params.verbosity = -1
    if listen:
        params.hostnames, params.port = ["127.0.0.1"], 0
    return x.Server(params)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and the order statistics around it that hold the true median with at least 95 % (with fewer
    than six values: the smallest and the largest)."""
    ordered, n = sorted(values), len(values)
    low, mass = 0, 0.0
    while mass + math.comb(n, low) / 2**n <= 0.025:
        mass += math.comb(n, low) / 2**n
        low += 1
    low = max(low - 1, 0)
    return ordered[low], statistics.median(ordered), ordered[n - 1 - low]
