"""Stage `sft`: chat format, loss on what the assistant says and on its end of turn (report section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("tokenizer", "mixture", "midtrain")


def run(ctx: StageContext) -> dict[str, Any]:
    from phikit.recipe import training as t
    from phikit.train.objectives import LanguageModeling

    c = ctx.config
    steps = t.steps_of(ctx)
    fractions = {"dialogs": 1 - sum(c.replay.values()), **c.replay}
    rows = t.language_rows(ctx, {1.0: fractions}, steps)
    config = t.train_config(ctx, steps, c.batch, c.micro or c.batch)
    counts = t.train(ctx, t.network_of(ctx, "midtrain"), LanguageModeling(), rows, config, base="midtrain")
    return counts | {"epochs": {s: round(e, 3) for s, e in rows.order.epochs(steps * c.batch).items()}}
