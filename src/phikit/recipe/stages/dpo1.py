"""Stage `dpo1`: DPO on pivotal single-token pairs (report section 4.3, Table 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("init|tokenizer", "sft", "pivotal")
VOLATILE = ("speed.jsonl",)  # it holds seconds
KEEP = ("reference.safetensors",)  # keyed by content: serves again where only beta or the rate changed


def run(ctx: StageContext) -> dict[str, Any]:
    from phikit.recipe.dpo import run_dpo

    return run_dpo(ctx, "sft", "pivotal")
