"""Tables and picture of `phikit study horizon`: study.json, study.md, study.svg."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phikit import stats
from phikit.recipe.frames import Frame
from phikit.recipe.study_figures import interval, svg, table
from phikit.recipe.study_horizon import LR, SHARES
from phikit.recipe.units import show_count
from phikit.records.io import write_json, write_text
from phikit.report.markup import Html, tag

Row = Mapping[str, Any]  # of a seed, as `study_horizon.measured`
NAMES = {"predicted": "extended from the shorter runs", "unchanged": "the eighth's best as it is"}


def publish(out: Path, rows: Sequence[Row]) -> None:
    """Writes the files of the seeds that are done, and prints the tables."""
    study = {"study": "horizon", "lr": float(LR), "seeds": list(rows), "over_seeds": over_seeds(rows)}
    write_json(out / "study.json", study)
    text = markdown(study)
    write_text(out / "study.md", text)
    write_text(out / "study.svg", picture(rows))
    print(text)


def over_seeds(rows: Sequence[Row]) -> dict[str, Any]:
    """Student's intervals over the seeds: log2 of the rate over the best one, the loss that it costs, and log2 of the
    best rate at each horizon over that of the longest."""
    ends = [[h["factor"] for h in r["horizons"]] for r in rows]
    return {
        "off": {n: asdict(stats.mean([r["off"][n] for r in rows])) for n in NAMES},
        "lost": {n: asdict(stats.mean([r["lost"][n] for r in rows])) for n in NAMES},
        "best": [
            asdict(stats.mean([math.log2(e[i] / e[-1]) for e in ends])) for i in range(len(ends[0]) - 1)
        ],
    }


def markdown(study: Mapping[str, Any]) -> str:
    rows, over = study["seeds"], study["over_seeds"]
    lengths = [show_count(h["tokens"]) for h in rows[0]["horizons"]]
    lines = table(
        ["seed", *(f"best rate at {t}" for t in lengths), "predicted", "predicted / best",
         *(f"loss lost, {n}" for n in NAMES.values())],
        [
            [
                str(r["seed"]), *(_rate(study["lr"], h) for h in r["horizons"]),
                f"{study['lr'] * r['rates']['predicted']['factor']:.2g}", f"{2 ** r['off']['predicted']:.2f}",
                *(f"{r['lost'][n]:+.4f}" for n in NAMES),
            ]
            for r in rows
        ],
    )  # fmt: skip
    lines += ["", *table(
        ["over seeds", "rate / best rate", "loss lost (nats a token)"],
        [[NAMES[n], times(over["off"][n]), interval(over["lost"][n], 1, 4)] for n in NAMES],
    )]  # fmt: skip
    lines += ["", *table(
        ["best rate", f"over the best at {lengths[-1]}"],
        [[f"at {t}", times(e)] for t, e in zip(lengths, over["best"])],
    )]  # fmt: skip
    tokens = show_count(
        sum(h["tokens"] for h in rows[0]["horizons"][: len(SHARES)]) * len(rows[0]["horizons"][0]["points"])
    )
    lines += [
        "",
        f"The prediction costs {tokens} tokens of shorter runs a seed; * best at the edge of what was tried.",
    ]
    return "\n".join(lines) + "\n"


def _rate(lr: float, h: Row) -> str:
    return f"{lr * h['factor']:.2g}{'' if h['inside'] else '*'}"


def times(e: Mapping[str, float]) -> str:
    """An estimate of log2 as a ratio."""
    if not math.isfinite(e["low"]):
        return f"{2 ** e['value']:.2f}"
    return f"{2 ** e['value']:.2f} [{2 ** e['low']:.2f}, {2 ** e['high']:.2f}]"


def picture(rows: Sequence[Row]) -> str:
    """Left: loss over rate at every horizon. Right: best rate over horizon, rings where it was predicted."""
    return svg(720, 300, "Study horizon", _losses(rows), _best(rows))


def _losses(rows: Sequence[Row]) -> list[Html]:
    points = [(math.log2(f), y) for r in rows for h in r["horizons"] for f, y in h["points"] if y is not None]
    frame = Frame(46, 330, points)
    marks = frame.axes(
        [(x, f"{float(LR) * 2**x:.2g}") for x in sorted({x for x, _ in points})], "rate", "loss"
    )
    for r in rows:
        for colour, h in zip(Frame.COLOURS, r["horizons"]):
            line = [(math.log2(f), y) for f, y in h["points"] if y is not None]
            marks.append(
                tag("polyline", points=frame.path(line), fill="none", stroke=colour, stroke_width=1.5)
            )
            if h["inside"]:
                marks.append(frame.dot(math.log2(h["factor"]), h["loss"], 3, colour))
    for i, (colour, h) in enumerate(zip(Frame.COLOURS, rows[0]["horizons"])):
        marks.append(
            tag(
                "text",
                show_count(h["tokens"]),
                x=326,
                y=26 + 16 * i,
                fill=colour,
                text_anchor="end",
                style=f"fill:{colour}",
            )
        )
    return marks


def _best(rows: Sequence[Row]) -> list[Html]:
    lr = float(LR)
    points = [(math.log2(h["tokens"]), math.log2(lr * h["factor"])) for r in rows for h in r["horizons"]]
    rings = [(max(x for x, _ in points), math.log2(lr * r["rates"]["predicted"]["factor"])) for r in rows]
    frame = Frame(400, 700, [*points, *rings], log_y=True)
    ticks = [(math.log2(h["tokens"]), show_count(h["tokens"])) for h in rows[0]["horizons"]]
    marks = frame.axes(ticks, "tokens", "best rate (ring: predicted)")
    for r, ring in zip(rows, rings):
        line = [(math.log2(h["tokens"]), math.log2(lr * h["factor"])) for h in r["horizons"]]
        marks.append(
            tag("polyline", points=frame.path(line), fill="none", stroke="#2563a8", stroke_opacity=0.4)
        )
        marks += [frame.dot(x, y, 3, "#2563a8") for x, y in line]
        marks.append(
            tag(
                "circle",
                cx=frame.x(ring[0]),
                cy=frame.y(ring[1]),
                r=6,
                fill="none",
                stroke="#b5541c",
                stroke_width=2,
            )
        )
    return marks
