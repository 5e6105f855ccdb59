"""Stage `dpo2`: DPO on judged whole answers (report section 4.2, Table 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("init|tokenizer", "dpo1", "judged")
VOLATILE = ("speed.jsonl",)  # it holds seconds
KEEP = ("reference.safetensors",)  # keyed by content: serves again where only beta or the rate changed


def run(ctx: StageContext) -> dict[str, Any]:
    from phikit.recipe.dpo import run_dpo

    return run_dpo(ctx, "dpo1", "judged")
