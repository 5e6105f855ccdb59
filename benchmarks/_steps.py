"""Training steps of two sides in turns, each in a process of its own that takes one step for each line it is sent."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _transformers import now, use_clock

# Of networks that are timed on the CPU: keys of ModelConfig.
SHAPES: dict[str, dict[str, Any]] = {
    "1.3M": {
        "vocab": 2048, "width": 128, "layers": 4, "heads": 4, "kv_heads": 2, "ffn": 384, "context": 128, "tied": True,
    },
    "9M": {
        "vocab": 8192, "width": 256, "layers": 8, "heads": 4, "kv_heads": 2, "ffn": 896, "context": 256, "tied": True,
    },
    "60M": {"vocab": 25_600, "width": 512, "layers": 10, "heads": 8, "kv_heads": 2, "ffn": 1792, "context": 512},
}  # fmt: skip


class Side:
    """`script --worker ARGS`; what it makes of them goes to `serve`."""

    def __init__(self, script: str, args: list[Any], *, threads: int, cpu: bool) -> None:
        environment = os.environ | {
            "CLOCK": "cpu" if cpu else "wall", "THREADS": str(threads), "OMP_NUM_THREADS": str(threads),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", json.dumps(args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def step(self, _: int = 0) -> dict[str, float]:
        """{"seconds", "loss", "memory"}: the last is the growth of the peak since the imports, in bytes."""
        assert self.process.stdin
        assert self.process.stdout
        print("step", file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a side ended: see its error above")
        return json.loads(line)

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve(steps: Iterator[float]) -> None:
    """In the process of a side. `steps` first yields once its imports are done, then the loss of each step."""
    import torch

    torch.set_num_threads(int(os.environ["THREADS"]))
    use_clock(os.environ["CLOCK"] == "cpu")
    next(steps)
    base = status("VmRSS")
    for _ in sys.stdin:
        begin = now()
        loss = next(steps)
        print(
            json.dumps({"seconds": now() - begin, "loss": loss, "memory": status("VmHWM") - base}), flush=True
        )


def status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def options(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores, with --cpu 1")
    parser.add_argument(
        "--cpu", action="store_true", help="CPU seconds in place of wall time: for a busy machine"
    )
    return parser


def threads_of(a: argparse.Namespace) -> int:
    return a.threads or (1 if a.cpu else len(os.sched_getaffinity(0)))
