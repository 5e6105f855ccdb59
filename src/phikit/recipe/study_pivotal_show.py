"""Tables and pictures of `phikit study pivotal`: NAME.json, NAME.md, NAME.svg of some seeds; rates.svg of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit import stats
from phikit.recipe.study_pivotal import CONTRASTS, share
from phikit.records.io import write_json, write_text
from phikit.report.charts import nice_ticks
from phikit.report.markup import tag

if TYPE_CHECKING:
    from phikit.recipe.study_pivotal import Arm
    from phikit.recipe.study_pivotal_seed import Seed

METRICS = ("sampled", "greedy")
Rows = Mapping[str, Sequence[float]]  # problem -> whether each answer is right


def publish(
    out: Path, name: str, tuning: Sequence[Mapping[str, Any]], done: Sequence[Seed], arms: Sequence[Arm]
) -> None:
    """Writes the files of the arms that are done on these seeds, and prints the table."""
    results = {s.seed: {"sft": s.sft} | {a.name: s.trained(a) for a in arms} for s in done}
    changes = [(a.name, "sft", "") for a in arms]
    there = {a.name for a in arms}
    study = {
        "study": "pivotal", "seeds": [s.seed for s in done],
        "chosen": {a.name: asdict(done[0].setting(a)) for a in arms},
        "tuning": list(tuning),
        "arms": {
            name: {
                "pairs": [r[name].get("pairs", 0) for r in results.values()],
                "steps": [r[name].get("steps", 0) for r in results.values()],
                "tokens": [r[name].get("tokens", 0) for r in results.values()],
                "length": [r[name]["length"] for r in results.values()],
                **{m: [share(r[name][m]) for r in results.values()] for m in METRICS},
            }
            for name in ("sft", *(a.name for a in arms))
        },
        "changes": [compare(results, *c) for c in changes],
        "contrasts": [compare(results, *c) for c in CONTRASTS if {c[0], c[1]} <= there],
        "kinds": [kinds(list(s.held().values())) | {"seed": s.seed} for s in done],
        "search_tokens": [s.spent for s in done],
    }  # fmt: skip
    write_json(out / f"{name}.json", study)
    text = markdown(study)
    write_text(out / f"{name}.md", text)
    write_text(out / f"{name}.svg", changes_svg(study["changes"]))
    write_text(out / "rates.svg", rates_svg(study["tuning"]))
    print(text)


def compare(
    results: Mapping[int, Mapping[str, Mapping[str, Rows]]], a: str, b: str, equal: str
) -> dict[str, Any]:
    """a - b on the same samples of the problems that both have answered (`shared`, where one of them has more).
    `problems`: interval over problems, these seeds given; `seeds`: Student's interval over the seeds' own differences,
    for seeds in general; `by_seed`: each with its interval. Raises ValueError where a seed has no such problem, or
    another number of samples."""
    row: dict[str, Any] = {"a": a, "b": b, "equal": equal}
    for metric in METRICS:
        x, y, clusters, by_seed = [], [], [], []
        for seed, arms in results.items():
            one, two = arms[a][metric], arms[b][metric]
            both = [q for q in one if q in two]
            if not both or any(len(one[q]) != len(two[q]) for q in both):
                raise ValueError(
                    f"study pivotal, seed {seed}: {a!r} and {b!r} have not answered the same problems equally often; "
                    "one was measured by an older program: remove its result.json (of sft measured/sft.json)"
                )
            if len(both) < max(len(one), len(two)):
                row.setdefault("shared", {})[str(seed)] = len(both)
            flat = [(u, v, q) for q in both for u, v in zip(one[q], two[q])]
            e = stats.paired([u for u, _, _ in flat], [v for _, v, _ in flat], [q for _, _, q in flat])
            by_seed.append(asdict(e))
            x += [u for u, _, _ in flat]
            y += [v for _, v, _ in flat]
            clusters += [(seed, q) for _, _, q in flat]
        row[metric] = {
            "problems": asdict(stats.paired(x, y, clusters)),
            "seeds": asdict(stats.mean([e["value"] for e in by_seed])), "by_seed": by_seed,
        }  # fmt: skip
    return row


def kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How well each rule tells pairs that choose a path from those that choose a digit (the world's own truth, which no
    rule reads): of its `yes` pairs the share that are paths, and of all paths the share it says yes to."""
    paths = [r for r in rows if not r["fact"]]
    out: dict[str, Any] = {"pairs": len(rows), "paths": len(paths)}
    for rule in ("holds", "recovers"):
        yes = [r for r in rows if r[rule]]
        right = sum(not r["fact"] for r in yes)
        facts = [r for r in rows if r["fact"]]
        out[rule] = {
            "yes": len(yes), "precision": right / max(1, len(yes)), "recall": right / max(1, len(paths)),
            "facts_kept_out": sum(not r[rule] for r in facts) / max(1, len(facts)),
        }  # fmt: skip
    return out


