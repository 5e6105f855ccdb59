"""The quality loop inside the corpus stage: annotate a sample of the cleaned documents, train, calibrate, threshold,
filter (report section 2.3; `select.py` has the steps).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.corpus.select import Learning, Selection, learn, select
from phikit.records import Document, from_row
from phikit.records.io import atomic_path, read_jsonl

REASON = "low_quality"


@dataclass(frozen=True)
class Grading:
    """sources: whose documents are graded and filtered; the others stay. learning, selection: as `select`."""

    sources: tuple[str, ...]
    learning: Learning
    selection: Selection


def grade(teacher: Any, out: Path, work: Path, counts: dict[str, Any], settings: Grading) -> dict[str, Any]:
    """Filters out/documents.jsonl.zst, adds to out/rejected.jsonl.zst, writes out/quality/ (classifiers, annotations,
    learned.json); returns `counts` of `pipeline.build` brought up to date, with `classifier` (how far it agrees with
    the teacher on texts that took no part) and `topics`. What is held out stays: it measures, and is not trained on.

    Raises ValueError where nothing can be learned, and why.
    """
    folder, path = out / "quality", out / "documents.jsonl.zst"

    def judged(d: Document) -> bool:
        return d.source in settings.sources

    def documents() -> Iterator[Document]:
        return (from_row(Document, row) for row in read_jsonl(path))

    report = learn(teacher, filter(judged, documents()), folder, settings.learning)
    chosen = work / "graded"
    found = select(documents, folder, chosen, settings.selection, judged)
    # A run that is killed between the two finds files of another size than the plan noted, and writes both again.
    rejected = out / "rejected.jsonl.zst"
    with atomic_path(rejected) as tmp, tmp.open("wb") as f:
        for piece in (rejected, chosen / "rejected.jsonl.zst"):
            with piece.open("rb") as g:
                shutil.copyfileobj(g, f, 1 << 20)
    shutil.copyfile(chosen / "selected.json", folder / "selected.json")
    with atomic_path(path) as tmp:
        shutil.copyfile(chosen / "selected.jsonl.zst", tmp)
    return _counts(counts, report, found, documents())


def _counts(
    counts: dict[str, Any], report: dict[str, Any], found: dict[str, Any], kept: Iterator[Document]
) -> dict[str, Any]:
    number: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for d in kept:
        number[d.source] += 1
        size[d.source] += len(d.text.encode("utf-8", "surrogatepass"))
    dropped = sum(found["dropped"].values())
    q = report["quality"]
    about = {
        "graded": report["graded"], "tested": q["tested"], "agreement": q["agreement"]["value"],
        "agreement_low": q["agreement"]["low"], "agreement_high": q["agreement"]["high"],
        **{name: q[name] for name in ("majority", "kappa", "auc", "auc_low", "auc_high", "calibration_error")},
        "kept": sum(found["kept"].values()), "dropped": dropped,
    }  # fmt: skip
    topics = {
        f"{source}/{topic or 'all'}": n
        for source, by in found["by_source"]["kept"].items()
        for topic, n in by.items()
    }
    return {
        **counts, "out": sum(number.values()), "bytes_out": sum(size.values()),
        "by_source": dict(sorted(number.items())), "bytes_by_source": dict(sorted(size.items())),
        "dropped": {**counts["dropped"], **({REASON: dropped} if dropped else {})},
        "classifier": about, "topics": topics,
    }  # fmt: skip
