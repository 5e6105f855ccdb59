"""The report of a run: one self-contained HTML page and its JSON, from a run folder alone.

Works on any state of the folder: parts that are not there are named with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phikit.report import details, page, results
from phikit.report.document import document
from phikit.report.load import RunData, read_run
from phikit.report.markup import tag
from phikit.report.verdicts import Scores, Verdict, judge

SCORE_KEYS = ("checkpoint", "task", "metric", "value", "low", "high", "n")
NAV = (
    ("scores", "Scores"),
    ("verdicts", "Verdicts"),
    ("conversations", "Before and after"),
    ("stages", "Stages"),
    ("loss", "Loss"),
    ("data", "Data"),
    ("intervals", "Intervals"),
    ("pivotal", "Pivotal tokens"),
    ("published", "Published"),
    ("contamination", "Contamination"),
    ("samples", "Samples"),
    ("provenance", "Provenance"),
)


def build(
    run_folder: Path, stages: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The page and the JSON of a run.

    `stages`: one dict a stage in recipe order: name, status (`done`, `failed`, `not run`), seconds (or None),
    cached, counts, error (or None). `recipe`: name, scale, seed, versions (library -> version), conversations
    (how many to show). Files are read from the stage folders under `run_folder`; a missing or unreadable one
    never raises."""
    data = read_run(run_folder, stages, recipe)
    data.scores = [r for r in data.scores if _measured(r, SCORE_KEYS[:3])]
    data.comparisons = [r for r in data.comparisons if _measured(r, ("a", "b", "task", "metric"))]
    verdicts = judge(data.scores, data.comparisons, stages)
    return _html(data, verdicts), _json(data, verdicts)


def _measured(row: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether a row has its names and a value with an interval; a task that was not run has none."""
    return all(k in row for k in names) and all(
        isinstance(row.get(k), (int, float)) for k in ("value", "low", "high")
    )


def _html(data: RunData, verdicts: Sequence[Verdict]) -> str:
    table = Scores(data.scores, data.comparisons)
    name = f"{data.recipe.get('name', 'run')} {data.recipe.get('scale', '')}".strip()
    main = tag(
        "main",
        page.summary(data, verdicts),
        page.score_table(data, table),
        page.verdict_list(data, verdicts),
        page.conversations(data),
        page.next_commands(data),
        details.stage_table(data),
        details.loss_curves(data),
        details.funnel(data),
        results.intervals(data, table),
        results.pivotal(data),
        results.published(data, table),
        results.contamination(data),
        results.samples(data),
        details.provenance(data),
    )
    nav = tag("nav", [tag("a", text, href=f"#{anchor}") for anchor, text in NAV], aria_label="Sections")
    styles, scripts = ("style.css", "pivots.css"), ("page.js", "pivots_draw.js", "pivots.js")
    return document(f"{name} - phikit report", [nav, main], styles, scripts)


def _json(data: RunData, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    recipe = data.recipe
    value = {
        "recipe": {k: recipe.get(k) for k in ("name", "scale", "seed")},
        "versions": dict(recipe.get("versions") or {}),
        "stages": [
            {
                "name": s["name"],
                "seconds": s.get("seconds"),
                "cached": bool(s.get("cached")),
                "counts": dict(s.get("counts") or {}),
                "status": s.get("status", "not run"),
                "error": s.get("error"),
            }
            for s in data.stages
        ],
        "scores": [{k: r.get(k) for k in SCORE_KEYS} for r in data.scores],
        "comparisons": data.comparisons,
        "verdicts": [v.row() for v in verdicts],
    }
    return _plain(value)


def _plain(value: Any) -> Any:
    """What JSON in UTF-8 can hold: infinities and NaN become null, lone surrogates a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
