"""What both DPO stages share: pairs in, the reference pass, the trainer with the DPO objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phikit.model.layout import device_of
from phikit.recipe import training as t
from phikit.records import Preference, from_row
from phikit.records.io import read_jsonl
from phikit.train.objectives import DirectPreference, DPOConfig
from phikit.train.pairs import PairRows
from phikit.train.reference import FILE, add_reference

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext


def run_dpo(ctx: StageContext, model_stage: str, pair_stage: str) -> dict[str, Any]:
    """DPO of the model of `model_stage`, which is also the reference, on the pairs of `pair_stage`."""
    c = ctx.config
    pairs = [from_row(Preference, r) for r in read_jsonl(ctx.file(pair_stage, "pairs.jsonl.zst"))]
    tokenizer = t.tokenizer_of(ctx)
    model = t.network_of(ctx, model_stage).to(device_of(t.layout_of(ctx)))
    rows = PairRows(pairs, tokenizer, c.context, ctx.seed)
    add_reference(rows, model, ctx.out / FILE)
    batch = min(c.batch, len(pairs))
    steps = max(1, round(c.epochs * len(pairs) / batch))
    objective = DirectPreference(DPOConfig(c.beta, c.nll_weight, c.length_normalize, c.label_smoothing))
    counts = {"pairs": len(pairs), "prompts": len(rows.groups)}
    config = t.train_config(ctx, steps, batch)
    return counts | t.train(ctx, model, objective, rows, config, base=model_stage)
