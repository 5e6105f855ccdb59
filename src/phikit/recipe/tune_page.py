"""The pages of `phikit tune`: lr.html and warmup.html."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phikit.recipe.frames import Frame
from phikit.recipe.units import show_count
from phikit.records.io import write_text
from phikit.report.details import figure
from phikit.report.document import document
from phikit.report.markup import Html, tag

WIDTH, HEIGHT = 430, 300
RING = "#c2621d"


def lr_page(path: Path, lr: float, found: Mapping[str, Any]) -> None:
    """`found` as in lr.json, `lr` the recipe's rate."""
    horizons, tokens = found["horizons"], show_count(found["tokens"])
    edge = [show_count(h["tokens"]) for h in horizons if not h["inside"]]
    says = (
        "Each horizon was run with a whole schedule of its own. The best rates are extended along a straight line in "
        f"both logarithms to {tokens} tokens, the recipe's own horizon."
    )
    if edge:
        says += (
            f" At {', '.join(edge)} the best rate is at the edge of those tried: "
            + ("that is left out of the line. " if len(edge) < len(horizons) else "it is a bound alone. ")
            + "Try more with --factors."
        )  # fmt: skip
    rates = sorted({f for h in horizons for f, _ in h["points"]})
    rows = [
        [
            show_count(h["tokens"]), *(_loss(dict(map(tuple, h["points"])).get(f)) for f in rates),
            f"{lr * h['factor']:.3g}" + ("" if h["inside"] else ", at the edge"),
        ]
        for h in horizons
    ]  # fmt: skip
    body = [
        tag("div", [
            figure("Loss by rate", _losses(lr, horizons), "dot: lowest point of a parabola"),
            figure("Best rate by horizon", _best(lr, found), f"ring: {found['lr']:.3g} at {tokens} tokens"),
        ], class_="tuned"),
        _table(["tokens", *(f"{lr * f:.3g}" for f in rates), "best rate"], rows),
    ]  # fmt: skip
    _page(path, f"Learning rate for {tokens} tokens: {found['lr']:.3g}", says, body)


def warmup_page(path: Path, found: Mapping[str, Any]) -> None:
    """`found` as in warmup.json."""
    lr = found["lr"]
    warmups = sorted({r["warmup"] for r in found["runs"]})
    shown, rows = [], []
    for w in warmups:
        runs = [r for r in found["runs"] if r["warmup"] == w]
        stable = next(r["stable"] for r in runs if "stable" in r)
        rows.append([f"{w:.2%}", *(r["broken"] or "stable" for r in runs)])
        shown.append(figure(f"Warm-up of {w:.2%} of the steps", _curves(lr, runs), _margin(stable, lr)))
    factors = sorted({r["factor"] for r in found["runs"]})
    rows = [r + [""] * (len(factors) + 1 - len(r)) for r in rows]
    says = (
        f"The first steps of a run at multiples of the recipe's rate {lr:g}, over twice the length of each warm-up. A "
        "run has come apart where a mean of five steps lies a nat above the lowest so far, or a loss is no number."
    )
    heads = ["warm-up", *(f"{lr * f:.3g}" for f in factors)]
    body = [tag("div", shown, class_="tuned"), _table(heads, rows)]
    _page(path, f"Warm-up at {lr:g} and above", says, body)


def _margin(stable: float, lr: float) -> str:
    return (
        f"stable up to {stable:g} times the rate, {stable * lr:.3g}" if stable else "not stable at the rate"
    )


