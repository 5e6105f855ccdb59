"""How long documents are: by source the share of its tokens in documents of each power of two, before and after what
midtraining does with long ones (report section 3.3). The histograms are those of the stages' lengths.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from phikit.report.charts import RIGHT, WIDTH
from phikit.report.load import LENGTH_STAGES, RunData
from phikit.report.markup import Html, tag
from phikit.report.page import absent

Histogram = Mapping[str, float]
LEFT, STEP, BAR = 86, 26, 20  # of a source's row


def lengths(data: RunData) -> list[Html]:
    """A row of bars for every source, and for the long ones what midtraining made of them."""
    figures = [
        tag("figure", tag("figcaption", tag("b", stage), tag("span", SAYS[stage])), chart(found))
        for stage in LENGTH_STAGES
        if (found := data.lengths.get(stage))
    ]
    if not figures:
        return [tag("h3", TITLE), absent(data.missing.get("lengths:mixture"))]
    says = "Share of a source's tokens that stand in documents of each length. Hover or tap for the figures."
    return [tag("h3", TITLE), tag("p", says, class_="note"), tag("div", figures, class_="grid3")]


TITLE = "document lengths"
SAYS = {
    "mixture": "documents of every source",
    "midtrain": "long sources: grey as they lie there, blue as they are trained on",
}


def chart(found: Mapping[str, Mapping[str, Histogram]]) -> Html:
    """`before` of every source as bars; where there is an `after` it stands beside it."""
    buckets = buckets_of(found)
    bottom = 8 + STEP * len(found)
    inner = WIDTH - LEFT - RIGHT
    width = inner / max(1, len(buckets))
    marks = []
    for i, (name, source) in enumerate(found.items()):
        base = 8 + STEP * (i + 1) - 3
        kinds = [k for k in ("before", "after") if k in source]
        top = max((v for k in kinds for v in source[k].values()), default=1.0)
        bars = [
            tag(
                "rect", class_="plain" if kind == "before" and len(kinds) == 2 else "length",
                x=round(LEFT + width * (b + (0.08 + 0.42 * k if len(kinds) == 2 else 0.08)), 1),
                width=round(width * (0.42 if len(kinds) == 2 else 0.84), 1),
                y=round(base - BAR * source[kind].get(str(size), 0.0) / top, 1),
                height=round(BAR * source[kind].get(str(size), 0.0) / top, 1),
            )
            for k, kind in enumerate(kinds)
            for b, size in enumerate(buckets)
            if source[kind].get(str(size))
        ]  # fmt: skip
        marks.append(
            tag(
                "g",
                tag("rect", x=0, y=base + 3 - STEP, width=WIDTH, height=STEP, class_="hit"),
                tag("text", name, x=LEFT - 8, y=base - 4, text_anchor="end", class_="row"),
                tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="grid"),
                bars,
                data_tip="\n".join([name, *(f"{kind}: {told(source[kind])}" for kind in kinds)]),
                tabindex=0,
            )
        )
    every = max(1, -(-len(buckets) // 8))
    ticks = [
        tag("text", bucket(size), x=round(LEFT + width * (b + 0.5), 1),
            y=bottom + 14, text_anchor="middle")
        for b, size in enumerate(buckets) if b % every == 0
    ]  # fmt: skip
    name = tag(
        "text",
        "tokens of a document, from",
        x=LEFT + inner / 2,
        y=bottom + 31,
        text_anchor="middle",
        class_="name",
    )
    return tag(
        "svg", marks, ticks, name, class_="chart lengths", viewBox=f"0 0 {WIDTH} {bottom + 38}", role="img",
        aria_label="share of tokens by length of document",
    )  # fmt: skip


def buckets_of(found: Mapping[str, Mapping[str, Histogram]]) -> Sequence[int]:
    """All powers of two from the shortest to the longest document."""
    sizes = [int(b) for source in found.values() for h in source.values() for b in h]
    if not sizes:
        return []
    return [1 << k for k in range(min(sizes).bit_length() - 1, max(sizes).bit_length())]


def bucket(size: int) -> str:
    return f"{size // 1024}K" if size >= 1024 else str(size)


def told(histogram: Histogram) -> str:
    return ", ".join(f"{bucket(int(b))} {v:.0%}" for b, v in histogram.items() if v >= 0.005) or "no tokens"


def rows(found: Mapping[str, Mapping[str, Histogram]]) -> Iterator[tuple[str, str, Histogram]]:
    """(source, before or after, its histogram), for tables."""
    for name, source in found.items():
        for kind, histogram in source.items():
            yield name, kind, histogram
