"""Stage eval: every checkpoint on the same held-out items, paired comparisons, contamination, sample
outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phikit.recipe.context import StageContext
from phikit.records.io import read_json, write_json, write_jsonl

NEEDS = ("questions|corpus", "questions|synth", "init|pretrain", "init|midtrain", "sft", "dpo1", "dpo2")
KINDS = {"sft": "chat", "pretrain": "base", "midtrain": "base", "dpo1": "chat", "dpo2": "chat"}
ORDER = (
    "pretrain",
    "midtrain",
    "sft",
    "dpo1",
    "dpo2",
)  # of the tables; `sft` is evaluated first, as the reference


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes scores, comparisons and contamination (.json), samples.jsonl and rows.jsonl.zst. Each
    finished checkpoint is kept in `ctx.work`, so a killed stage goes on with the next one. A recipe that began with
    somebody's own model is measured by its own questions instead of the closed world's tasks."""
    if "questions" in ctx.inputs:
        from phikit.recipe.own_eval import run_questions

        return run_questions(ctx)
    from phikit.evals.contamination import texts
    from phikit.evals.world.overlap import contamination
    from phikit.evals.world.pairs import comparisons
    from phikit.evals.world.plan import Settings
    from phikit.evals.world.run import load_items

    c: Any = ctx.config
    network: Any = ctx.recipe.model  # a recipe without `init` has one
    settings = Settings(
        problems=c.problems,
        samples=c.samples,
        temperature=c.temperature,
        max_tokens=c.max_tokens,
        documents=c.bits_documents,
        window=network.context,
        seed=ctx.seed,
    )
    data, heldout = ctx.inputs["synth"].path / "heldout", ctx.file("corpus", "heldout.jsonl.zst")
    held = load_items(data, heldout, settings)
    held |= (long := _long(ctx, network.context))
    done: dict[str, dict[str, Any]] = {}
    for name, kind in KINDS.items():
        path = ctx.work / f"{name}.json"
        if not path.exists():
            reference = done["sft"]["references"] if name != "sft" else None
            folder = ctx.inputs[name].path / "hf"
            write_json(
                path,
                _checkpoint(folder, name, kind, data, heldout, held, long, settings, reference, ctx.device),
            )
        done[name] = read_json(path)

    scores = [s for n in ORDER for s in done[n]["scores"]]
    rows = [r for n in ORDER for r in done[n]["rows"]]
    pairs = comparisons({n: done[n]["rows"] for n in ORDER})
    training = [ctx.file("corpus", "documents.jsonl.zst")]
    training += [ctx.file("synth", f"{f}.jsonl.zst") for f in ("documents", "long", "dialogs")]
    overlap = contamination(held, rows, texts(training))
    write_json(ctx.out / "scores.json", scores)
    write_json(ctx.out / "comparisons.json", pairs)
    write_json(ctx.out / "contamination.json", overlap)
    write_jsonl(ctx.out / "samples.jsonl", [s for n in ORDER for s in done[n]["samples"]])
    write_jsonl(ctx.out / "rows.jsonl.zst", rows)
    return {
        "checkpoints": len(done),
        "scores": len(scores),
        "comparisons": len(pairs),
        "rows": len(rows),
        "contaminated": {t: o["contaminated"] for t, o in overlap["tasks"].items()},
        "tokens": {n: done[n]["tokens"] for n in ORDER},
    }


def _long(ctx: StageContext, context: int) -> dict[str, list[dict[str, Any]]]:
    """HELMET's categories at multiples of the base context, in the tokens of the run's own tokenizer."""
    from phikit.synth.world import long
    from phikit.text.tokenizer import Tokenizer

    if not ctx.config.long_items:
        return {}
    tokenizer = Tokenizer.load(ctx.inputs["sft"].path / "hf")
    return long.items(ctx.seed, ctx.config.long_items, context, lambda text: len(tokenizer.encode(text)))


def _checkpoint(
    folder: Path, name: str, kind: Any, data, heldout, held, long, settings, reference, device: str | None
) -> dict[str, Any]:
    from phikit.engine.torch_engine import TorchEngine
    from phikit.evals.world.run import evaluate
    from phikit.evals.world.samples import samples
    from phikit.synth.world.long import MULTIPLES

    engine = TorchEngine.from_folder(folder, device=device)
    try:
        # Long recall is asked of every checkpoint, beyond its own context too (RoPE has no end):
        # midtraining is measured against that.
        longest = max(len(engine.encode(i["prompt"] + i["answer"])) for i in held["recall_4x"])
        if long:
            longest = max(longest, max(MULTIPLES) * settings.window)
        engine.stretch(max(engine.info.context, longest))
        found = evaluate(engine, name, kind, data, heldout, settings, reference, long)
        shown = samples(engine, name, kind, held, settings)
        used = engine.usage.prefilled + engine.usage.generated
    finally:
        engine.close()
    return {
        "scores": found.scores,
        "rows": found.rows,
        "references": found.references,
        "samples": shown,
        "tokens": used,
    }