# -- text ----------------------------------------------------------------------------------------------------------


def markdown(study: Mapping[str, Any]) -> str:
    seeds = study["seeds"]
    lines = [f"Seeds {', '.join(map(str, seeds))}; change to SFT and differences in points.", ""]
    lines += _table(
        ["arm", "pairs", "steps", "tokens", "rate, weight", "sampled", "greedy", "change sampled: over problems",
         "over seeds", "change greedy: over problems"],
        [_arm_row(study, c) for c in study["changes"]],
    )  # fmt: skip
    lines += ["", *_table(
        ["difference", "equal", "sampled: over problems", "over seeds", "each seed", "greedy: over problems"],
        [
            [
                f"{c['a']} - {c['b']}", c["equal"], _points(c["sampled"]["problems"]), _points(c["sampled"]["seeds"]),
                " ".join(f"{100 * e['value']:+.1f}" for e in c["sampled"]["by_seed"]), _points(c["greedy"]["problems"]),
            ]
            for c in study["contrasts"]
        ],
    )]  # fmt: skip
    lines += ["", *_table(
        ["seed", "pairs", "choose a path", "rule", "says yes", "of them paths", "of paths found", "facts kept out"],
        [
            [str(k["seed"]), str(k["pairs"]), str(k["paths"]), rule, str(k[rule]["yes"]),
             *(f"{k[rule][x]:.2f}" for x in ("precision", "recall", "facts_kept_out"))]
            for k in study["kinds"] for rule in ("holds", "recovers")
        ],
    )]  # fmt: skip
    if partly := [c for c in (*study["changes"], *study["contrasts"]) if c.get("shared")]:
        lines += ["", "On the problems that both have answered: " + "; ".join(
            f"{c['a']} - {c['b']} on " + ", ".join(f"{n} of seed {s}" for s, n in c["shared"].items())
            for c in partly
        ) + "."]  # fmt: skip
    cells = [
        [
            t["arm"],
            f"{t['lr']:g}",
            f"{t['nll']:g}",
            f"{t['sampled']:.3f}",
            f"{t['greedy']:.3f}",
            f"{t['cut']:.3f}",
        ]
        for t in study["tuning"]
    ]
    lines += ["", *_table(["tuning seed: arm", "rate", "weight", "sampled", "greedy", "cut"], cells)]
    return "\n".join(lines) + "\n"


def _arm_row(study: Mapping[str, Any], c: Mapping[str, Any]) -> list[str]:
    arm, name = study["arms"][c["a"]], c["a"]
    s = study["chosen"][name]
    mean = {k: sum(arm[k]) / len(arm[k]) for k in ("pairs", "steps", "tokens", *METRICS)}
    return [
        name, f"{mean['pairs']:.0f}", f"{mean['steps']:.0f}", f"{mean['tokens'] / 1000:.0f}k",
        f"{s['lr']:g}, {s['nll']:g}",
        f"{mean['sampled']:.3f}", f"{mean['greedy']:.3f}", _points(c["sampled"]["problems"]),
        _points(c["sampled"]["seeds"]), _points(c["greedy"]["problems"]),
    ]  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]


def _points(e: Mapping[str, float]) -> str:
    if e["low"] == float("-inf"):
        return f"{100 * e['value']:+.1f}"
    return f"{100 * e['value']:+.1f} [{100 * e['low']:+.1f}, {100 * e['high']:+.1f}]"


# -- pictures ------------------------------------------------------------------------------------------------------

