"""One optimizer step on the CPU against transformers' Phi3ForCausalLM with torch's fused AdamW.

Equal weights, rows and loss; each side in a process of its own, steps in turn: ours as `phikit run` trains (with
--compile in its better setting too: `compile: true` of a layout takes half a minute and memory), the peer in its
better setting of eager and compiled (tried first). Rows are one document each, which is the peer's best case.
`gemm` is the share of our step that its matrix products alone take, measured in the same run: the bound of `ratio` is
the peer's time over theirs. Memory is the growth of the peak after imports.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _steps import SHAPES, Side, options, serve, threads_of
from _transformers import alternate, interval

ROWS = {"1.3M": 16, "9M": 8, "60M": 2}
CLOSE = {"fp32": 1e-5, "bf16": 1e-3}
GOALS = {"ratio": 1.5, "memory": 0.7, "gemm": 0.75}
STEPS = 400  # of the schedule; only some are run


def ours(shape: str, precision: str, compiled: bool) -> Any:
    os.environ["PHIKIT_QUIET"] = "1"
    import torch._dynamo  # noqa: F401  # torch.optim imports it with its first optimizer, transformers at once

    from phikit.model.config import ModelConfig
    from phikit.model.layout import Layout
    from phikit.model.transformer import build
    from phikit.train.objectives import LanguageModeling
    from phikit.train.optim import OptimConfig
    from phikit.train.trainer import TrainConfig, Trainer

    c, rows = ModelConfig(**SHAPES[shape]), ROWS[shape]
    yield
    layout = Layout(device="cpu", precision=precision, compile=compiled)  # type: ignore[arg-type]
    config = TrainConfig(
        STEPS, rows, rows, OptimConfig(lr=1e-4, weight_decay=0.1), warmup=0, decay=0, layout=layout
    )

    class Rows:
        def batch(self, first: int, count: int):
            return batch(c.vocab, c.context, first // count, count)

    trainer = Trainer(build(c, 0), LanguageModeling(), Rows(), config, Path("/nonexistent"))
    while True:
        yield trainer._step()[0]["loss"]


def batch(vocab: int, context: int, step: int, count: int):
    import numpy as np

    from phikit.mixture.loader import finish

    shape = (count, context)
    tokens = np.random.default_rng(step).integers(0, vocab, shape)
    place = np.tile(np.arange(context), (count, 1))
    return finish(
        tokens, np.full(shape, 100.0, np.float32), np.zeros(shape, np.int64), place, ("random",) * count
    )


def peer(shape: str, precision: str, compiled: bool) -> Any:
    import torch
    import transformers  # noqa: F401
    from _transformers import phi3

    from phikit.model.config import ModelConfig
    from phikit.model.transformer import build

    c, rows = ModelConfig(**SHAPES[shape]), ROWS[shape]
    from transformers import Phi3ForCausalLM  # noqa: F401

    yield
    model = phi3(build(c, 0)).train()
    plain = [p for n, p in model.named_parameters() if p.ndim < 2]
    wide = [p for n, p in model.named_parameters() if p.ndim >= 2]
    groups = [{"params": wide, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optim = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    run = torch.compile(model) if compiled else model
    step = 0
    while True:
        tokens = torch.from_numpy(batch(c.vocab, c.context, step, rows).tokens)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = run(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad(set_to_none=True)
        step += 1
        yield float(loss.detach())


def gemm(shape: str, precision: str) -> Any:
    """Yields the seconds of a step's matrix products, forward and backward, one after another."""
    import torch

    from phikit.model.config import ModelConfig

    c, n = ModelConfig(**SHAPES[shape]), ROWS[shape] * SHAPES[shape]["context"]
    yield
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    kv = c.kv_heads * c.head_dim
    block = [
        (c.width, c.width),
        (kv, c.width),
        (kv, c.width),
        (c.width, c.width),
        (c.ffn, c.width),
        (c.ffn, c.width),
        (c.width, c.ffn),
    ]
    shapes = block * c.layers + [(c.vocab, c.width)]
    parts = [tuple(torch.randn(*s).to(dtype) for s in ((n, i), (o, i), (n, o))) for o, i in shapes]
    while True:
        for x, w, g in parts:
            x @ w.T, g @ w, g.T @ x
        yield 0.0


