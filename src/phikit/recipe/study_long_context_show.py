"""Tables and picture of `phikit study long-context`: study.json, study.md, study.svg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phikit.recipe.study_compare import contrast, estimate
from phikit.recipe.study_figures import Dot, interval, panels_svg, table
from phikit.recipe.study_long_context import CONTRASTS, Arm
from phikit.records.io import write_json, write_text

LONG = {
    "recall_2x": "recall 2x", "recall_4x": "recall 4x", "rag_2x": "retrieval 2x", "rag_4x": "retrieval 4x",
    "icl_2x": "patterns 2x", "icl_4x": "patterns 4x",
}  # fmt: skip
SHORT = {"recall_1x": "recall 1x", "arithmetic": "sums"}
DRAWN = ("recall_2x", "recall_4x", "rag_4x", "icl_4x", "arithmetic")
Results = Mapping[int, Mapping[str, Any]]  # seed -> arm -> counts and rows


def publish(out: Path, results: Results, arms: Sequence[Arm]) -> None:
    """Writes the files of the arms that are done on these seeds, and prints the tables."""
    there = {a.name for a in arms}
    study = {
        "study": "long-context",
        "seeds": list(results),
        "arms": {a.name: arm_row(results, a.name) for a in arms},
        "contrasts": [
            contrast(results, a, b) | {"asks": asks} for a, b, asks in CONTRASTS if {a, b} <= there
        ],
    }
    write_json(out / "study.json", study)
    text = markdown(study)
    write_text(out / "study.md", text)
    names = {**LONG, **SHORT}
    panels = [
        (names[m], [Dot(n, a["metrics"][m], a["seeds"][m]) for n, a in study["arms"].items()]) for m in DRAWN
    ]
    write_text(out / "study.svg", panels_svg("Study long-context", panels))
    print(text)


def arm_row(results: Results, name: str) -> dict[str, Any]:
    """Every metric of an arm with its interval over items, its value at each seed, and the tokens it was trained on."""
    rows = {seed: arms[name]["rows"] for seed, arms in results.items()}
    metrics = list(next(iter(rows.values())))
    return {
        "metrics": {m: estimate(m, {s: r[m] for s, r in rows.items()}) for m in metrics},
        "seeds": {m: [estimate(m, {s: r[m]})["value"] for s, r in rows.items()] for m in metrics},
        "tokens": [arms[name]["counts"].get("tokens", 0) for arms in results.values()],
    }


def markdown(study: Mapping[str, Any]) -> str:
    arms = study["arms"]
    bits = [m for m in next(iter(arms.values()))["metrics"] if m.startswith("bits_")]
    seeds = ", ".join(map(str, study["seeds"]))
    lines = [f"Seeds {seeds}; shares of right answers in per cent, differences in points.", ""]
    for names in (LONG, SHORT):
        heads = list(names.values()) + ([_bits(m) for m in bits] if names is SHORT else [])
        lines += [*table(
            ["arm", *heads],
            [
                [
                    name, *(interval(a["metrics"][m], sign=False) for m in names),
                    *(interval(a["metrics"][m], 1, 3, False) for m in bits if names is SHORT),
                ]
                for name, a in arms.items()
            ],
        ), ""]  # fmt: skip
    scores = {**LONG, **SHORT, **{m: _bits(m) for m in bits}}
    lines += table(
        ["difference", "score", "over items", "over seeds", "each seed"],
        [
            [f"{c['a']} - {c['b']}", name, *_difference(c[m], *((1, 3) if m in bits else (100, 1)))]
            for c in study["contrasts"]
            for m, name in scores.items()
        ],
    )
    return "\n".join(lines) + "\n"


def _bits(metric: str) -> str:
    return f"bits per byte, windows of {metric.partition('_')[2]}"


def _difference(c: Mapping[str, Any], scale: float, digits: int) -> list[str]:
    each = " ".join(f"{scale * v:+.{digits}f}" for v in c["by_seed"])
    return [interval(c["items"], scale, digits), interval(c["seeds"], scale, digits), each]
