"""The page of `phikit plan --sweep`: days, price and memory as charts on logarithmic axes, and the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phikit.recipe.cluster import Cluster, show_days
from phikit.recipe.plan_sweep import rows_of
from phikit.recipe.units import show_bytes, show_count
from phikit.report.charts import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, tick_text
from phikit.report.details import figure
from phikit.report.document import document
from phikit.report.markup import Html, tag

NO_BREAK = "\u00a0"
TOKENS = (1 / 100, 1 / 10, 1 / 4, 1)  # of the stage's


@dataclass(frozen=True)
class Series:
    """A line of a chart: (x, y, what it says)."""

    name: str
    points: list[tuple[float, float, str]]


def page_of(points: Sequence[Cluster], gpus: int, notes: Sequence[str]) -> str:
    """`gpus`: those of the figures that do not go by GPUs."""
    tokens, lengths = points[0].tokens, list(dict.fromkeys(p.network.context for p in points))
    days, price, each = [], [], []
    for length in lengths:
        of_length = [p for p in points if p.network.context == length]
        name = show_length(length)
        days.append(Series(name, [
            (p.gpus, t := p.days(tokens, p.mfu), f"{name} on {p.gpus:,}: {show_days(t)}, MFU {p.mfu:.1%}")
            for p in of_length
        ]))  # fmt: skip
        here = next(p for p in of_length if p.gpus == gpus)
        price.append(Series(name, [
            (n, m := here.price(here.days(n, here.mfu)), f"{show_count(n)} tokens at {name}: {show_count(m)}")
            for n in (tokens * f for f in TOKENS)
        ]))  # fmt: skip
        each.append((length, here))
    memory = Series("", [
        (length, p.trace.memory.total / 1e9, f"{show_length(length)}: {show_bytes(p.trace.memory.total)}")
        for length, p in each
    ])  # fmt: skip
    first = points[0]
    lead = (
        f"{first.network.parameters:,} parameters; rows of {', '.join(map(show_length, lengths))} tokens, one document "
        f"each; fsdp {first.layout.fsdp}, cp {first.layout.cp}, tp {first.layout.tp}, the rest replicas. "
        + ". ".join(x[0].upper() + x[1:] for x in notes) + "."
    )  # fmt: skip
    figures = [
        figure(f"Days for {show_count(tokens)} tokens", log_chart(days, "GPUs", "days", _plain)),
        figure(f"Price on {gpus:,} GPUs", log_chart(price, "tokens", "price", show_count)),
        figure(
            f"Memory of a GPU on {gpus:,}, in GB", log_chart([memory], "tokens of a row", "GB", show_length)
        ),
    ]
    head, *rows = rows_of(points)
    table = tag(
        "table",
        tag("thead", tag("tr", [tag("th", h) for h in head])),
        tag("tbody", [tag("tr", [tag("td", v.replace(" ", NO_BREAK)) for v in row]) for row in rows]),
        class_="plain",
    )
    title = f"{first.name}: what it costs"
    main = tag(
        "main",
        tag("header", tag("p", "by tokens, length and GPUs", class_="kicker"), tag("h1", title)),
        tag("p", lead, class_="lead"),
        tag("div", figures, class_="grid3"),
        tag("h2", "All of it"),
        tag("div", table, class_="scroll"),
    )
    return document(title, [main], ["style.css"], ["page.js"])


def show_length(n: float) -> str:
    return f"{n / 1024:g}K" if n >= 1024 else f"{n:g}"


def _plain(n: float) -> str:
    return f"{n:,.0f}"


def log_chart(series: Sequence[Series], x_name: str, y_name: str, show: Callable[[float], str]) -> Html:
    """Lines on two logarithmic axes, each named at its right end. `show` writes an x."""
    right = WIDTH - (36 if any(s.name for s in series) else 14)
    xs = sorted({x for s in series for x, _, _ in s.points})
    ys = [y for s in series for _, y, _ in s.points]
    x0, x1, bottom = math.log(xs[0]), math.log(xs[-1]), HEIGHT - BOTTOM
    ticks = log_ticks(min(ys), max(ys))
    y0, y1 = math.log(min(ticks[0], *ys)), math.log(max(ticks[-1], *ys))

    def px(x: float) -> float:
        return round(LEFT + (math.log(x) - x0) / ((x1 - x0) or 1) * (right - LEFT), 1)

    def py(y: float) -> float:
        return round(bottom - (math.log(y) - y0) / ((y1 - y0) or 1) * (bottom - TOP), 1)

    marks: list[Html] = []
    for t in ticks:
        marks.append(tag("line", x1=LEFT, x2=right, y1=py(t), y2=py(t), class_="grid"))
        marks.append(tag("text", tick_text(t), x=LEFT - 6, y=py(t) + 3.5, text_anchor="end"))
    marks.append(tag("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
    marks += [tag("text", show(x), x=px(x), y=bottom + 15, text_anchor="middle") for x in xs]
    marks.append(tag("text", x_name, x=(LEFT + right) / 2, y=HEIGHT - 5, text_anchor="middle", class_="name"))
    last = math.inf
    for i, s in enumerate(sorted(series, key=lambda s: s.points[-1][1])):
        fade = 1 - 0.55 * i / max(1, len(series) - 1)
        line = " ".join(f"{px(x)},{py(y)}" for x, y, _ in s.points)
        marks.append(tag("polyline", points=line, class_="curve", opacity=round(fade, 2)))
        for x, y, says in s.points:
            marks.append(
                tag("g", tag("circle", cx=px(x), cy=py(y), r=4, class_="dot"), data_tip=says, tabindex=0)
            )
        last = min(py(s.points[-1][1]), last - 12)  # names of near lines do not cover one another
        marks.append(tag("text", s.name, x=right + 8, y=last + 3.5, class_="row"))
    return tag(
        "svg",
        marks,
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{y_name} by {x_name}",
    )


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 x 10^k from just below `low` to just above `high`; every other kind where that is many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        ticks = [m * 10.0**k for k in powers for m in digits]
        below = [t for t in ticks if t <= low * 1.001][-1:]
        above = [t for t in ticks if t >= high * 0.999][:1]
        found = sorted({*below, *above, *(t for t in ticks if low < t < high)})
        if len(found) <= 7:
            break
    return found
