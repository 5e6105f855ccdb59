"""Stage `sft`: chat format, loss on what the assistant says and on its end of turn (report section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ("init|tokenizer", "questions|mixture", "init|midtrain")
VOLATILE = ("speed.jsonl",)  # it holds seconds


def run(ctx: StageContext) -> dict[str, Any]:
    from phikit.recipe import training as t
    from phikit.recipe.long_sources import long_documents
    from phikit.train.objectives import LanguageModeling

    c: Any = ctx.config
    data, base = ctx.one("questions", "mixture"), ctx.one("init", "midtrain")
    if not (ctx.inputs[data].path / "dialogs").is_dir():
        raise ValueError(
            "sft: there is nothing to train on: the questions have no solutions and questions.dialogs names no "
            "file. Give solutions (rows with `solution`, or GSM8K's answers with ####), or a file of chats: "
            "--set questions.dialogs=chats.jsonl"
        )
    steps = t.steps_of(ctx)
    fractions = {"dialogs": 1 - sum(c.replay.values()), **c.replay}
    rows = t.language_rows(ctx, {1.0: fractions}, steps, long_documents(ctx))
    config = t.train_config(ctx, steps, c.batch)
    counts = t.train(ctx, t.network_of(ctx, base), LanguageModeling(), rows, config, base=base)
    return counts | {"epochs": {s: round(e, 3) for s, e in rows.order.epochs(steps * c.batch).items()}}
