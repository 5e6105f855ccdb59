"""Tables and pictures of `phikit study pivotal`: study.json, study.md, study.svg; rates.svg of how settings were
chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit import stats
from phikit.recipe.study_figures import interval as _points
from phikit.recipe.study_figures import svg, table
from phikit.recipe.study_pivotal import CONTRASTS, RATES, WEIGHTS, Setting, share
from phikit.records.io import write_json, write_text
from phikit.report.charts import nice_ticks
from phikit.report.markup import tag

if TYPE_CHECKING:
    from phikit.recipe.study_pivotal import Arm
    from phikit.recipe.study_pivotal_seed import Seed

METRICS = ("sampled", "greedy")
FORMS = 4  # whose rates are drawn
Rows = Mapping[str, Sequence[float]]  # problem -> whether each answer is right


def publish(out: Path, done: Sequence[Seed], arms: Sequence[Arm]) -> None:
    """Writes the files of the arms that are done on these seeds, and prints the tables."""
    results = {s.seed: {"sft": s.sft} | {a.name: s.trained(a) for a in arms} for s in done}
    there = {a.name for a in arms}
    study = {
        "study": "pivotal", "seeds": [s.seed for s in done],
        "chosen": {a.name: [asdict(s.setting(a)) for s in done] for a in arms},
        "tuning": [row for s in done for row in tuning(s, arms)],
        "arms": {
            name: {
                **{k: [r[name].get(k, 0) for r in results.values()] for k in ("pairs", "steps", "tokens")},
                **{k: [r[name][k] for r in results.values()] for k in ("length", "cut")},
                **{m: [share(r[name][m]) for r in results.values()] for m in METRICS},
            }
            for name in ("sft", *(a.name for a in arms))
        },
        "changes": [compare(results, a.name, "sft", "") for a in arms],
        "contrasts": [compare(results, *c) for c in CONTRASTS if {c[0], c[1]} <= there],
        "kinds": [kinds(list(s.held().values())) | {"seed": s.seed} for s in done],
        "search_tokens": [s.spent for s in done],
    }  # fmt: skip
    write_json(out / "study.json", study)
    text = markdown(study)
    write_text(out / "study.md", text)
    write_text(out / "study.svg", changes_svg(study["changes"]))
    write_text(out / "rates.svg", rates_svg(study["tuning"]))
    print(text)


def tuning(seed: Seed, arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """What each form was tried at on a seed's development problems: a row a cell."""
    rows = []
    for arm in (a for a in arms if not a.shares):
        best = seed.setting(arm)
        cells = [Setting(lr, WEIGHTS[0]) for lr in RATES] + [Setting(best.lr, w) for w in WEIGHTS[1:]]
        for c in cells:
            row = seed.cell(arm, c)
            rows.append(
                {"seed": seed.seed, "arm": arm.name, "lr": c.lr, "nll": c.nll, "chosen": c == best, "cut": row["cut"],
                 "sampled": share(row["sampled"]), "sft": share(seed.sft_dev["sampled"])}
            )  # fmt: skip
    return rows


def compare(
    results: Mapping[int, Mapping[str, Mapping[str, Rows]]], a: str, b: str, equal: str
) -> dict[str, Any]:
    """a - b on the same samples of the same problems. `problems`: interval over problems, these seeds given; `seeds`:
    Student's interval over the seeds' own differences, for seeds in general; `by_seed`: each with its interval.
    Raises ValueError where the two have not answered the same problems equally often."""
    row: dict[str, Any] = {"a": a, "b": b, "equal": equal}
    for metric in METRICS:
        x, y, clusters, by_seed = [], [], [], []
        for seed, arms in results.items():
            one, two = arms[a][metric], arms[b][metric]
            if one.keys() != two.keys() or any(len(one[q]) != len(two[q]) for q in one):
                raise ValueError(
                    f"study pivotal, seed {seed}: {a!r} and {b!r} have not answered the same problems equally often; "
                    "one was measured by an older program: remove its result.json (of sft measured/sft.json)"
                )
            flat = [(u, v, q) for q in one for u, v in zip(one[q], two[q])]
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
    lines += table(
        ["arm", "pairs", "steps", "tokens", "rate, weight", "sampled", "greedy", "change sampled: over problems",
         "over seeds", "change greedy: over problems"],
        [_arm_row(study, c) for c in study["changes"]],
    )  # fmt: skip
    lines += ["", *table(
        ["difference", "equal", "sampled: over problems", "over seeds", "each seed", "greedy: over problems"],
        [
            [
                f"{c['a']} - {c['b']}", c["equal"], _points(c["sampled"]["problems"]), _points(c["sampled"]["seeds"]),
                " ".join(f"{100 * e['value']:+.1f}" for e in c["sampled"]["by_seed"]), _points(c["greedy"]["problems"]),
            ]
            for c in study["contrasts"]
        ],
    )]  # fmt: skip
    lines += ["", *table(
        ["seed", "pairs", "choose a path", "rule", "says yes", "of them paths", "of paths found", "facts kept out"],
        [
            [str(k["seed"]), str(k["pairs"]), str(k["paths"]), rule, str(k[rule]["yes"]),
             *(f"{k[rule][x]:.2f}" for x in ("precision", "recall", "facts_kept_out"))]
            for k in study["kinds"] for rule in ("holds", "recovers")
        ],
    )]  # fmt: skip
    lines += ["", *table(
        ["tried on development problems", *(f"{lr:g}, {WEIGHTS[0]:g}" for lr in RATES),
         *(f"best, {w:g}" for w in WEIGHTS[1:]), "SFT"],
        [_tuning_row(study["tuning"], *key) for key in dict.fromkeys((t["arm"], t["seed"]) for t in study["tuning"])],
    )]  # fmt: skip
    return "\n".join(lines) + "\n"


