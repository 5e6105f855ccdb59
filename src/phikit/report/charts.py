"""Inline SVG: loss curves, dot-and-whisker panels.

Colours come from the page's CSS, values from `data-` attributes that page.js shows on hover or tap."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from phikit.report.markup import Html, tag

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 36
MAX_POINTS = 240


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round tick values inside [low, high], about `count` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line(
    points: Sequence[tuple[float, float]], labels: Sequence[str], *, x_name: str, y_name: str, title: str
) -> Html:
    """A curve with axes. `labels[i]` is what hovering point i says. Non-finite points are left out."""
    kept = [(x, y, label) for (x, y), label in zip(points, labels) if math.isfinite(x) and math.isfinite(y)]
    if not kept:
        return tag("p", "No finite value was logged.", class_="note")
    stride = math.ceil(len(kept) / MAX_POINTS)
    kept = kept[::stride] + ([kept[-1]] if (len(kept) - 1) % stride else [])
    xs, ys = [p[0] for p in kept], [p[1] for p in kept]
    x0, x1 = min(xs), max(xs)
    pad = (max(ys) - min(ys)) * 0.06 or abs(ys[0]) * 0.05 or 0.5
    y0, y1 = min(ys) - pad, max(ys) + pad
    inner_w, inner_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def px(x: float) -> float:
        return round(LEFT + (x - x0) / (x1 - x0) * inner_w if x1 > x0 else LEFT + inner_w / 2, 1)

    def py(y: float) -> float:
        return round(TOP + (y1 - y) / (y1 - y0) * inner_h, 1)

    half = len(ys) // 24  # a centred mean does not lag behind the curve
    windows = [ys[max(0, i - half) : i + half + 1] for i in range(len(ys))]
    smooth = [sum(w) / len(w) for w in windows]
    grid = [
        [
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=py(t), y2=py(t), class_="grid"),
            tag("text", f"{t:g}", x=LEFT - 6, y=py(t) + 3.5, text_anchor="end"),
        ]
        for t in nice_ticks(y0, y1)
    ]
    x_ticks = [
        tag("text", tick_text(t), x=px(t), y=HEIGHT - BOTTOM + 15, text_anchor="middle")
        for t in nice_ticks(x0, x1)
    ]
    hover = json.dumps([[px(x), py(y), label] for x, y, label in kept], separators=(",", ":"))
    return tag(
        "svg",
        grid,
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="axis"),
        x_ticks,
        tag("text", x_name, x=LEFT + inner_w / 2, y=HEIGHT - 5, text_anchor="middle", class_="name"),
        tag(
            "text",
            y_name,
            x=-(TOP + inner_h / 2),
            y=11,
            transform="rotate(-90)",
            text_anchor="middle",
            class_="name",
        ),
        tag("polyline", points=" ".join(f"{px(x)},{py(y)}" for x, y in zip(xs, ys)), class_="raw"),
        tag("polyline", points=" ".join(f"{px(x)},{py(y)}" for x, y in zip(xs, smooth)), class_="curve"),
        tag("line", x1=0, x2=0, y1=TOP, y2=HEIGHT - BOTTOM, class_="cross", hidden=True),
        tag("circle", cx=0, cy=0, r=3.5, class_="mark", hidden=True),
        class_="chart line",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=title,
        tabindex=0,
        data_points=hover,
    )


def whiskers(
    rows: Sequence[tuple[str, float, float, float, str]], *, share: bool, x_name: str, title: str
) -> Html:
    """Dots with 95 % whiskers, one row per checkpoint: (name, value, low, high, tooltip). A share is drawn in
    per cent and stays within 0 to 100."""
    k = 100.0 if share else 1.0
    finite = [v * k for _, value, low, high, _ in rows for v in (value, low, high) if math.isfinite(v)]
    lo, hi = (min(finite), max(finite)) if finite else (0.0, 1.0)
    pad = max((hi - lo) * 0.08, (3.0 if share else 0.02))
    lo, hi = lo - pad, hi + pad
    if share:
        lo, hi = max(0.0, lo), min(100.0, hi)
    step, left, top = 24, 74, 8
    bottom = top + step * len(rows)
    height = bottom + 36
    inner = WIDTH - left - RIGHT

    def px(v: float) -> float:
        v = min(max(v * k, lo), hi) if math.isfinite(v) else (lo if v < 0 else hi)
        return round(left + (v - lo) / (hi - lo) * inner, 1)

    marks = []
    for i, (name, value, low, high, tip) in enumerate(rows):
        y = top + step * (i + 0.5)
        marks.append(
            tag(
                "g",
                tag("rect", x=0, y=y - step / 2, width=WIDTH, height=step, class_="hit"),
                tag("text", name, x=left - 10, y=y + 4, text_anchor="end", class_="row"),
                tag("line", x1=px(low), x2=px(high), y1=y, y2=y, class_="whisker"),
                tag("circle", cx=px(value), cy=y, r=4.5, class_="dot"),
                data_tip=tip,
                tabindex=0,
            )
        )
    ticks = [
        [
            tag("line", x1=px(t / k), x2=px(t / k), y1=top, y2=bottom, class_="grid"),
            tag("text", f"{t:g}", x=px(t / k), y=bottom + 15, text_anchor="middle"),
        ]
        for t in nice_ticks(lo, hi)
    ]
    return tag(
        "svg",
        ticks,
        tag("line", x1=left, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"),
        marks,
        tag("text", x_name, x=left + inner / 2, y=height - 4, text_anchor="middle", class_="name"),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label=title,
    )


def tick_text(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
