"""What `phikit plan` predicts against real runs: memory by kind and seconds a step of a 60 M network on 1, 2, 4
ranks, or (`--scaling`) at other lengths and numbers of tokens on one.

The prediction is the trace of the sharded network on fake tensors (`train.simulate`) with rates from microbenchmarks
alone (`_plan_rates`), of as many ranks at once: products at the network's own shapes, small DTensors, copies,
collectives at the sizes that the layout sends. They are taken before, between and after the steps, for rates of gloo
and of busy cores drift: a step is predicted from those beside it, the row from their medians, with the lowest and
highest of single steps. Each rank has one thread, fp32; four ranks share the cores, and so do their microbenchmarks.
Memory is that of the process after a step of a tiny network: growth by the weights, by the first step's moments, and
the peak within a later step over what it began with (gradients, activations, buffers). It is taken in a run of its own,
in which malloc gives all back at once: that makes a step 1.4 times as long.
`ratio` is the worst of min(predicted / measured, measured / predicted) over kinds and times.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _plan_rates import SECONDS, calibrate, clock
from _steps import SHAPES

SHAPE = SHAPES["60M"]
MICRO = 1  # rows of a forward pass
TURNS = 20  # of a calibration: blocks
PASSES = 2  # on each rank, or more: a plan counts the gradients of the passes before
KINDS = ("all_reduce", "all_gather", "reduce_scatter")
GOALS = {"memory": 0.9, "seconds": 0.85}


@dataclass(frozen=True)
class Case:
    """`rows` of a step; without it as many on any layout, if they are enough."""

    layout: dict[str, Any] = field(default_factory=dict)
    context: int = SHAPE["context"]
    rows: int = 0


CASES = {
    "1 rank": Case(),
    "2 ranks, fsdp": Case({"fsdp": 2}),
    "2 ranks, tp": Case({"tp": 2}),
    "4 ranks, fsdp": Case({"fsdp": 4}),
    "4 ranks, fsdp x tp": Case({"fsdp": 2, "tp": 2}),
}
SCALING = {
    "length 128": Case(context=128, rows=16),
    "length 2048": Case(context=2048, rows=2),
    "tokens x 2": Case(rows=8),
}


class Rows:
    def __init__(self, config) -> None:
        self.config = config

    def batch(self, first: int, count: int):
        import numpy as np

        from phikit.mixture.loader import finish

        config = self.config
        rng, shape = np.random.default_rng(first), (count, config.context)
        place = np.tile(np.arange(config.context), (count, 1))
        return finish(
            rng.integers(0, config.vocab, shape), np.full(shape, 100.0, np.float32), np.zeros(shape, np.int64),
            place, ("random",) * count,
        )  # fmt: skip


def worker(case: Case, what: str, steps: int, out: Path) -> None:
    os.environ["PHIKIT_QUIET"] = "1"
    import torch

    from phikit.model.config import ModelConfig
    from phikit.model.layout import Layout
    from phikit.model.ranks import Ranks, leave
    from phikit.train.optim import OptimConfig
    from phikit.train.trainer import TrainConfig

    torch.set_num_threads(1)
    config, laid = replace(ModelConfig(**SHAPE), context=case.context), Layout(**case.layout, device="cpu")
    train = TrainConfig(max(3, steps + 1), rows(case, laid), MICRO, OptimConfig(), layout=laid)
    found = seconds(config, train, steps, out) if what == "seconds" else sizes(config, train, out)
    ranks = Ranks(laid)
    if ranks.first:
        (out / "measured.json").write_text(json.dumps(found))
    ranks.wait()
    leave()


def rows(case: Case, layout) -> int:
    """Of a step."""
    return case.rows or max(4, PASSES * MICRO * layout.data)


def seconds(config, train, steps: int, out: Path) -> dict[str, Any]:
    """Of each step, and the rates of this rank before, between and after."""
    trainer = made(config, train, out / "work")  # it sets the allocator
    trainer.run("first", until=1)
    found, rates = [], [calibrate(config, trainer.ranks, MICRO, TURNS)]
    for step in range(2, steps + 2):
        trainer.ranks.wait()
        start = clock()
        trainer.run("steps", until=step)
        found.append(clock() - start)
        rates.append(calibrate(config, trainer.ranks, MICRO, TURNS))
    return {"seconds": found, "rates": rates}


def sizes(config, train, out: Path) -> dict[str, Any]:
    # libraries load on the way
    small = replace(config, vocab=64, width=32, ffn=32, layers=2)
    made(small, replace(train, steps=1), out / "small").run("small")
    gc.collect()
    begin = memory()["VmRSS"]
    trainer = made(config, train, out / "work")
    gc.collect()
    held = memory()["VmRSS"]
    trainer.run("first", until=1)
    gc.collect()
    moments = memory()["VmRSS"]
    peaks = []
    for step in (2, 3):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        now = memory()["VmRSS"]
        trainer.run("steps", until=step)
        peaks.append(memory()["VmHWM"] - now)
    return {
        "parameters": held - begin, "optimizer": moments - held, "peak of a step": statistics.median(peaks),
    }  # fmt: skip


def made(config, train, work: Path):
    from phikit.model.transformer import build
    from phikit.train.objectives import LanguageModeling
    from phikit.train.trainer import Trainer

    return Trainer(build(config, 0), LanguageModeling(), Rows(config), train, work)


def memory() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        k: int(v.split()[0]) * 1024
        for k, _, v in (x.partition(":") for x in lines)
        if k in ("VmRSS", "VmHWM")
    }


def beside(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Of a step between two calibrations: the seconds that something takes are the mean of both."""
    return {k: (v + after[k]) / 2 if k in SECONDS else 2 / (1 / v + 1 / after[k]) for k, v in before.items()}