STYLE = (
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.whisker{stroke:#2563a8;stroke-width:2}.dot{fill:#2563a8}"
    ".zero{stroke:#888}.seed{fill:#2563a8;fill-opacity:.3}rect{fill:#fff}"
)
COLOURS = ("#2563a8", "#b5541c", "#2b7a3d", "#7a3d8f", "#555555", "#a8860d", "#0d8f8f", "#a82550")


def _svg(width: int, height: int, title: str, *children: Any) -> str:
    return tag(
        "svg", tag("title", title), tag("style", STYLE), tag("rect", x=0, y=0, width=width, height=height), *children,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", width=width, height=height, role="img",
    )  # fmt: skip


def changes_svg(changes: Sequence[Mapping[str, Any]]) -> str:
    """Change of sampled accuracy to SFT: mean with its interval over problems, faint dots for the seeds."""
    left, width, step, top = 200, 720, 24, 12
    shown = [e for c in changes for e in (c["sampled"]["problems"], *c["sampled"]["by_seed"])]
    ends = [v for e in shown for v in (e["value"], e["low"], e["high"])]
    low, high = min(0.0, *ends), max(0.0, *ends)
    bottom = top + step * len(changes)

    def px(v: float) -> float:
        return round(left + (v - low) / (high - low or 1.0) * (width - left - 20), 1)

    marks = [
        tag("g", tag("line", x1=px(t / 100), x2=px(t / 100), y1=top, y2=bottom, class_="zero" if t == 0 else "grid"),
            tag("text", f"{t:+g}" if t else "0", x=px(t / 100), y=bottom + 16, text_anchor="middle"))
        for t in nice_ticks(100 * low, 100 * high)
    ]  # fmt: skip
    for i, c in enumerate(changes):
        y, e = top + step * (i + 0.5), c["sampled"]["problems"]
        seeds = [tag("circle", cx=px(s["value"]), cy=y, r=3, class_="seed") for s in c["sampled"]["by_seed"]]
        whisker = tag("line", x1=px(e["low"]), x2=px(e["high"]), y1=y, y2=y, class_="whisker")
        dot = tag("circle", cx=px(e["value"]), cy=y, r=4.5, class_="dot")
        marks.append(
            tag("g", tag("text", c["a"], x=left - 10, y=y + 4, text_anchor="end"), seeds, whisker, dot)
        )
    x_name = "change of sampled accuracy to SFT, points"
    label = tag("text", x_name, x=(left + width) / 2, y=bottom + 34, text_anchor="middle")
    return _svg(width, bottom + 44, "Change of sampled accuracy by arm", marks, label)


def rates_svg(tuning: Sequence[Mapping[str, Any]]) -> str:
    """Sampled accuracy on the tuning seed over the rate (a logarithmic axis), one line for each arm and weight."""
    from math import log

    left, width, top, bottom = 52, 720, 12, 260
    rates = sorted({t["lr"] for t in tuning})
    values = [v for t in tuning for v in (t["sampled"], t["sft"])]
    low, high = min(values) - 0.02, max(values) + 0.02
    span = log(rates[-1] / rates[0]) or 1.0

    def px(lr: float) -> float:
        return round(left + 10 + log(lr / rates[0]) / span * (width - left - 280), 1)

    def py(v: float) -> float:
        return round(top + (high - v) / (high - low) * (bottom - top), 1)

    marks = [
        tag("g", tag("line", x1=left, x2=width - 260, y1=py(t / 100), y2=py(t / 100), class_="grid"),
            tag("text", f"{t:g} %", x=left - 6, y=py(t / 100) + 4, text_anchor="end"))
        for t in nice_ticks(100 * low, 100 * high)
    ]  # fmt: skip
    marks += [tag("text", f"{lr:g}", x=px(lr), y=bottom + 18, text_anchor="middle") for lr in rates]
    sft = tuning[0]["sft"]
    marks.append(tag("line", x1=left, x2=width - 260, y1=py(sft), y2=py(sft), class_="zero"))
    marks.append(tag("text", "SFT", x=width - 252, y=py(sft) + 4))
    for i, key in enumerate(dict.fromkeys((t["arm"], t["nll"]) for t in tuning)):
        points = [(px(t["lr"]), py(t["sampled"])) for t in tuning if (t["arm"], t["nll"]) == key]
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x},{y}" for x, y in points)
        marks.append(tag("polyline", points=path, fill="none", stroke=colour, stroke_width=2))
        marks += [tag("circle", cx=x, cy=y, r=3.5, fill=colour) for x, y in points]
        y = top + 20 * (i + 1)
        marks.append(tag("line", x1=width - 210, x2=width - 190, y1=y, y2=y, stroke=colour, stroke_width=3))
        marks.append(tag("text", f"{key[0]}, weight {key[1]:g}", x=width - 184, y=y + 4))
    marks.append(
        tag("text", "learning rate", x=(left + width - 260) / 2, y=bottom + 36, text_anchor="middle")
    )
    return _svg(width, bottom + 46, "Sampled accuracy by learning rate on the tuning seed", marks)
