"""Stage `midtrain`: a longer context (report section 3.3): RoPE base raised, long documents and replay.

Weights and optimizer moments go on from pretraining; the data order and the schedule start afresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("tokenizer", "mixture", "pretrain")
VOLATILE = ("speed.jsonl",)  # it holds seconds


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes hf/, metrics.jsonl, and lengths.json: of the long sources, before and after upweighting or joining."""
    from phikit.mixture import lengths
    from phikit.mixture.long import is_long
    from phikit.model.ranks import world
    from phikit.recipe import training as t
    from phikit.recipe.long_sources import long_documents
    from phikit.records.io import write_json
    from phikit.train.objectives import LanguageModeling

    m: Any = ctx.recipe.mixture
    c: Any = ctx.config
    replay = m.phases[-1].fractions if m.phases else m.fractions
    fractions = {s: f * c.long for s, f in c.long_fractions.items()}
    for source, f in replay.items():
        fractions[source] = fractions.get(source, 0.0) + f * (1 - c.long)
    steps = t.steps_of(ctx)
    rows = t.language_rows(ctx, {1.0: fractions}, steps, long_documents(ctx))
    long = {n: lengths.of_source(p) for n, p in sorted(rows.sources.items()) if is_long(n)}
    if world()[0] == 0:
        write_json(ctx.out / lengths.FILE, long)
    state = ctx.inputs["pretrain"].path / t.MOMENTS if c.keep_optimizer else None
    config = t.train_config(ctx, steps, c.batch)
    counts = t.train(ctx, t.network_of(ctx, "pretrain"), LanguageModeling(), rows, config, state)
    return counts | {"epochs": {s: round(e, 3) for s, e in rows.order.epochs(steps * c.batch).items()}}
