"""A step of supervised fine-tuning on the CPU: our packed rows with masks against padded batches of transformers.

64 dialogs of unequal length, of which the last part of each is trained, are one optimizer step of both: the same
network, AdamW, and the loss divided once by the trained tokens of the step. Ours packs them into rows of 512 tokens
with boundaries kept; the peer (Phi3ForCausalLM, attention mask, labels -100) pads each batch to its longest dialog, in
the better of two orders (as they come, or sorted by length, its `group_by_length`), eager or compiled. `bound`: the
tokens that the peer computes over ours. What counts is useful tokens, without padding.
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

SHAPE = {**SHAPES["1.3M"], "context": 512}
DIALOGS, MICRO = 64, 8  # of a step, of a padded batch
STEPS = 400
CLOSE = {"fp32": 1e-5, "bf16": 1e-3}
GOALS = {"ratio": 1.5, "memory": 0.7}


def dialogs() -> list[tuple[Any, int]]:
    """(tokens, the first that is trained). Lengths are log-normal with median 90, as short chats are."""
    import numpy as np

    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(90), 0.8, DIALOGS)).astype(int), 16, SHAPE["context"])
    return [(rng.integers(1, SHAPE["vocab"], n), int(n * rng.uniform(0.2, 0.7))) for n in lengths]


def ours(precision: str) -> Any:
    os.environ["PHIKIT_QUIET"] = "1"
    import numpy as np
    import torch._dynamo  # noqa: F401  # torch.optim imports it with its first optimizer, transformers at once

    from phikit.mixture.loader import finish
    from phikit.mixture.pack import pack
    from phikit.model.config import ModelConfig
    from phikit.model.layout import Layout
    from phikit.model.transformer import build
    from phikit.train.objectives import LanguageModeling
    from phikit.train.optim import OptimConfig
    from phikit.train.trainer import TrainConfig, Trainer

    yield
    c, found = ModelConfig(**SHAPE), dialogs()
    pieces, offsets = pack(np.array([len(t) for t, _ in found]), c.context, np.arange(len(found)))
    n = len(offsets) - 1

    class Rows:
        def batch(self, first: int, count: int):
            shape = (n, c.context)
            tokens, place = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            own, segment = np.zeros(shape, np.float32), np.full(shape, -1, np.int64)
            for row in range(n):
                at = 0
                for number, (d, a, e) in enumerate(pieces[offsets[row] : offsets[row + 1]]):
                    where = slice(at, at := at + e - a)
                    tokens[row, where], place[row, where] = found[d][0][a:e], np.arange(e - a)
                    own[row, where] = 100.0 * (np.arange(a, e) >= found[d][1])
                    segment[row, where] = number
            return finish(tokens, own, segment, place, ("dialogs",) * n)

    layout = Layout(device="cpu", precision=precision)  # type: ignore[arg-type]
    config = TrainConfig(
        STEPS, n, 4, OptimConfig(lr=1e-4, weight_decay=0.1), warmup=0, decay=0, layout=layout
    )
    trainer = Trainer(build(c, 0), LanguageModeling(), Rows(), config, Path("/nonexistent"))
    while True:
        yield trainer._step()[0]["loss"]


def batches(grouped: bool) -> list[list[tuple[Any, int]]]:
    found = dialogs()
    if grouped:
        found.sort(key=lambda d: -len(d[0]))
    return [found[a : a + MICRO] for a in range(0, DIALOGS, MICRO)]


def peer(precision: str, grouped: bool, compiled: bool) -> Any:
    import torch
    from _transformers import phi3
    from transformers import Phi3ForCausalLM  # noqa: F401

    from phikit.model.config import ModelConfig
    from phikit.model.transformer import build

    yield
    model = phi3(build(ModelConfig(**SHAPE), 0)).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optim = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    run = torch.compile(model, dynamic=True) if compiled else model
    trained = sum(len(t) - max(first, 1) for t, first in dialogs())
    while True:
        total = 0.0
        for rows in batches(grouped):
            longest = max(len(t) for t, _ in rows)
            tokens = torch.zeros(len(rows), longest, dtype=torch.long)
            seen, labels = torch.zeros_like(tokens), torch.full_like(tokens, -100)
            for i, (t, first) in enumerate(rows):
                tokens[i, : len(t)] = torch.from_numpy(t)
                seen[i, : len(t)] = 1
                labels[i, first : len(t)] = torch.from_numpy(t[first:])
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = run(
                    input_ids=tokens,
                    attention_mask=seen,
                    labels=labels,
                    use_cache=False,
                    num_items_in_batch=trained,
                ).loss
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad(set_to_none=True)
        yield total


def compare(precision: str, pairs: int, threads: int, cpu: bool) -> dict[str, Any]:
    def side(*which: Any) -> Side:
        return Side(__file__, [which[0], precision, *which[1:]], threads=threads, cpu=cpu)

    tried = {}
    for setting in ((False, False), (True, False), (True, True)):
        s = side("peer", *setting)
        for _ in range(3):
            s.step()
        tried[setting] = s, statistics.median(s.step()["seconds"] for _ in range(3))
    best = min(tried, key=lambda k: tried[k][1])
    for setting, (s, _) in tried.items():
        if setting != best:
            s.end()
    a, b = side("ours"), tried[best][0]
    for _ in range(6):  # as many as the peer has taken
        a.step()
    found = alternate(a.step, b.step, pairs)
    a.end()
    b.end()
    low, ratio, high = interval([p["seconds"] / o["seconds"] for o, p in found])
    lengths = [[len(t) for t, _ in rows] for rows in batches(best[0])]
    useful, padded = sum(map(sum, lengths)), sum(max(n) * len(n) for n in lengths)
    far = max(abs(o["loss"] / p["loss"] - 1) for o, p in found[:3])
    row = {
        "precision": precision, "ours": round(useful / interval([o["seconds"] for o, _ in found])[1]),
        "peer": round(useful / interval([p["seconds"] for _, p in found])[1]), "ratio": round(ratio, 3),
        "low": round(low, 3), "high": round(high, 3), "bound": round(padded / useful, 2),
        "memory": round(found[-1][0]["memory"] / found[-1][1]["memory"], 3), "grouped": best[0],
        "compiled": best[1], "difference": float(f"{far:.1e}"), "agree": far <= CLOSE[precision],
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def main() -> int:
    a = options(__doc__).parse_args()
    if a.worker:
        which, *rest = json.loads(a.worker)
        serve({"ours": ours, "peer": peer}[which](*rest))
        return 0
    threads, begin = threads_of(a), time.monotonic()
    rows = [compare(p, a.pairs, threads, a.cpu) for p in a.precisions.split(",")]
    import transformers

    worst = min(rows, key=lambda r: r["ratio"])
    print(json.dumps({
        "name": "sft_masked", **{k: worst[k] for k in ("ours", "peer", "ratio", "low", "high", "bound")},
        "peer_name": "transformers Phi3ForCausalLM, padded", "peer_version": transformers.__version__,
        "unit": "useful tokens/s", "agree": all(r["agree"] for r in rows), "n": a.pairs, "threads": threads,
        "clock": "cpu" if a.cpu else "wall", "memory": max(r["memory"] for r in rows), "rows": rows,
        "seconds": round(time.monotonic() - begin),
        "goal": all(r["ratio"] >= GOALS["ratio"] and r["memory"] <= GOALS["memory"] for r in rows),
    }))  # fmt: skip
    return 0 if all(r["agree"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
