"""What `phikit plan` predicts against real runs: memory by kind and seconds a step of a 60 M network on 1 and 2 ranks.

The prediction is the trace of the sharded network on fake tensors (`train.simulate`) with rates from microbenchmarks
alone: matrix products at the network's own shapes, products of attention's shape, a copy, an all-reduce. Each rank
has one thread, fp32. Memory is that of the process after a step of a tiny network: growth by the weights, by the
first step's moments, and the peak within a later step over what it began with (gradients, activations, buffers).
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
STEPS = 3
GOALS = {"memory": 0.9, "seconds": 0.85}
LAYOUTS: dict[str, dict[str, Any]] = {"1 rank": {}, "2 ranks, fsdp": {"fsdp": 2}, "2 ranks, tp": {"tp": 2}}


def worker(layout: dict[str, Any], out: Path) -> None:
    os.environ["PHIKIT_QUIET"] = "1"
    import torch

    from phikit.mixture.loader import finish
    from phikit.model.config import ModelConfig
    from phikit.model.layout import Layout
    from phikit.model.ranks import Ranks
    from phikit.model.transformer import build
    from phikit.train.objectives import LanguageModeling
    from phikit.train.optim import OptimConfig
    from phikit.train.trainer import TrainConfig, Trainer

    torch.set_num_threads(1)
    config = ModelConfig(**SHAPE)

    class Rows:
        def __init__(self, config: ModelConfig) -> None:
            self.config = config

        def batch(self, first: int, count: int):
            import numpy as np

            config = self.config
            rng, shape = np.random.default_rng(first), (count, config.context)
            place = np.tile(np.arange(config.context), (count, 1))
            return finish(
                rng.integers(0, config.vocab, shape), np.full(shape, 100.0, np.float32), np.zeros(shape, np.int64),
                place, ("random",) * count,
            )  # fmt: skip

    train = TrainConfig(STEPS + 2, ROWS, MICRO, OptimConfig(), layout=Layout(**layout, device="cpu"))
    Ranks(train.layout)
    rates = calibrate(config, train.layout.ranks)
    small = ModelConfig(
        **{**SHAPE, "vocab": 64, "width": 32, "ffn": 32, "layers": 2}
    )  # libraries load on the way
    Trainer(build(small, 0), LanguageModeling(), Rows(small), replace(train, steps=1), out / "small").run(
        "small"
    )
    gc.collect()
    begin = memory()["VmRSS"]
    trainer = Trainer(build(config, 0), LanguageModeling(), Rows(config), train, out / "work")
    gc.collect()
    held = memory()["VmRSS"]
    trainer.run("first", until=1)
    gc.collect()
    moments = memory()["VmRSS"]
    peaks, seconds = [], []
    for step in range(2, STEPS + 3):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        now, start = memory()["VmRSS"], clock()
        trainer.run("steps", until=step)
        seconds.append(clock() - start)
        peaks.append(memory()["VmHWM"] - now)
    found = {
        "parameters": held - begin, "optimizer": moments - held, "peak of a step": statistics.median(peaks),
        "seconds": statistics.median(seconds), "rates": rates,
    }  # fmt: skip
    if trainer.ranks.first:
        (out / "measured.json").write_text(json.dumps(found))
    trainer.ranks.wait()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


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


def calibrate(c, ranks: int) -> dict[str, float]:
    """FLOP/s and bytes/s of this rank, while the others do the same."""
    import torch
    import torch.distributed as dist

    tokens, kv = MICRO * c.context, c.kv_heads * c.head_dim
    shapes = [(c.width, c.width, 2), (kv, c.width, 2), (c.ffn, c.width, 2), (c.width, c.ffn, 1)]
    flops = seconds = 0.0
    for out, into, n in [(o, i, n * c.layers) for o, i, n in shapes] + [(c.vocab, c.width, 1)]:
        x, w, g = torch.randn(tokens, into), torch.randn(out, into), torch.randn(tokens, out)
        flops += n * 6.0 * tokens * out * into
        seconds += n * sum(best(call) for call in (lambda: x @ w.T, lambda: g @ w, lambda: g.T @ x))  # noqa: B023
    q = torch.randn(MICRO * c.heads, c.context, c.head_dim)
    s = torch.randn(MICRO * c.heads, c.context, c.context)
    scores = 2.0 * q.numel() * c.context
    products = best(lambda: q @ q.mT) + best(lambda: s @ q)
    a, b = torch.randn(1 << 24), torch.empty(1 << 24)
    rates = {
        "matmul": flops / seconds,
        "attention": 2 * scores / products,
        "copy": 2 * a.nbytes / best(lambda: b.copy_(a)),
    }
    if ranks > 1:
        part = a[: 1 << 22]
        rates["near"] = part.nbytes / best(lambda: dist.all_reduce(part))  # 2 (n - 1) / n of it at 2 ranks
    return rates


def best(call, runs: int = 5) -> float:
    times = []
    for _ in range(runs):
        begin = clock()
        call()
        times.append(clock() - begin)
    return statistics.median(times[1:])


def predict(layout: dict[str, Any], rates: dict[str, float]) -> dict[str, float]:
    from phikit.model.config import ModelConfig
    from phikit.model.layout import Layout
    from phikit.train.cost import Device, step_seconds
    from phikit.train.simulate import trace

    laid = Layout(**layout, device="cpu")
    found = trace(ModelConfig(**SHAPE), laid, MICRO, SHAPE["context"], cuda=False)
    near = rates.get("near", 1.0)
    device = Device("here", 0, 0, rates["matmul"], rates["attention"], rates["copy"], near, near, fused=1.0)
    m = found.memory
    return {
        "parameters": m.parameters, "optimizer": m.optimizer, "peak of a step": m.gradients + m.activations + m.buffers,
        "seconds": sum(step_seconds(device, laid, found, ROWS // laid.data // MICRO).values()),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--layouts", default="; ".join(LAYOUTS), help="some of them, with semicolons between")
    parser.add_argument(
        "--cpu", action="store_true", help="CPU seconds in place of wall time: for a busy machine"
    )
    a = parser.parse_args()
    if a.worker:
        worker(json.loads(a.worker[0]), Path(a.worker[1]))
        return 0
    # Freed blocks go back at once, so that the process's memory is that of its tensors.
    environment = os.environ | {
        "CLOCK": "cpu" if a.cpu else "wall", "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536",
    }  # fmt: skip
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
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, *torchrun, __file__, "--worker", json.dumps(layout), folder]
                subprocess.run(command, env=environment, check=True)
                measured = json.loads((Path(folder) / "measured.json").read_text())
            predicted = predict(layout, measured.pop("rates"))
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