def _loss(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else "ended early"


def _losses(lr: float, horizons: Sequence[Mapping[str, Any]]) -> Html:
    points = [(math.log2(f), y) for h in horizons for f, y in h["points"] if y is not None]
    frame = Frame(46, WIDTH, points)
    marks = frame.axes(
        _every([(x, f"{lr * 2**x:.2g}") for x in sorted({x for x, _ in points})]), "rate", "loss"
    )
    for i, (colour, h) in enumerate(zip(_colours(len(horizons)), horizons)):
        line = [(math.log2(f), y) for f, y in h["points"] if y is not None]
        marks.append(frame.curve(line, colour))
        if h["inside"]:
            marks.append(frame.dot(math.log2(h["factor"]), h["loss"], 4, colour))
        marks.append(_name(show_count(h["tokens"]), i, colour))
    return _svg("Loss by rate", marks)


def _best(lr: float, found: Mapping[str, Any]) -> Html:
    import numpy as np

    line = [(math.log2(h["tokens"]), math.log2(lr * h["factor"])) for h in found["horizons"]]
    ring = math.log2(found["tokens"]), math.log2(found["lr"])
    sure = [p for p, h in zip(line, found["horizons"]) if h["inside"]] or line
    rates = [y for _, y in (*line, ring)]
    room = [(ring[0], min(rates) - 0.6), (ring[0], max(rates) + 0.6)]  # where all are alike
    frame = Frame(46, WIDTH, [*line, ring, *room], log_y=True)
    ticks = [
        (math.log2(t), show_count(t)) for t in (*(h["tokens"] for h in found["horizons"]), found["tokens"])
    ]
    marks = frame.axes(ticks, "tokens", "best rate")
    ends = sure[0][0], ring[0]
    slope, start = (
        np.polyfit([x for x, _ in sure], [y for _, y in sure], 1) if len(sure) > 1 else (0.0, sure[0][1])
    )
    marks.append(frame.curve([(x, start + slope * x) for x in ends], RING, dashed=True))
    for p, h in zip(line, found["horizons"]):
        marks.append(frame.dot(*p, 4, Frame.COLOURS[2]) if h["inside"] else frame.ring(*p, Frame.COLOURS[1]))
    return _svg("Best rate by horizon", [*marks, frame.ring(*ring, RING)])


def _curves(lr: float, runs: Sequence[Mapping[str, Any]]) -> Html:
    lines = [[(i + 1.0, y) for i, y in enumerate(r["losses"]) if math.isfinite(y)] for r in runs]
    points = [p for line in lines for p in line] or [(1.0, 0.0)]
    frame = Frame(46, WIDTH, points)
    last = round(max(x for x, _ in points))
    marks = frame.axes(
        [(x, str(x)) for x in sorted({1, *range(0, last + 1, max(1, last // 5))} - {0})], "step", "loss"
    )
    for i, (colour, r, line) in enumerate(zip(_colours(len(runs)), runs, lines)):
        if line:
            marks.append(frame.curve(line, RING if r["broken"] else colour))
        marks.append(_name(f"{lr * r['factor']:.3g}", i,
                           RING if r["broken"] else colour))  # fmt: skip
    return _svg("Loss of the first steps", marks)


def _every(ticks: list[tuple[float, str]], most: int = 8) -> list[tuple[float, str]]:
    return ticks[:: math.ceil(len(ticks) / most)]


def _colours(n: int) -> list[str]:
    return [Frame.COLOURS[min(i, len(Frame.COLOURS) - 1)] for i in range(n)]


def _name(text: str, i: int, colour: str) -> Html:
    return tag(
        "text", text, x=WIDTH - 10, y=26 + 17 * i, text_anchor="end", style=f"fill:{colour};font-weight:600"
    )


def _svg(title: str, marks: Sequence[Html]) -> Html:
    return tag(
        "svg", list(marks), class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    body = [tag("tr", [tag("td", cell) for cell in row]) for row in rows]
    head = tag("tr", [tag("th", cell) for cell in heads])
    return tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="scroll")


def _page(path: Path, title: str, says: str, body: Sequence[Html]) -> None:
    style = (
        ".tuned{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:28px 36px;"
        "margin:18px 0 26px}.tuned .chart text{font-size:12px}.scroll{overflow-x:auto}"
        ".scroll td,.scroll th{white-space:nowrap;padding:4px 14px 4px 0;text-align:left}"
    )
    main = tag("main", tag("header", tag("h1", title), tag("p", says, class_="lead")), *body)
    write_text(path, document(title, [tag("style", Html(style)), main], ["style.css"], ["page.js"]))
