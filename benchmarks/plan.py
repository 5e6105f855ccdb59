"""What `phikit plan` predicts against real runs: memory by kind and seconds a step of a 60 M network on 1 and 2 ranks.

The prediction is the trace of the sharded network on fake tensors (`train.simulate`) with rates from microbenchmarks
alone, on as many ranks at once: matrix products at the network's own shapes and of small DTensors, products of
attention's shape, copies of much and of a few numbers, collectives at the sizes that the layout sends. Each rank has
one thread, fp32. Memory is that of the process after a step of a tiny network: growth by the weights, by the first
step's moments, and the peak within a later step over what it began with (gradients, activations, buffers). It is taken
in a run of its own, in which malloc gives all back at once: that makes a step 1.4 times as long.
`ratio` is the worst of min(predicted / measured, measured / predicted) over kinds and times.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _steps import SHAPES

SHAPE = SHAPES["60M"]
ROWS, MICRO = 4, 1  # a step, a forward pass: at least two passes on each rank, as plans assume
STEPS = 2
TIMES = ("call", "divided")  # of the rates; the others are a second's
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
GOALS = {"memory": 0.9, "seconds": 0.85}
LAYOUTS: dict[str, dict[str, Any]] = {"1 rank": {}, "2 ranks, fsdp": {"fsdp": 2}, "2 ranks, tp": {"tp": 2}}


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


def worker(layout: dict[str, Any], what: str, out: Path) -> None:
    os.environ["PHIKIT_QUIET"] = "1"
    import torch

    from phikit.model.config import ModelConfig
    from phikit.model.layout import Layout
    from phikit.model.ranks import Ranks, leave
    from phikit.train.optim import OptimConfig
    from phikit.train.trainer import TrainConfig

    torch.set_num_threads(1)
    config = ModelConfig(**SHAPE)
    train = TrainConfig(STEPS + 2, ROWS, MICRO, OptimConfig(), layout=Layout(**layout, device="cpu"))
    ranks = Ranks(train.layout)
    found = seconds(config, train, out) if what == "seconds" else sizes(config, train, out)
    if ranks.first:
        (out / "measured.json").write_text(json.dumps(found))
    ranks.wait()
    leave()


def seconds(config, train, out: Path) -> dict[str, Any]:
    """Of a step, and the rates of this rank before and after."""
    trainer = made(config, train, out / "work")
    before = calibrate(config, train.layout)  # with the allocator's settings of a trainer
    trainer.run("first", until=1)
    found = []
    for step in range(2, STEPS + 3):
        start = clock()
        trainer.run("steps", until=step)
        found.append(clock() - start)
    after = calibrate(config, train.layout)
    # The seconds that something takes are the mean of both.
    rates = {
        k: 2 / (1 / v + 1 / after[k]) if k not in TIMES else (v + after[k]) / 2 for k, v in before.items()
    }
    return {"seconds": statistics.median(found), "rates": rates}


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


def clock() -> float:
    """Wall time, or CPU time of this process."""
    return time.process_time() if os.environ.get("CLOCK") == "cpu" else time.perf_counter()


def memory() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        k: int(v.split()[0]) * 1024
        for k, _, v in (x.partition(":") for x in lines)
        if k in ("VmRSS", "VmHWM")
    }


def calibrate(c, layout) -> dict[str, float]:
    """Rates of this rank for `Device`, while the others do the same."""
    import torch

    tp, tokens, kv = layout.tp, MICRO * c.context // layout.cp, c.kv_heads * c.head_dim
    shapes = [
        (c.width // tp, c.width, 1), (c.width, c.width // tp, 1), (kv // tp, c.width, 2), (c.ffn // tp, c.width, 2),
        (c.width, c.ffn // tp, 1),
    ]  # fmt: skip
    flops = taken = 0.0
    for out, into, n in [(o, i, n * c.layers) for o, i, n in shapes] + [(c.vocab // tp, c.width, 1)]:
        x, w, g = torch.randn(tokens, into), torch.randn(out, into), torch.randn(tokens, out)
        flops += n * 6.0 * tokens * out * into
        taken += n * sum(best(call) for call in (lambda: x @ w.T, lambda: g @ w, lambda: g.T @ x))  # noqa: B023
    heads = MICRO * c.heads // tp // layout.cp
    q, s = torch.randn(heads, c.context, c.head_dim), torch.randn(heads, c.context, c.context)
    products = best(lambda: q @ q.mT) + best(lambda: s @ q)
    a, b = torch.randn(1 << 24), torch.empty(1 << 24)
    few, into = torch.zeros(16), torch.zeros(16)
    found = {
        "matmul": flops / taken,
        "attention": 4.0 * q.numel() * c.context / products,
        "copy": 2 * a.nbytes / best(lambda: b.copy_(a)),
        "call": several(lambda: into.copy_(few), 100),
    }
    return found if layout.ranks == 1 else found | links(c, layout, tokens)


def links(c, layout, tokens: int) -> dict[str, float]:
    """Rates of collectives at the sizes that this layout sends, as bytes that cross a link; small DTensors."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    n = layout.ranks
    group = init_device_mesh("cpu", (n,))
    small = distribute_tensor(torch.zeros(16, 16), group, [Replicate()])
    calls = {
        "all_reduce": lambda whole, part: dist.all_reduce(whole),
        "all_gather": lambda whole, part: dist.all_gather_into_tensor(whole, part),
        "reduce_scatter": lambda whole, part: dist.reduce_scatter_tensor(part, whole),
        "all_to_all": lambda whole, part: dist.all_to_all_single(torch.empty_like(whole), whole),
    }
    block = c.width * (2 * c.width + 2 * c.kv_heads * c.head_dim + 3 * c.ffn)
    weights, stream = [(block, c.layers), (2 * c.vocab * c.width, 1)], [(tokens * c.width, 1)]
    found = {"divided": several(lambda: small @ small, 100)}
    for kind in KINDS:
        size = took = 0.0
        for count, times in weights if kind in ("all_gather", "reduce_scatter") else stream:
            whole, part = torch.randn(count // n * n), torch.empty(count // n)
            took += times * several(lambda: calls[kind](whole, part), 4)  # noqa: B023
            size += times * whole.nbytes * (2 if kind == "all_reduce" else 1) * (n - 1) / n
        found[kind] = size / took
    return found


def several(call, times: int) -> float:
    """Seconds of one of `times` calls in a row: ranks that wait for one another begin together."""
    return best(lambda: [call() for _ in range(times)]) / times


def best(call, runs: int = 5) -> float:
    times = []
    for _ in range(runs):
        begin = clock()
        call()
        times.append(clock() - begin)
    return statistics.median(times[1:])


def predict(layout: dict[str, Any], rates: dict[str, float]) -> dict[str, Any]:
    from phikit.model.config import ModelConfig
    from phikit.model.layout import Layout
    from phikit.train.cost import Device, step_seconds
    from phikit.train.simulate import trace

    laid = Layout(**layout, device="cpu")
    found = trace(ModelConfig(**SHAPE), laid, MICRO, SHAPE["context"], cuda=False)
    near = rates.get("all_reduce", 1.0)
    kinds = {k: rates[k] / near for k in KINDS if k in rates}
    rest: dict[str, Any] = {k: v for k, v in rates.items() if k not in KINDS}
    device = Device("here", 0, 0, near=near, far=near, kinds=kinds, fused=1.0, beside=False, **rest)
    m = found.memory
    parts = step_seconds(device, laid, found, ROWS // laid.data // MICRO)
    return {
        "parameters": m.parameters, "optimizer": m.optimizer, "peak of a step": m.gradients + m.activations + m.buffers,
        "seconds": sum(parts.values()), "parts": {k: round(v, 3) for k, v in parts.items() if v},
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--layouts", default="; ".join(LAYOUTS), help="some of them, with semicolons between")
    parser.add_argument(
        "--cpu", action="store_true", help="CPU seconds in place of wall time: for a busy machine"
    )
    a = parser.parse_args()
    if a.worker:
        worker(json.loads(a.worker[0]), a.worker[1], Path(a.worker[2]))
        return 0
    plain = os.environ | {"CLOCK": "cpu" if a.cpu else "wall", "OMP_NUM_THREADS": "1"}
    environments = {
        "seconds": plain,
        # Freed blocks go back at once, so that the process's memory is that of its tensors.
        "memory": plain | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    }
    rows: list[dict[str, Any]] = []
    for name in a.layouts.split("; "):
        layout = LAYOUTS[name]
        ranks = layout.get("fsdp", 1) * layout.get("tp", 1)
        torchrun = (
            ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
            if ranks > 1
            else []
        )
        for _ in range(a.rounds):
            measured: dict[str, Any] = {}
            for what, environment in environments.items():
                with tempfile.TemporaryDirectory() as folder:
                    command = [
                        sys.executable,
                        *torchrun,
                        __file__,
                        "--worker",
                        json.dumps(layout),
                        what,
                        folder,
                    ]
                    subprocess.run(command, env=environment, check=True)
                    measured |= json.loads((Path(folder) / "measured.json").read_text())
            rates = measured.pop("rates")
            predicted = predict(layout, rates)
            rounded = {k: float(f"{v:.3g}") for k, v in rates.items()}
            print(
                f"{name:<14} rates {rounded}; a step of {predicted.pop('parts')}",
                flush=True,
            )
            for kind, value in measured.items():
                ratio = min(predicted[kind] / value, value / predicted[kind])
                rows.append(
                    {
                        "layout": name,
                        "kind": kind,
                        "predicted": predicted[kind],
                        "measured": value,
                        "ratio": ratio,
                    }
                )
                print(
                    f"{name:<14} {kind:<15} predicted {predicted[kind]:.4g}, measured {value:.4g}: {ratio:.3f}",
                    flush=True,
                )
    worst = {
        "seconds": min(r["ratio"] for r in rows if r["kind"] == "seconds"),
        "memory": min(r["ratio"] for r in rows if r["kind"] != "seconds"),
    }
    print(json.dumps({
        "name": "plan", "ours": round(min(worst.values()), 3), "peer": 1.0, "peer_name": "measurement",
        "peer_version": "", "unit": "worst min(predicted / measured, measured / predicted)",
        "ratio": round(min(worst.values()), 3), **{k: round(v, 3) for k, v in worst.items()}, "agree": True,
        "clock": "cpu" if a.cpu else "wall", "n": len(rows), "goal": all(worst[k] >= v for k, v in GOALS.items()),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
