"""Stage report: one page and one JSON of the whole run. Called after a failure too, with what there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phikit.recipe.context import StageContext
from phikit.records import artifact
from phikit.records.io import read_json, write_json, write_text
from phikit.report.build import build

USES = (
    "init", "questions", "corpus", "synth", "tokenizer", "mixture", "pretrain", "midtrain", "sft", "pivotal", "dpo1",
    "judged", "dpo2", "eval", "export",
)  # fmt: skip
OWN = ("init", "questions")  # of recipes that begin with somebody's own model
VOLATILE = ("report.html", "report.json")  # they hold seconds


def run(ctx: StageContext) -> dict[str, Any]:
    """Writes report.html and report.json into `ctx.out`; counts stages by status, verdicts by word."""
    stages = [s for s in stages_of(ctx.root) if s["name"] != ctx.name]
    recipe = {
        "name": ctx.recipe.name,
        "scale": ctx.recipe.scale,
        "seed": ctx.seed,
        "versions": versions(ctx.inputs),
        "conversations": ctx.config.conversations,
    }
    html, report = build(ctx.root, stages, recipe)
    write_text(ctx.out / "report.html", html)
    write_json(ctx.out / "report.json", report)
    return {
        "stages": _tally(s["status"] for s in stages),
        "scores": len(report["scores"]),
        "verdicts": _tally(v["word"] for v in report["verdicts"]),
    }


def stages_of(run_folder: Path) -> list[dict[str, Any]]:
    """Rows for the page from `timings.json` and the manifests, in recipe order: name, status (`done`,
    `failed`, `not run`), seconds or None, cached, counts, error or None."""
    path = run_folder / "timings.json"
    rows = {r["name"]: r for r in read_json(path)["stages"]} if path.exists() else {}
    out = []
    for name in rows or [n for n in USES if n not in OWN or (run_folder / n).is_dir()]:
        row = rows.get(name, {})
        found = artifact.load(run_folder / name)
        status = row.get("status", "done" if found else "not run")
        status = {"cached": "done", "running": "not run", "stopped": "not run"}.get(status, status)
        out.append(
            {
                "name": name,
                "status": status,
                "seconds": row.get("seconds") if status != "not run" else None,
                "cached": bool(row.get("cached")),
                "counts": row.get("counts")
                or (dict(found.manifest.counts) if found and status == "done" else {}),
                "error": row.get("error"),
            }
        )
    return out


def versions(inputs: Mapping[str, artifact.Artifact]) -> dict[str, str]:
    """Versions of Python and of the libraries that shaped the stages, as their manifests hold them."""
    found: dict[str, str] = {}
    for a in inputs.values():
        found.update(a.manifest.config.get("libraries") or {})
    return dict(sorted(found.items()))


def _tally(words: Any) -> dict[str, int]:
    out: dict[str, int] = {}
    for w in words:
        out[w] = out.get(w, 0) + 1
    return out