def compare(shape: str, precision: str, pairs: int, threads: int, cpu: bool, either: bool) -> dict[str, Any]:
    def side(*which: Any) -> Side:
        return Side(__file__, [which[0], shape, precision, *which[1:]], threads=threads, cpu=cpu)

    def best(which: str, settings: tuple[bool, ...]) -> tuple[Side, bool]:
        """The better of eager and compiled; the other one is ended."""
        sides = [side(which, compiled) for compiled in settings]
        times = []
        for s in sides:
            for _ in range(3):
                s.step()
            times.append(statistics.median(s.step()["seconds"] for _ in range(5)))
        keep = times.index(min(times))
        for s in sides:
            if s is not sides[keep]:
                s.end()
        return sides[keep], settings[keep]

    b, peer_compiled = best("peer", (False, True))
    a, compiled = best("ours", (False, True) if either else (False,))
    g = side("gemm")
    g.step()
    found = alternate(a.step, b.step, pairs)
    products = [g.step()["seconds"] for _ in range(max(5, pairs // 2))]
    for s in (a, b, g):
        s.end()
    low, ratio, high = interval([p["seconds"] / o["seconds"] for o, p in found])
    seconds = interval([o["seconds"] for o, _ in found])[1]
    tokens = ROWS[shape] * SHAPES[shape]["context"]
    far = max(abs(o["loss"] / p["loss"] - 1) for o, p in found[:3])
    product = interval(products)[1]
    row = {
        "shape": shape, "precision": precision, "ours": round(tokens / seconds), "ratio": round(ratio, 3),
        "peer": round(tokens / interval([p["seconds"] for _, p in found])[1]), "low": round(low, 3),
        "high": round(high, 3), "memory": round(found[-1][0]["memory"] / found[-1][1]["memory"], 3),
        "gemm": round(product / seconds, 3), "bound": round(ratio * seconds / product, 2),
        "compiled": compiled, "peer_compiled": peer_compiled, "difference": float(f"{far:.1e}"),
        "agree": far <= CLOSE[precision],
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--compile", action="store_true", help="ours too in the better of eager and compiled")
    a = parser.parse_args()
    if a.worker:
        which, *rest = json.loads(a.worker)
        serve({"ours": ours, "peer": peer, "gemm": gemm}[which](*rest))
        return 0
    threads = threads_of(a)
    begin = time.monotonic()
    rows = [
        compare(shape, precision, a.pairs, threads, a.cpu, a.compile)
        for shape in a.shapes.split(",")
        for precision in a.precisions.split(",")
    ]
    import transformers

    worst = min(rows, key=lambda r: r["ratio"])
    print(json.dumps({
        "name": "train_step", **{k: worst[k] for k in ("ours", "peer", "ratio", "low", "high", "bound")},
        "peer_name": "transformers Phi3ForCausalLM", "peer_version": transformers.__version__, "unit": "tokens/s",
        "agree": all(r["agree"] for r in rows), "n": a.pairs, "threads": threads, "clock": "cpu" if a.cpu else "wall",
        "memory": max(r["memory"] for r in rows), "gemm": min(r["gemm"] for r in rows),
        "rows": rows, "seconds": round(time.monotonic() - begin),
        "goal": all(r["ratio"] >= GOALS["ratio"] and r["memory"] <= GOALS["memory"] for r in rows)
        and all(r["gemm"] >= GOALS["gemm"] for r in rows if r["shape"] != "1.3M"),
    }))  # fmt: skip
    return 0 if all(r["agree"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
