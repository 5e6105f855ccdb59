"""What studies show: tables as Markdown, values as dots with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phikit.report.charts import nice_ticks
from phikit.report.markup import Html, tag

STYLE = (
    "text{font:12px sans-serif;fill:#333}.name{font-weight:bold}.grid{stroke:#ddd}.whisker{stroke:#2563a8;"
    "stroke-width:2}.dot{fill:#2563a8}.zero{stroke:#888}.seed{fill:#2563a8;fill-opacity:.3}rect{fill:#fff}"
)


@dataclass(frozen=True)
class Dot:
    """A row of a panel: an estimate (`value`, `low`, `high`) and the values of the seeds, drawn faintly."""

    name: str
    estimate: Mapping[str, float]
    seeds: Sequence[float] = ()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]


def interval(e: Mapping[str, float], scale: float = 100.0, digits: int = 1, sign: bool = True) -> str:
    """Value [low, high], in points where not said otherwise; the value alone where there is no interval."""
    form = f"{'+' if sign else ''}.{digits}f"
    if not math.isfinite(e["low"]):
        return format(scale * e["value"], form)
    value, low, high = (format(scale * e[k], form) for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def panels_svg(title: str, panels: Sequence[tuple[str, Sequence[Dot]]], width: int = 720) -> str:
    """Panels of shares in per cent below each other, on one axis."""
    left, step = 190, 22
    everything = [
        v for _, dots in panels for d in dots for v in (d.estimate["value"], d.estimate["high"], *d.seeds)
    ]
    high = min(1.0, max((v for v in everything if math.isfinite(v)), default=1.0) * 1.05)

    def px(v: float) -> float:
        return round(left + min(max(v, 0.0), high) / high * (width - left - 24), 1)

    marks: list[Html] = []
    y = 8.0
    for name, dots in panels:
        marks.append(tag("text", name, x=8, y=y + 16, class_="name"))
        y += 24
        for t in nice_ticks(0, 100 * high):
            marks.append(
                tag("line", x1=px(t / 100), x2=px(t / 100), y1=y, y2=y + step * len(dots), class_="grid")
            )
        for d in dots:
            e, middle = d.estimate, y + step / 2
            marks += [
                tag("text", d.name, x=left - 10, y=middle + 4, text_anchor="end"),
                *(tag("circle", cx=px(v), cy=middle, r=3, class_="seed") for v in d.seeds),
                tag("line", x1=px(e["low"]), x2=px(e["high"]), y1=middle, y2=middle, class_="whisker"),
                tag("circle", cx=px(e["value"]), cy=middle, r=4.5, class_="dot"),
            ]
            y += step
        y += 6
    marks += [
        tag("text", f"{t:g} %", x=px(t / 100), y=y + 12, text_anchor="middle")
        for t in nice_ticks(0, 100 * high)
    ]
    return svg(width, round(y + 24), title, marks)


def svg(width: int, height: int, title: str, *children: Any) -> str:
    return tag(
        "svg", tag("title", title), tag("style", STYLE), tag("rect", x=0, y=0, width=width, height=height), *children,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", width=width, height=height, role="img",
    )  # fmt: skip
