"""Stage `corpus`: organic documents, cleaned, deduplicated and decontaminated (report section 2.3,
appendix B.1)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phikit.recipe.context import StageContext

NEEDS = ()
READS = ("world",)
WATCHES = ("folders", "decontaminate.against")
KEEP = ("requests",)  # the grades of corpus.classifier: a changed recipe asks the teacher only what is new


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes documents, heldout and rejected (.jsonl.zst), and with a classifier quality/, into `ctx.out`; returns the
    counts of the funnel."""
    from phikit.corpus.folders import Folder
    from phikit.corpus.pipeline import Settings, build
    from phikit.corpus.sources import local_documents
    from phikit.records.remote import place

    config: Any = ctx.config
    folders = [Folder(place(f.path), f.source, f.text_key) for f in config.folders]
    items = local_documents(config.max_bytes.model_dump())
    settings = Settings(
        languages=tuple(config.languages),
        quality=config.quality,
        paragraphs=config.paragraphs,
        info=config.decontaminate.info,
        contaminated=config.decontaminate.contaminated,
        numbers=config.decontaminate.numbers == "contaminated",
        heldout=config.heldout,
    )
    workers = os.cpu_count() or 1
    counts = build(
        items, _references(ctx), ctx.out, ctx.work, settings, workers=workers, on=ctx.on, folders=folders
    )
    return _graded(ctx, counts) if config.classifier else counts


def _graded(ctx: StageContext, counts: dict[str, Any]) -> dict[str, Any]:
    from phikit.ask.teacher import open_teacher
    from phikit.corpus.annotate import RUBRIC
    from phikit.corpus.graded import Grading, grade
    from phikit.corpus.select import Learning, Selection

    c: Any = ctx.config.classifier
    learning = Learning(c.sample, c.votes, c.good, c.rubric or RUBRIC, ctx.seed)
    settings = Grading(tuple(c.sources), learning, Selection(c.keep, c.amplify))
    try:
        with open_teacher(c.teacher, log=ctx.out / "requests") as teacher:
            return grade(teacher, ctx.out, ctx.work, counts, settings)
    except ValueError as e:
        raise ValueError(f"corpus.classifier: {e}") from e


def _references(ctx: StageContext) -> Iterator[tuple[str, str]]:
    """The held-out items of the closed world, then the files the recipe names."""
    from phikit.corpus.references import read_references
    from phikit.recipe.stages.synth import references
    from phikit.records.remote import place

    yield from references(ctx.recipe)
    config: Any = ctx.config
    for path in config.decontaminate.against:
        yield from read_references(place(path))
