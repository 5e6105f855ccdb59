"""Stage `corpus`: organic documents, cleaned, deduplicated and decontaminated (report section 2.3,
appendix B.1)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ()
READS = ("world",)
WATCHES = ("folders", "decontaminate.against")


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes documents, heldout and rejected (.jsonl.zst) into `ctx.out`; returns the counts of the
    funnel."""
    from phikit.corpus.folders import Folder
    from phikit.corpus.pipeline import Settings, build
    from phikit.corpus.sources import local_documents

    config: Any = ctx.config
    folders = [Folder(Path(f.path), f.source, f.text_key) for f in config.folders]
    items = local_documents(config.max_bytes.model_dump())
    settings = Settings(
        languages=tuple(config.languages),
        quality=config.quality,
        paragraphs=config.paragraphs,
        info=config.decontaminate.info,
        contaminated=config.decontaminate.contaminated,
        heldout=config.heldout,
    )
    workers = os.cpu_count() or 1
    return build(
        items, _references(ctx), ctx.out, ctx.work, settings, workers=workers, on=ctx.on, folders=folders
    )


def _references(ctx: StageContext) -> Iterator[tuple[str, str]]:
    """The held-out items of the closed world, then the files the recipe names."""
    from phikit.corpus.references import read_references
    from phikit.recipe.stages.synth import references

    yield from references(ctx.recipe)
    config: Any = ctx.config
    for path in config.decontaminate.against:
        yield from read_references(Path(path))
