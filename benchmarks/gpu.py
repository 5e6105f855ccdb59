"""The trainer on one CUDA device: model FLOP utilization at the shapes of the recipe, with packed documents.

Cases go through `Trainer` itself: a 1.3 B network, and four layers of Phi-4's shape with its whole vocabulary, at 4K
and 16K of context; the second row of every two at 16K is one document as long as the row, all others are packed from
documents of log-normal length (median 800). A step is 65,536 tokens in forward passes of 16,384.

MFU = FLOPs of the model / seconds / 989e12, the bf16 peak of an H100. FLOPs: 6 for each weight that multiplies and
token (not the input embedding), and 12 x layers x width for each pair of a query and a key that it may see; what is
computed twice is not counted. `gemm` is the rate of the same matrix products alone, forward and backward, in this run.
First the kernels of attention are checked, loss and gradients of a small network against fp32 on the CPU, and timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phikit.mixture.loader import Batch, finish
from phikit.model.attention import attend, mask_of
from phikit.model.config import PHI4, ModelConfig
from phikit.model.layout import Layout
from phikit.model.transformer import Transformer, build
from phikit.train.cost import PEAKS, train_flops
from phikit.train.objectives import LanguageModeling
from phikit.train.optim import OptimConfig
from phikit.train.simulate import trace
from phikit.train.trainer import TrainConfig, Trainer

PEAK = PEAKS["H100"]
STEP, MICRO = 65_536, 16_384  # tokens
WARM, TIMED = 3, 5  # steps
KERNELS = "flex", "flash"
SHAPES = {
    "1.3B": ModelConfig(100_352, 2048, 16, 16, 4, 7168, 16_384),
    "14Bx4": replace(PHI4, layers=4),
}
GOAL = 0.55


class PackedRows:
    """Row i of `context` tokens: a pure function of i. Weights are 1."""

    def __init__(self, vocab: int, context: int) -> None:
        self.vocab, self.context = vocab, context

    def lengths(self, i: int) -> list[int]:
        if i % 2 and self.context > 4096:
            return [self.context]
        rng = np.random.default_rng(i)
        found, left = [], self.context
        while left:
            n = min(left, max(16, int(rng.lognormal(np.log(800), 1.0))))
            found.append(n)
            left -= n
        return found

    def pairs(self, first: int, count: int) -> int:
        """Of a query and a key that it sees."""
        return sum(n * (n + 1) // 2 for i in range(first, first + count) for n in self.lengths(i))

    def batch(self, first: int, count: int) -> Batch:
        shape = (count, self.context)
        segment, position = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        tokens = np.random.default_rng(first).integers(0, self.vocab, shape)
        for b in range(count):
            lengths = self.lengths(first + b)
            segment[b] = np.repeat(np.arange(len(lengths)), lengths)
            position[b] = np.concatenate([np.arange(n) for n in lengths])
        return finish(tokens, np.full(shape, 100.0, np.float32), segment, position, ("packed",) * count)


# -- in a process of its own ------------------------------------------------------------------------------------


def check() -> dict[str, Any]:
    """Each kernel's loss and gradients on a small network, against fp32 on the CPU; then its time at Phi-4's shape."""
    config = ModelConfig(4096, 1024, 2, 8, 2, 2048, 1024)
    rows = PackedRows(config.vocab, 1024)
    batch = rows.batch(0, 4)
    batch.segment[1, 700:], batch.weight[1, 699:] = -1, 0  # padding

    def gradients(layout: Layout) -> tuple[float, torch.Tensor]:
        train = TrainConfig(1, 4, 2, layout=layout)
        trainer = Trainer(build(config, 0), LanguageModeling(), rows, train, Path("/nonexistent"))
        total = 0.0
        for part in batch.parts(2):
            with torch.autocast(trainer.device.type, torch.bfloat16, enabled=layout.precision == "bf16"):
                loss = LanguageModeling()(trainer.model, part).total / float(batch.weight.sum())
            loss.backward()
            total += float(loss.detach())
        return total, torch.cat([p.grad.float().flatten().cpu() for p in trainer.model.parameters()])  # type: ignore[union-attr]

    want, exact = gradients(Layout(device="cpu"))
    found: dict[str, Any] = {"loss": want}
    cases = {"fp32 flex compile": Layout(attention="flex", compile=True)}
    for k in KERNELS:
        cases |= {f"bf16 {k}": Layout(precision="bf16", attention=k)}  # type: ignore[arg-type]
        cases |= {f"bf16 {k} compile": Layout(precision="bf16", attention=k, compile=True)}  # type: ignore[arg-type]
    cases["bf16 flex recompute"] = Layout(
        precision="bf16", attention="flex", compile=True, recompute="blocks"
    )
    del cases["bf16 flex"]  # compiles as long, and is the same kernel
    for name, layout in cases.items():
        try:
            torch._dynamo.reset()
            loss, grad = gradients(layout)
            row = {"loss": abs(loss / want - 1), "gradient": float((grad - exact).norm() / exact.norm())}
            limit = 1e-4 if layout.precision == "fp32" else 2e-2
            row["agree"] = row["loss"] < limit and row["gradient"] < limit
        except Exception as e:
            row = {"agree": False, "error": f"{type(e).__name__}: {str(e)[:600]}"}
        found[name] = row
        print(name, row, flush=True)
    return found


def kernels() -> dict[str, Any]:
    """Milliseconds forward and backward of each kernel at Phi-4's heads, 16,384 tokens."""
    found = {}
    for what, context in (("one document", 16_384), ("packed", 16_384)):
        rows = PackedRows(100, context)
        i = 1 if what == "one document" else 0
        count = 16_384 // context
        segment = torch.from_numpy(rows.batch(i, count).segment)
        flops = 4 * 5120 * rows.pairs(i, count)
        q, k, v = (
            torch.randn(count, n, context, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for n in (40, 10, 10)
        )
        for kernel in KERNELS:
            try:
                mask = mask_of(segment, kernel, q.device)  # type: ignore[arg-type]
                forward = milliseconds(attend, q, k, v, mask)
                both = milliseconds(_both, q, k, v, mask)
                rate = {"forward": flops / forward / 1e9, "both": 3.5 * flops / both / 1e9}
                row = {
                    "forward_ms": round(forward, 2),
                    "both_ms": round(both, 2),
                    **{k: round(x) for k, x in rate.items()},
                }
            except Exception as e:
                row = {"error": f"{type(e).__name__}: {str(e)[:300]}"}
            found[f"{kernel}, {what}"] = row
            print(kernel, what, row, flush=True)
    return found


def gemms() -> dict[str, float]:
    """TFLOP/s of the matrix products of a forward and backward pass over 16,384 tokens, one after another."""
    found = {}
    for name, c in SHAPES.items():
        kv = c.kv_heads * c.head_dim
        block = [(c.width, c.width), (kv, c.width), (kv, c.width), (c.width, c.width)]
        block += [(c.ffn, c.width), (c.ffn, c.width), (c.width, c.ffn)]
        flops = seconds = 0.0
        for shapes, times, rows in ((block, c.layers, MICRO), ([(c.vocab, c.width)], 2, MICRO // 2)):
            for out, into in shapes:
                x, w, g = (
                    torch.randn(*s, device="cuda", dtype=torch.bfloat16)
                    for s in ((rows, into), (out, into), (rows, out))
                )
                ms = milliseconds(_products, x, w, g)
                flops += times * 6.0 * rows * out * into
                seconds += times * ms / 1000
                del x, w, g
        found[name] = round(flops / seconds / 1e12, 1)
        print("gemm", name, found[name], flush=True)
    return found


def _both(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any) -> None:
    attend(q, k, v, mask).sum().backward()


def _products(x: torch.Tensor, w: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Those of a linear map, forward and backward."""
    return x @ w.T, grad @ w, grad.T @ x


def milliseconds(call: Any, *args: Any, runs: int = 10) -> float:
    for _ in range(3):
        call(*args)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()  # type: ignore[call-arg]
    for _ in range(runs):
        call(*args)
    end.record()  # type: ignore[call-arg]
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / runs


def train(shape: str, context: int, layout: Layout, stream: str, profile: bool) -> dict[str, Any]:
    config = replace(SHAPES[shape], context=context)
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device="cuda")
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.fill_(1.0) if name.endswith("norm.weight") else p.normal_(0, 0.02)
    rows = PackedRows(config.vocab, context)
    count = STEP // context
    steps = WARM + TIMED
    settings = TrainConfig(
        steps + profile, count, MICRO // context, OptimConfig(lr=1e-4), layout=layout, checkpoint_seconds=1e9
    )
    trainer = Trainer(model, LanguageModeling(), rows, settings, Path("/nonexistent"))
    if stream == "fp32":
        model.stream = None
    begin = time.perf_counter()
    trainer.config = replace(settings, steps=1)
    trainer.run("first step")
    first = time.perf_counter() - begin
    trainer.config = replace(settings, steps=steps)
    torch.cuda.reset_peak_memory_stats()
    log = trainer.run("steps")
    peak = torch.cuda.max_memory_allocated()
    seconds = statistics.median(trainer.watch.seconds[WARM:])
    flops = statistics.mean(
        train_flops(config, STEP, rows.pairs(s * count, count)) for s in range(WARM, steps)
    )
    plan = trace(config, layout, MICRO // context, context, cuda=True).memory
    row = {
        "mfu": round(flops / seconds / PEAK, 4), "tokens_s": round(STEP / seconds), "seconds": round(seconds, 4),
        "spread": round(max(trainer.watch.seconds[WARM:]) / min(trainer.watch.seconds[WARM:]) - 1, 3),
        "first_step_s": round(first, 1), "tflop": round(flops / 1e12, 1),
        "attention_share": round(1 - train_flops(config, STEP, 0) / flops, 3),
        "peak_gb": round(peak / 1e9, 2), "plan_gb": round(plan.total / 1e9, 2),
        "plan": {k: round(v / 1e9, 2) for k, v in asdict(plan).items()},
        "loss": [round(log[0]["loss"], 3), round(log[-1]["loss"], 3)],
    }  # fmt: skip
    if profile:
        profiled(trainer, steps + 1)
    return row


def profiled(trainer: Trainer, until: int) -> None:
    """The kernels of one more step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    trainer.config = replace(trainer.config, steps=until)
    with record(activities=[ProfilerActivity.CUDA]) as p:
        trainer.run("profiled")
        torch.cuda.synchronize()
    rows = sorted(p.key_averages(), key=lambda e: -e.self_device_time_total)[:28]
    whole = sum(e.self_device_time_total for e in p.key_averages())
    print(f"device time of kernels {whole / 1e3:.0f} ms")
    for e in rows:
        print(f"  {e.self_device_time_total / 1e3:9.2f} ms {e.count:6d}  {e.key[:110]}")


def one(case: dict[str, Any]) -> dict[str, Any]:
    os.environ["PHIKIT_QUIET"] = "1"
    if case["do"] == "check":
        return check()
    if case["do"] == "kernels":
        return {"kernels": kernels(), "gemm": gemms()}
    layout = Layout(precision="bf16", **case["layout"])
    return train(
        case["shape"], case["context"], layout, case.get("stream", "bf16"), case.get("profile", False)
    )


# -- the runner -------------------------------------------------------------------------------------------------


def child(case: dict[str, Any], limit: float, log: Any) -> dict[str, Any]:
    """A case in a process of its own, so that an error of one leaves the device to the next."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        try:
            code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            code = -1
        out.seek(0)
        text = out.read().strip()
    log.write(f"== {json.dumps(case)}  ({time.monotonic() - begin:.0f} s, code {code})\n{text}\n")
    log.flush()
    if code or not text:
        return {"error": "time is up" if code == -1 else text[-600:]}
    return json.loads(text.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="all that the cases print")
    parser.add_argument("--seconds", type=float, default=340, help="no case begins later")
    parser.add_argument("--quick", action="store_true", help="the four main cases only")
    a = parser.parse_args()
    if a.case:
        row = one(json.loads(a.case))
        print("\n" + json.dumps(row), flush=True)
        return 0
    if not torch.cuda.is_available():
        print("no CUDA device")
        return 2
    begin = time.monotonic()
    with a.log.open("a") as log:
        checked = child({"do": "check"}, 130, log)
        speeds = child({"do": "kernels"}, 80, log)
        agree = {k: v["agree"] for k, v in checked.items() if isinstance(v, dict) and "agree" in v}
        print(json.dumps({"check": checked}), json.dumps(speeds), sep="\n", flush=True)
        timed = speeds.get("kernels", {})
        good = [k for k in KERNELS if agree.get(f"bf16 {k} compile")]
        best = min(good or ["flex"], key=lambda k: timed.get(f"{k}, one document", {}).get("both_ms", 1e9))
        results: dict[str, dict[str, Any]] = {}
        for name, case in cases(best, [k for k in good if k != best], a.quick):
            left = a.seconds - (time.monotonic() - begin)
            if left < 25:
                print(f"{name}: not run, time is up")
                continue
            results[name] = child({"do": "train", **case}, left + 15, log)
            print(name, json.dumps(results[name]), flush=True)
    mfu = {n: r["mfu"] for n, r in results.items() if "mfu" in r}
    main_cases = {n: mfu.get(n, 0.0) for n in ("14Bx4 16K", "14Bx4 4K", "1.3B 4K", "1.3B 16K")}
    gemm = speeds.get("gemm", {})
    row = {
        "name": "gpu", "device": torch.cuda.get_device_name(), "torch": torch.__version__, "unit": "MFU",
        "ours": main_cases["14Bx4 16K"], "peer": GOAL, "peer_name": "goal", "peer_version": "", "mfu": mfu,
        "ratio": round(min(main_cases.values()) / GOAL, 3), "gemm_tflops": gemm, "kernel": best,
        "bound": {n: round(x * 1e12 / PEAK, 3) for n, x in gemm.items()},
        "memory": {n: [r["peak_gb"], r["plan_gb"]] for n, r in results.items() if "peak_gb" in r},
        "agree": all(agree.get(k, False) for k in (f"bf16 {best} compile", "fp32 flex compile")),
        "agrees": agree, "goal": min(main_cases.values()) >= GOAL, "n": TIMED,
        "seconds": round(time.monotonic() - begin),
    }  # fmt: skip
    print(json.dumps(row))
    return 0 if row["agree"] else 1


def cases(best: str, others: list[str], quick: bool) -> list[tuple[str, dict[str, Any]]]:
    """In order of what they tell."""
    layout = {"attention": best, "compile": True}
    main = [
        (f"{shape} {context // 1024}K", {"shape": shape, "context": context, "layout": layout, "profile": profile})
        for shape, context, profile in (
            ("14Bx4", 16_384, True), ("1.3B", 4096, True), ("14Bx4", 4096, False), ("1.3B", 16_384, False),
        )
    ]  # fmt: skip
    if quick:
        return main
    first = {"shape": "14Bx4", "context": 16_384, "layout": layout}
    more = [
        ("14Bx4 16K recompute", {**first, "layout": {**layout, "recompute": "blocks"}}),
        ("1.3B 4K fp32 stream", {**main[1][1], "profile": False, "stream": "fp32"}),
        ("14Bx4 16K eager", {**first, "layout": {"attention": best}}),
    ]
    more += [(f"14Bx4 16K {k}", {**first, "layout": {**layout, "attention": k}}) for k in others]
    return main + more


if __name__ == "__main__":
    sys.exit(main())
