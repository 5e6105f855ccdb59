"""Stage `pretrain`: the network from scratch on the mixture (report section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("tokenizer", "mixture")
VOLATILE = ("speed.jsonl",)  # it holds seconds


def run(ctx: StageContext) -> dict[str, Any]:
    from phikit.model.transformer import build
    from phikit.recipe import training as t
    from phikit.train.objectives import LanguageModeling

    m: Any = ctx.recipe.mixture
    c: Any = ctx.config
    phases = {p.until: p.fractions for p in m.phases} or {1.0: m.fractions}
    steps = t.steps_of(ctx)
    rows = t.language_rows(ctx, phases, steps)
    epochs = rows.order.epochs(steps * c.batch)
    if over := {s: round(e, 1) for s, e in epochs.items() if e > m.max_epochs}:
        raise ValueError(
            f"mixture.max_epochs is {m.max_epochs:g}x, but the fractions repeat {over}; "
            "lower their fractions or add text"
        )
    model = build(t.model_config(ctx), ctx.seed)
    config = t.train_config(ctx, steps, c.batch)
    counts = t.train(ctx, model, LanguageModeling(), rows, config, keep_optimizer=True)
    return counts | {"epochs": {s: round(e, 3) for s, e in epochs.items()}}
