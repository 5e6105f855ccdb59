"""A plot with axes as SVG: what `phikit tune` and the horizon study draw losses and rates in."""

from __future__ import annotations

import math
from collections.abc import Sequence

from phikit.report.charts import nice_ticks
from phikit.report.markup import Html, tag


class Frame:
    """A plot's place: data to pixels between `left` and `right`."""

    TOP, BOTTOM = 12, 250
    COLOURS = "#9ab8d6", "#6c9bc8", "#2563a8", "#123a66"  # from short to long

    def __init__(
        self, left: float, right: float, points: Sequence[tuple[float, float]], log_y: bool = False
    ) -> None:
        self.left, self.right, self.log_y = left, right, log_y
        xs, ys = zip(*points)
        pad = (max(ys) - min(ys)) * 0.06 or 0.5
        self.x0, self.x1, self.y0, self.y1 = min(xs), max(xs), min(ys) - pad, max(ys) + pad

    def x(self, v: float) -> float:
        span = self.x1 - self.x0 or 1.0
        return round(self.left + 10 + (v - self.x0) / span * (self.right - self.left - 24), 1)

    def y(self, v: float) -> float:
        return round(self.TOP + (self.y1 - v) / (self.y1 - self.y0) * (self.BOTTOM - self.TOP), 1)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)

    def dot(self, x: float, y: float, r: float, colour: str) -> Html:
        return tag("circle", cx=self.x(x), cy=self.y(y), r=r, fill=colour)

    def curve(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> Html:
        dash = {"stroke_dasharray": "5 4"} if dashed else {}
        return tag(
            "polyline", points=self.path(points), fill="none", stroke=colour, stroke_width=1.8,
            stroke_linejoin="round", **dash,
        )  # fmt: skip

    def ring(self, x: float, y: float, colour: str) -> Html:
        return tag("circle", cx=self.x(x), cy=self.y(y), r=6, fill="none", stroke=colour, stroke_width=2)

    def axes(self, ticks: Sequence[tuple[float, str]], x_name: str, y_name: str) -> list[Html]:
        """Grid lines with their values; `ticks` of x with what they are called."""
        if self.log_y:
            rates = [m * 10.0**e for e in range(-6, 1) for m in (1, 2, 3, 5, 7)]
            values = [(math.log2(v), f"{v:g}") for v in rates if self.y0 <= math.log2(v) <= self.y1]
        else:
            values = [(v, f"{v:g}") for v in nice_ticks(self.y0, self.y1)]
        middle, right = (self.left + self.right) / 2, self.right - 4
        return [
            *(tag("line", x1=self.left, x2=right, y1=self.y(v), y2=self.y(v), class_="grid") for v, _ in values),
            *(tag("text", t, x=self.left - 5, y=self.y(v) + 4, text_anchor="end") for v, t in values),
            *(tag("text", t, x=self.x(v), y=self.BOTTOM + 16, text_anchor="middle") for v, t in ticks),
            tag("text", f"{y_name}, by {x_name}", x=middle, y=self.BOTTOM + 38, text_anchor="middle"),
        ]  # fmt: skip