def _tuning_row(rows: Sequence[Mapping[str, Any]], arm: str, seed: int) -> list[str]:
    """Sampled accuracy at each setting, the chosen one in bold."""
    some = [t for t in rows if (t["arm"], t["seed"]) == (arm, seed)]
    cells = [f"**{t['sampled']:.3f}**" if t["chosen"] else f"{t['sampled']:.3f}" for t in some]
    return [f"{arm}, seed {seed}", *cells, f"{some[0]['sft']:.3f}"]


def _arm_row(study: Mapping[str, Any], c: Mapping[str, Any]) -> list[str]:
    arm, name = study["arms"][c["a"]], c["a"]
    settings = dict.fromkeys(f"{s['lr']:g}, {s['nll']:g}" for s in study["chosen"][name])
    mean = {k: sum(arm[k]) / len(arm[k]) for k in ("pairs", "steps", "tokens", *METRICS)}
    return [
        name, f"{mean['pairs']:.0f}", f"{mean['steps']:.0f}", f"{mean['tokens'] / 1000:.0f}k",
        "; ".join(settings),
        f"{mean['sampled']:.3f}", f"{mean['greedy']:.3f}", _points(c["sampled"]["problems"]),
        _points(c["sampled"]["seeds"]), _points(c["greedy"]["problems"]),
    ]  # fmt: skip


# -- pictures ------------------------------------------------------------------------------------------------------

COLOURS = ("#2563a8", "#b5541c", "#2b7a3d", "#7a3d8f")


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
    return svg(width, bottom + 44, "Change of sampled accuracy by arm", marks, label)


def rates_svg(tuning: Sequence[Mapping[str, Any]]) -> str:
    """Sampled accuracy on the development problems over the rate (a logarithmic axis), a line for each seed of each of
    the first forms; a ring marks what was chosen."""
    from math import log

    left, width, top, bottom = 52, 720, 12, 260
    forms = list(dict.fromkeys(t["arm"] for t in tuning))[:FORMS]
    shown = [t for t in tuning if t["arm"] in forms]
    values = [v for t in shown for v in (t["sampled"], t["sft"])]
    low, high = min(values) - 0.02, max(values) + 0.02
    span = log(RATES[-1] / RATES[0])

    def px(lr: float) -> float:
        return round(left + 10 + log(lr / RATES[0]) / span * (width - left - 260), 1)

    def py(v: float) -> float:
        return round(top + (high - v) / (high - low) * (bottom - top), 1)

    right = width - 240
    marks = [
        tag("g", tag("line", x1=left, x2=right, y1=py(t / 100), y2=py(t / 100), class_="grid"),
            tag("text", f"{t:g} %", x=left - 6, y=py(t / 100) + 4, text_anchor="end"))
        for t in nice_ticks(100 * low, 100 * high)
    ]  # fmt: skip
    marks += [tag("text", f"{lr:g}", x=px(lr), y=bottom + 18, text_anchor="middle") for lr in RATES]
    for arm, seed in dict.fromkeys((t["arm"], t["seed"]) for t in shown):
        colour = COLOURS[forms.index(arm)]
        line = [t for t in shown if (t["arm"], t["seed"]) == (arm, seed) and t["nll"] == WEIGHTS[0]]
        path = " ".join(f"{px(t['lr'])},{py(t['sampled'])}" for t in line)
        marks.append(tag("polyline", points=path, fill="none", stroke=colour, stroke_width=1.5))
        marks += [
            tag("circle", cx=px(t["lr"]), cy=py(t["sampled"]), r=4.5 if t["chosen"] else 2.5, stroke=colour,
                stroke_width=2, fill="#fff" if t["chosen"] else colour)
            for t in shown if (t["arm"], t["seed"]) == (arm, seed) and (t["nll"] == WEIGHTS[0] or t["chosen"])
        ]  # fmt: skip
    for i, arm in enumerate(forms):
        y = top + 20 * (i + 1)
        marks.append(tag("line", x1=right + 20, x2=right + 40, y1=y, y2=y, stroke=COLOURS[i], stroke_width=3))
        marks.append(tag("text", arm, x=right + 46, y=y + 4))
    sft = sorted({t["sft"] for t in shown})
    marks.append(
        tag(
            "text",
            f"SFT: {100 * sft[0]:.0f} to {100 * sft[-1]:.0f} %",
            x=right + 20,
            y=top + 20 * (len(forms) + 1) + 4,
        )
    )
    marks.append(tag("text", "learning rate", x=(left + right) / 2, y=bottom + 36, text_anchor="middle"))
    return svg(width, bottom + 46, "Sampled accuracy on development problems by learning rate", marks)
