"""The recipe's rule for sources named `<source>_long` (report section 3.3), for midtraining and the replay of SFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phikit.mixture.long import LongDocuments
    from phikit.recipe.context import StageContext


def long_documents(ctx: StageContext) -> LongDocuments | None:
    """None for a recipe without midtraining: a source is then what its name says."""
    from phikit.mixture.long import LongDocuments

    m, p = ctx.recipe.midtrain, ctx.recipe.pretrain
    if m is None or p is None:
        return None
    return LongDocuments(
        m.long_documents, p.context, m.isolate or p.context, m.upweight_from or m.context, m.upweight
    )
