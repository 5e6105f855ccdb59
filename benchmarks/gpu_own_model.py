"""Your own model on one CUDA device: SmolLM2-135M on GSM8K through the recipe `own-model`, from SFT to the last DPO.

First the engine is checked on the device: scores in fp32 are those of the CPU, and how many tokens a second it
samples. Then the whole recipe runs: SFT on GSM8K's training questions, pivotal search, pivotal DPO, judged DPO, and
accuracy on the 200 test questions before and after each, with paired intervals. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.torch_engine import TorchEngine
from phikit.preference.questions import read_questions
from phikit.recipe.load import load
from phikit.recipe.run import run
from phikit.records.io import read_json

SETTINGS = (
    "sft.epochs=3", "sft.lr=1e-4", "sft.batch=16", "sft.micro=16",
    "pivotal.max_tokens=300", "dpo1.lr=5e-6", "dpo1.micro=16", "dpo1.epochs=2",
    "judged.max_tokens=300", "judged.prompts=1500", "judged.samples=8", "dpo2.lr=5e-6", "dpo2.micro=16",
    "eval.max_tokens=300", "eval.samples=8", "export.gguf=[]",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2", help="as `init` in the recipe")
    parser.add_argument("--train", type=Path, default=Path("../shared/data/benchmarks/gsm8k/train.jsonl.gz"))
    parser.add_argument(
        "--test", type=Path, default=Path("../shared/data/benchmarks/gsm8k/test-200.jsonl.gz")
    )
    parser.add_argument("--questions", type=int, default=1500, help="that the search looks at")
    parser.add_argument("--budget", default="15M", help="processed tokens of the search")
    parser.add_argument("--out", type=Path, help="the folder of the run; without it a temporary one")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], help="further keys of the recipe"
    )
    parser.add_argument("--check-only", action="store_true", help="the engine's check alone")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="where there is no CUDA device all the same")
    a = parser.parse_args()
    if not torch.cuda.is_available() and not a.cpu:
        print("no CUDA device: nothing to run (--cpu runs it all the same)")
        return 2
    if missing := [p for p in (a.train, a.test) if not p.is_file()]:
        print(f"{missing[0]}: not here; name GSM8K's rows with --train and --test")
        return 2
    result: dict[str, Any] = {"name": "gpu_own_model", "device": _device(), "torch": torch.__version__}
    if not a.no_check:
        result["engine"] = check(a.model, a.test)
        print(json.dumps(result["engine"]), flush=True)
    if not a.check_only:
        with tempfile.TemporaryDirectory() as temporary:
            result |= whole(a, a.out or Path(temporary))
    print(json.dumps(result))
    return 0


def check(model: str, test: Path) -> dict[str, Any]:
    """Scores of the device against those of the CPU, and sampled tokens a second by samples at once."""
    from phikit.recipe.model_paths import find

    path = find(model).path
    make = TorchEngine.from_gguf if path.suffix == ".gguf" else TorchEngine.from_folder
    questions = list(read_questions(test))
    here, there = make(path, bf16=False, device="cpu"), make(path, bf16=False)
    prompts = [tuple(here.render(q.turns)) for q in questions]
    scored = [ScoreRequest(p, tuple(here.encode(" " + q.question))) for p, q in zip(prompts[:16], questions)]
    apart = [
        abs(x.logprob - y.logprob) / x.tokens for x, y in zip(here.score(scored), there.score(scored))
    ]  # fmt: skip
    greedy = [GenRequest(p, 48, temperature=0.0, stop_ids=here.stop_ids) for p in prompts[:8]]
    same = sum(
        x[0].tokens == y[0].tokens
        for x, y in zip(
            (c for _, c in sorted(here.generate(greedy))), (c for _, c in sorted(there.generate(greedy)))
        )
    )
    del here, there
    engine = make(path)
    rates = {}
    for count in (256, 1024, 4096):
        requests = [
            GenRequest(prompts[i % len(prompts)], 128, seed=i, stop_ids=()) for i in range(count)
        ]  # fmt: skip
        for _ in range(2):  # the first warms up
            before, begin = engine.usage, time.perf_counter()
            for _ in engine.generate(requests):
                pass
            seconds = time.perf_counter() - begin
        rates[count] = round((engine.usage.generated - before.generated) / seconds)
    prefill = [ScoreRequest(p, (1, 2)) for p in prompts]
    before, begin = engine.usage, time.perf_counter()
    engine.score(prefill)
    seconds = time.perf_counter() - begin
    return {
        "fp32_apart_per_token": max(apart), "greedy_same": f"{same} of {len(greedy)}", "numerics": engine.info.numerics,
        "sampled_tokens_per_second": rates,
        "prefilled_tokens_per_second": round((engine.usage.prefilled - before.prefilled) / seconds),
    }  # fmt: skip


def whole(a: argparse.Namespace, out: Path) -> dict[str, Any]:
    settings = [
        f"init={a.model}", f"questions.file={a.train}", f"questions.test={a.test}",
        f"pivotal.questions={a.questions}", f"pivotal.budget={a.budget}", *SETTINGS, *a.settings,
    ]  # fmt: skip
    begin = time.perf_counter()
    code = run(load("own-model", settings=settings), out, say=lambda line: print(line, flush=True))
    if code:
        sys.exit(code)
    report = read_json(out / "report.json")
    card = read_json(out / "pivotal" / "card.json")
    stages = {s["name"]: s["seconds"] for s in report["stages"]}
    counts = {s["name"]: s["counts"] for s in report["stages"]}
    spent = card["cost"]["tokens_generated"] + card["cost"]["tokens_prefilled"]
    return {
        "seconds": round(time.perf_counter() - begin, 1), "stages": stages, "settings": settings,
        "scores": [_short(s, "checkpoint", "metric") for s in report["scores"]],
        "comparisons": [_short(c, "a", "b", "metric", "p") for c in report["comparisons"]],
        "sft_tokens_per_second": round(counts["sft"]["tokens"] / stages["sft"]),
        "search": {k: card[k] for k in ("questions", "pivotal_tokens", "up", "down", "pairs", "cost", "stopped")},
        "search_tokens_per_second": round(spent / stages["pivotal"]),
        "pairs_per_gpu_minute": round(60 * card["pairs"] / stages["pivotal"], 1),
        "dpo": {n: {k: counts[n][k] for k in ("pairs", "steps", "loss_first", "loss_last")} for n in ("dpo1", "dpo2")},
    }  # fmt: skip


def _short(row: dict[str, Any], *names: str) -> dict[str, Any]:
    figures = {k: round(row[k], 4) for k in ("value", "low", "high")}
    return {k: row[k] for k in names if k in row} | figures | {"n": row["n"]}


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    raise SystemExit(main())