def device_of(rates: dict[str, float]):
    from phikit.train.cost import Device

    near = rates.get("all_reduce", 1.0)
    kinds = {k: rates[k] / near for k in KINDS if k in rates}
    rest: dict[str, Any] = {k: v for k, v in rates.items() if k not in KINDS}
    return Device("here", 0, 0, near=near, far=near, kinds=kinds, fused=1.0, beside=False, **rest)


def compare(name: str, case: Case, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of one case."""
    from phikit.model.config import ModelConfig
    from phikit.model.layout import Layout
    from phikit.train.cost import step_seconds
    from phikit.train.simulate import trace

    layout = Layout(**case.layout, device="cpu")
    found = trace(ModelConfig(**SHAPE), layout, MICRO, case.context, cuda=False)
    m, passes = found.memory, rows(case, layout) // layout.data // MICRO
    planned = {
        "parameters": m.parameters, "optimizer": m.optimizer, "peak of a step": m.gradients + m.activations + m.buffers,
    }  # fmt: skip
    made = [
        {
            "case": name,
            "kind": k,
            "predicted": v,
            "measured": measured[k],
            "ratio": closeness(v, measured[k]),
        }
        for k, v in planned.items()
    ]
    rates = [beside(*pair) for pair in pairwise(measured["rates"])]
    steps = [step_seconds(device_of(r), layout, found, passes) for r in rates]
    for r, parts, took in zip(rates, steps, measured["seconds"]):
        print(f"{name}: a step of {took:.2f} s; planned", {k: round(v, 2) for k, v in parts.items() if v})
        print(f"{name}: rates", {k: float(f"{v:.3g}") for k, v in r.items()}, flush=True)
    each = [sum(parts.values()) for parts in steps]
    shares = [p / m for p, m in zip(each, measured["seconds"])]
    planned_s, measured_s = statistics.median(each), statistics.median(measured["seconds"])
    return [*made, {
        "case": name, "kind": "seconds", "predicted": planned_s, "measured": measured_s,
        "ratio": closeness(planned_s, measured_s), "low": min(shares), "high": max(shares),
    }]  # fmt: skip


def closeness(a: float, b: float) -> float:
    return min(a / b, b / a)


def measure(case: Case, steps: int, cpu: bool) -> dict[str, Any]:
    """Of both runs of a case."""
    plain = os.environ | {"CLOCK": "cpu" if cpu else "wall", "OMP_NUM_THREADS": "1"}
    environments = {
        "seconds": plain,
        # Freed blocks go back at once, so that the process's memory is that of its tensors.
        "memory": plain | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    }
    ranks = math.prod(case.layout.values())
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    measured: dict[str, Any] = {}
    for what, environment in environments.items():
        with tempfile.TemporaryDirectory() as folder:
            args = ["--worker", json.dumps(asdict(case)), what, str(steps), folder]
            command = [sys.executable, *(launch if ranks > 1 else []), __file__, *args]
            subprocess.run(command, env=environment, check=True)
            measured |= json.loads((Path(folder) / "measured.json").read_text())
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=5, help="timed, of each case")
    parser.add_argument("--layouts", default="; ".join(CASES), help="some of them, with semicolons between")
    parser.add_argument(
        "--scaling", action="store_true", help="lengths and tokens on one rank, in place of layouts"
    )
    parser.add_argument(
        "--cpu", action="store_true", help="CPU seconds in place of wall time: for a busy machine"
    )
    a = parser.parse_args()
    if a.worker:
        case, what, steps, folder = a.worker
        worker(Case(**json.loads(case)), what, int(steps), Path(folder))
        return 0
    found: list[dict[str, Any]] = []
    cases = SCALING if a.scaling else {name: CASES[name] for name in a.layouts.split("; ")}
    for name, case in cases.items():
        of_case = compare(name, case, measure(case, a.steps, a.cpu))
        for r in of_case:
            interval = f" [{r['low']:.3f}, {r['high']:.3f}] of single steps" if "low" in r else ""
            print(f"{name}: {r['kind']} predicted {r['predicted']:.4g}, measured {r['measured']:.4g}: "
                  f"{r['ratio']:.3f}{interval}", flush=True)  # fmt: skip
        found += of_case
    times = [r for r in found if r["kind"] == "seconds"]
    worst = {
        "seconds": min(r["ratio"] for r in times),
        "memory": min(r["ratio"] for r in found if r["kind"] != "seconds"),
    }
    print(json.dumps({
        "name": "plan", "ours": round(min(worst.values()), 3), "peer": 1.0, "peer_name": "measurement",
        "peer_version": "", "unit": "worst min(predicted / measured, measured / predicted)",
        "ratio": round(min(worst.values()), 3), **{k: round(v, 3) for k, v in worst.items()},
        "low": round(min(r["low"] for r in times), 3), "high": round(max(r["high"] for r in times), 3),
        "rows": {f"{r['case']}: {r['kind']}": round(r["ratio"], 3) for r in found}, "agree": True,
        "clock": "cpu" if a.cpu else "wall", "n": a.steps, "goal": all(worst[k] >= v for k, v in GOALS.items()),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
