"""Reads a run folder for the page. Nothing here fails because something is missing: a part that is not there,
or cannot be read, becomes a sentence that says so."""

from __future__ import annotations

import itertools
import json
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phikit.records.artifact import Manifest, load
from phikit.records.io import read_json, read_jsonl
from phikit.report.numbers import CHECKPOINTS
from phikit.report.pivots import ANSWERS, CARD, read_card, read_packed
from phikit.report.verdicts import last_line

REJECTED_ROWS = (
    200_000  # rejected rows read for counts and examples; a larger file is counted by its manifest
)
EXAMPLES = 3
LENGTHS, LENGTH_STAGES = "lengths.json", ("mixture", "midtrain")  # histograms of document lengths
PIVOTAL_SIZE = 2_000_000  # characters of JSON that the answers of a pivotal search may take on this page
PARTS = {
    "scores": ("eval", "scores.json"),
    "comparisons": ("eval", "comparisons.json"),
    "samples": ("eval", "samples.jsonl"),
    "contamination": ("eval", "contamination.json"),
}


@dataclass(frozen=True)
class Rejected:
    """Rejected rows of a data stage: how many by reason, and a few of each."""

    reasons: Mapping[str, int]
    examples: Mapping[str, list[dict[str, Any]]]


@dataclass
class RunData:
    """What `read_run` found; a part that is empty has its reason in `missing`."""

    folder: Path
    stages: Sequence[Mapping[str, Any]]
    recipe: Mapping[str, Any]
    scores: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    contamination: Any = None
    pivotal: dict[str, Any] | None = None  # as `pivots.pack` gives it
    pivotal_card: dict[str, Any] | None = None
    metrics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rejected: dict[str, Rejected] = field(default_factory=dict)
    lengths: dict[str, dict[str, Any]] = field(default_factory=dict)  # by stage, as its lengths.json
    manifests: dict[str, Manifest] = field(default_factory=dict)
    parameters: int | None = None
    pair_id: str | None = None
    missing: dict[str, str] = field(default_factory=dict)  # part or stage -> why it is not on the page

    def stage(self, name: str) -> Mapping[str, Any]:
        return next((s for s in self.stages if s["name"] == name), {"name": name, "status": "not run"})

    def counts(self, name: str) -> Mapping[str, Any]:
        return self.stage(name).get("counts") or {}

    @property
    def failed(self) -> Mapping[str, Any] | None:
        return next((s for s in self.stages if s.get("status") == "failed"), None)


def read_run(folder: Path, stages: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> RunData:
    """Everything the page shows, from the stage folders under `folder`."""
    data = RunData(folder, stages, recipe)
    for part, (stage, name) in PARTS.items():
        found = _try(data, part, stage, name, _rows if name.endswith("l") else read_json)
        if found is not None and part == "contamination":
            data.contamination = found
        elif found is not None:
            getattr(data, part).extend(r for r in found if isinstance(r, dict))
    data.pivotal = _try(data, "pivotal", "pivotal", ANSWERS, lambda p: read_packed(p.parent, PIVOTAL_SIZE))
    data.pivotal_card = _try(data, "pivotal_card", "pivotal", CARD, lambda p: read_card(p.parent))
    for stage in CHECKPOINTS:
        if rows := _try(data, f"metrics:{stage}", stage, "metrics.jsonl", _rows):
            data.metrics[stage] = [r for r in rows if isinstance(r.get("loss"), (int, float))]
    for stage in ("corpus", "synth", "questions"):
        if found := _try(data, f"rejected:{stage}", stage, "rejected.jsonl.zst", _rejected):
            data.rejected[stage] = found
    for stage in LENGTH_STAGES:
        if found := _try(data, f"lengths:{stage}", stage, LENGTHS, read_json):
            data.lengths[stage] = found
    for row in stages:
        name = row["name"]
        if row.get("status") != "done":
            data.missing[name] = why(data, name)
            continue
        try:
            artifact = load(folder / name)
        except (OSError, ValueError, TypeError) as e:
            data.missing[name] = f"Its manifest cannot be read: {e}"
            continue
        if artifact:
            data.manifests[name] = artifact.manifest
    data.parameters = _parameters(folder, [s["name"] for s in stages if s.get("status") == "done"])
    pairs = _try(
        data, "pairs", "pivotal", "pairs.jsonl.zst", lambda p: list(itertools.islice(read_jsonl(p), 1))
    )
    data.pair_id = str(pairs[0]["id"]) if pairs and "id" in pairs[0] else None
    return data


def why(data: RunData, stage: str) -> str:
    """Why a stage has nothing to show, as a sentence."""
    row, failed = data.stage(stage), data.failed
    if row.get("status") == "failed":
        return f"Not run to its end: stage {stage} failed ({last_line(row.get('error')) or 'no message'})."
    if row.get("status") == "done":
        return f"Stage {stage} finished and wrote nothing for this section."
    if failed is not None:
        return f"Not run: the run stopped at stage {failed['name']}, before {stage}."
    return f"Not run: stage {stage} was not part of this run."


def _try(data: RunData, part: str, stage: str, name: str, read: Callable[[Path], Any]) -> Any:
    path = data.folder / stage / name
    try:
        # The folder of a stage that this run did not reach may be left over from an earlier recipe.
        if data.stage(stage).get("status") in ("done", "failed") and path.exists():
            return read(path)
    except (OSError, ValueError, KeyError, TypeError) as e:
        data.missing[part] = f"{stage}/{name} cannot be read: {e}"
        return None
    data.missing[part] = why(data, stage)
    return None


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path))


def _rejected(path: Path) -> Rejected:
    reasons: Counter[str] = Counter()
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in itertools.islice(read_jsonl(path), REJECTED_ROWS):
        reason = str(row.get("reason") or "no reason given")
        reasons[reason] += 1
        if reasons[reason] <= EXAMPLES:
            examples.setdefault(reason, []).append(row)
    return Rejected(dict(reasons.most_common()), examples)


def _parameters(folder: Path, done: Sequence[str]) -> int | None:
    """Parameters of the first checkpoint found, counted from its safetensors header."""
    for name in (c for c in CHECKPOINTS if c in done):
        path = folder / name / "hf" / "model.safetensors"
        try:
            with path.open("rb") as f:
                (length,) = struct.unpack("<Q", f.read(8))
                if length > 100_000_000:
                    continue
                header = json.loads(f.read(length))
            shapes = [v["shape"] for k, v in header.items() if k != "__metadata__"]
            return sum(_product(s) for s in shapes)
        except (OSError, ValueError, KeyError, struct.error):
            continue
    return None


def _product(shape: Sequence[int]) -> int:
    n = 1
    for x in shape:
        n *= x
    return n
