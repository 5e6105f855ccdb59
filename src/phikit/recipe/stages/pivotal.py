"""Stage `pivotal`: Pivotal Token Search on the SFT model (report section 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("questions|synth", "sft")


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes the files of `preference.export`; the log of rollouts is kept for a restart, not as an artifact."""
    from itertools import islice

    from phikit.engine.torch_engine import TorchEngine
    from phikit.preference import pts
    from phikit.preference.pivotal import SearchConfig
    from phikit.preference.questions import question_of
    from phikit.records.io import read_jsonl

    c: Any = ctx.config
    engine = TorchEngine.from_folder(ctx.inputs["sft"].path, device=ctx.device, name="sft")
    rows = islice(read_jsonl(ctx.file(ctx.one("questions", "synth"), "questions.jsonl.zst")), c.questions)
    config = SearchConfig(c.gap, c.low, c.high, c.trajectories, c.rollouts, c.error, c.certified)
    sampling = pts.Sampling(c.temperature, c.top_p, c.max_tokens, c.budget, ctx.seed)
    result, card = pts.run(
        engine, [question_of(r) for r in rows], ctx.out, config, sampling, work=ctx.work, identity="sft"
    )  # fmt: skip
    if not card["pairs"]:
        raise ValueError(
            f"pivotal: no pairs from {c.questions} questions ({result.skipped}; "
            f"{result.stopped or 'search complete'}); "
            "raise pivotal.questions or pivotal.rollouts, or lower pivotal.gap"
        )
    cost = card["cost"]
    return {
        "questions": card["questions"], "pivotal_tokens": card["pivotal_tokens"], "pairs": card["pairs"],
        "pairs_by_kind": card["pairs_by_kind"], "at_first_token": card["pairs_at_first_token"],
        "pivotal_without_pair": card["pivotal_without_pair"], "candidates": result.hypotheses,
        "certified": result.certified, "certified_pairs": result.certified_pairs,
        "rollouts": cost["outcomes"], "prefixes": cost["prefixes"], "waves": cost["waves"],
        "tokens": cost["tokens_generated"], "tokens_prefilled": cost["tokens_prefilled"],
        "budget_spent": int(bool(result.stopped)),
    }  # fmt: skip
