"""Tables and pictures of the data studies: study.json, study.md, study.svg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit.recipe.study_compare import contrast, estimate
from phikit.recipe.study_data import Study
from phikit.recipe.study_figures import Dot, interval, panels_svg, table
from phikit.records.io import read_json, write_json, write_text

if TYPE_CHECKING:
    from phikit.recipe.study_data_seed import DataSeed

NAMES = {
    "led": "problems, a worked answer begun",
    "greedy": "problems, greedy",
    "sampled": "problems, sampled",
    "people": "facts about people",
    "choice": "facts, one of four",
}
SHOWN = ("led", "sampled", "people")


def publish(study: Study, out: Path, done: Sequence[DataSeed]) -> None:
    """Writes the files of the seeds that are done, and prints the tables."""
    results = {s.seed: {a.name: s.measured(a) for a in study.arms} for s in done}
    row = {
        "study": study.name, "seeds": list(results), "tokens": study.tokens,
        "arms": {a.name: arm_row(results, a.name) for a in study.arms},
        "contrasts": [contrast(results, a, b) | {"asks": asks} for a, b, asks in study.contrasts],
    }  # fmt: skip
    if study.name == "revision":
        row["teacher"] = [read_json(s.shared / "answers.json") for s in done]
    write_json(out / "study.json", row)
    text = markdown(row)
    write_text(out / "study.md", text)
    panels = [
        (NAMES[m], [Dot(n, a["metrics"][m], a["seeds"][m]) for n, a in row["arms"].items()]) for m in SHOWN
    ]
    write_text(out / "study.svg", panels_svg(f"Study {study.name}", panels))
    print(text)


def arm_row(results: Mapping[int, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Every metric of an arm with its interval over items, its value at each seed, and what it saw how often."""
    some = {seed: arms[name] for seed, arms in results.items()}
    first = next(iter(some.values()))
    metrics = list(first["rows"])
    return {
        "metrics": {m: estimate(m, {s: r["rows"][m] for s, r in some.items()}) for m in metrics},
        "seeds": {m: [estimate(m, {s: r["rows"][m]})["value"] for s, r in some.items()] for m in metrics},
        "seen": {k: [r["counts"]["seen"][k] for r in some.values()] for k in first["counts"]["seen"]},
    }  # fmt: skip


def markdown(row: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, row["seeds"]))
    lines = [
        f"Seeds {seeds}; {row['tokens']:,} tokens an arm; shares in per cent, differences in points.",
        "",
    ]
    lines += table(
        ["arm", "seen how often", *NAMES.values(), "bits per byte of web", "of new synthetic text", "of its own set"],
        [
            [
                name, ", ".join(f"{k} {_times(v)}" for k, v in a["seen"].items()),
                *(interval(a["metrics"][m], sign=False) for m in NAMES),
                *(interval(a["metrics"][f"bits of {n}"], 1, 2, False) for n in ("web", "synthetic")),
                interval(a["metrics"]["bits of the synthetic set"], 1, 2, False)
                if "bits of the synthetic set" in a["metrics"] else "-",
            ]
            for name, a in row["arms"].items()
        ],
    )  # fmt: skip
    lines += ["", *table(
        ["difference", "asks", *(f"{n}: over items; each seed" for n in NAMES.values())],
        [
            [
                f"{c['a']} - {c['b']}", c["asks"],
                *(f"{interval(c[m]['items'])}; {' '.join(f'{100 * v:+.1f}' for v in c[m]['by_seed'])}" for m in NAMES),
            ]
            for c in row["contrasts"]
        ],
    )]  # fmt: skip
    if teacher := row.get("teacher"):
        lines += ["", *table(
            ["seed", "questions", "valid as they come", "criticised", "valid after revision"],
            [
                [str(s), str(t["questions"]), str(t["valid_after_round"][0]), " ".join(map(str, t["criticised"])),
                 " ".join(map(str, t["valid_after_round"][1:]))]
                for s, t in zip(row["seeds"], teacher)
            ],
        )]  # fmt: skip
    return "\n".join(lines) + "\n"


def _times(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.1f}x" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}x"
