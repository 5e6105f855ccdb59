"""What both DPO stages share: pairs in, the reference pass, the trainer with the DPO objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phikit.recipe import training as t
from phikit.records import Preference, from_row
from phikit.records.io import atomic_path, read_jsonl
from phikit.text.tokenizer import Tokenizer
from phikit.train.objectives import DirectPreference, DPOConfig
from phikit.train.pairs import PairRows

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext


def run_dpo(ctx: StageContext, model_stage: str, pair_stage: str) -> dict[str, Any]:
    """DPO of the model of `model_stage`, which is also the reference, on the pairs of `pair_stage`."""
    import numpy as np

    c = ctx.config
    pairs = [from_row(Preference, r) for r in read_jsonl(ctx.file(pair_stage, "pairs.jsonl.zst"))]
    tokenizer = Tokenizer.load(ctx.file("tokenizer", "tokenizer.json"))
    model = t.network_of(ctx, model_stage)
    rows = PairRows(pairs, tokenizer, c.context, ctx.seed)
    cache = ctx.out / "reference.npy"
    if cache.exists():  # of a run that was killed in training
        rows.reference = np.load(cache)
    else:
        rows.add_reference(model)
        with atomic_path(cache) as tmp, tmp.open("wb") as f:
            np.save(f, rows.reference)
    batch = min(c.batch, len(pairs))
    steps = max(1, round(c.epochs * len(pairs) / batch))
    config = t.train_config(ctx, steps, 2 * batch, 2 * min(c.micro or batch, batch))
    objective = DirectPreference(DPOConfig(c.beta, c.nll_weight, c.length_normalize, c.label_smoothing))
    return {"pairs": len(pairs)} | t.train(ctx, model, objective, rows, config)
