"""The viewer of a pivotal search: its card, and the frame that `pivots.js` fills with answers. One page of its own
(`write_page`, `phikit pts view`) and the same component as a section of a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phikit.records.io import write_text
from phikit.report.document import document
from phikit.report.markup import Html, tag
from phikit.report.numbers import short
from phikit.report.pivots import find, read_card, read_packed, script_json

PAGE = "pivotal.html"
LIMIT = 16_000_000  # characters of JSON in a page of its own: 12,000 answers of nano open in 0.8 s
KEYS = (
    ("j k", "next and previous answer"),
    ("\u2190 \u2192", "previous and next pivotal token"),
    ("/", "search in the questions"),
    ("Esc", "leave the search"),
    ("?", "this help"),
)
LEGEND = (
    ("The line", "p(success): the chance that an answer that begins like this comes out right, from token to token. A "
     "dot is an estimate from rollouts; between dots the line moves where other tokens were likely."),
    ("The band", "95 % confidence sequences. Where nothing was sampled (paler) it is what the nearest estimate allows: "
     "no token drawn with probability \u03c0 moves p by more than 1 \u2212 \u03c0."),
    ("Colour", "a pivotal token, which raises or lowers p by the gap or more. Without a line below it: tested, and not "
     "sure enough to be listed."),
    ("Below", "what p would be with another token at this place, and how rollouts went on after each. A dotted line "
     "marks where a right one and a wrong one part."),
)  # fmt: skip


def write_page(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a search to `out` (without it `folder`/pivotal.html) and returns its path. `folder`: the --out
    of `phikit pts`, a run, or its stage `pivotal`. Raises ValueError where there are no answers that can be read."""
    at = find(folder)
    card = read_card(at)
    packed = read_packed(at, LIMIT)
    path = out or folder / PAGE
    model = _model(card)
    body = [
        tag(
            "main",
            tag(
                "header",
                tag("p", "phikit pivotal token search", class_="kicker"),
                tag("h1", "Pivotal tokens", tag("span", model) if model else None),
            ),
            component(packed, card),
            class_="pv-page",
        ),
    ]
    write_text(
        path,
        document(
            f"Pivotal tokens - {model or 'phikit'}",
            body,
            ("style.css", "pivots.css"),
            ("pivots_draw.js", "pivots.js"),
        ),
    )
    return path


def component(packed: Mapping[str, Any], card: Mapping[str, Any] | None, more: str = "") -> Html:
    """Card, filters, list and answer. `more`: where the answers are that did not fit."""
    gap = float(((card or {}).get("search") or {}).get("gap") or 0.2)
    shown, total = len(packed["answers"]), packed["total"]
    cut = None
    if shown < total:
        cut = f"The {shown:,} of {total:,} searched answers with the largest changes are here. {more}".strip()
    return tag(
        "div",
        _card(packed, card, gap),
        tag("p", cut, class_="note pv-cut") if cut else None,
        _viewer() if shown else tag("p", _empty(card), class_="absent"),
        tag("script", Html(script_json({**packed, "gap": gap})), type="application/json", class_="pv-data"),
        class_="pv",
        lang="en",
    )


def _card(packed: Mapping[str, Any], card: Mapping[str, Any] | None, gap: float) -> Html:
    """What was asked, what came out, what it cost, how sure it is; and the changes by size, with the filter below."""
    changes = [v[3] / 1000 for a in packed["answers"] for v in a[9]]
    ups = sum(c > 0 for c in changes)
    pivots, up, down = len(changes), ups, len(changes) - ups
    facts: list[tuple[str, str, str]] = []
    says = None
    searched = packed["total"]
    if card is not None:
        q, cost, error = card["questions"], card["cost"], card["error"]
        pivots, up, down, searched = card["pivotal_tokens"], card["up"], card["down"], q["answers"]
        left = [f"{n:,} {k}" for k, n in q.items() if k not in ("searched", "answers") and n]
        kinds = [f"{n:,} {k}" for k, n in card["pairs_by_kind"].items()]
        tokens = cost["tokens_generated"] + cost["tokens_prefilled"]
        each = f"{short(cost['tokens_per_pair'])} a pair" if cost["tokens_per_pair"] else "no pair"
        outcomes = [f"{short(n)} {k}" for k, n in cost["outcomes"].items() if n]
        expected = "" if error["expected"] is None else f"{error['expected']:.1%} expected wrong"
        facts = [
            ("questions", f"{q['searched']:,}", ", ".join(left) or "all searched"),
            ("pivotal tokens", f"{pivots:,}", f"{error['certified']:,} certified"),
            ("pairs", f"{card['pairs']:,}", ", ".join(kinds)),
            ("rollouts", short(cost["rollouts"]), ", ".join(outcomes)),
            ("tokens", short(tokens), each),
            ("error rate", f"{error['rate']:.0%}", expected),
        ]
        says = [
            tag("b", "How sure. "),
            _sentence(error["says"]),
            f" {card['stopped']}." if card["stopped"] else "",
        ]
    lead = [
        tag("b", f"{pivots:,} tokens"), f" of {searched:,} answers each change the chance of a right answer by "
        f"{gap:g} or more: ", tag("b", f"{up:,} raise it", class_="pv-up"), ", ",
        tag("b", f"{down:,} lower it", class_="pv-down"), ".",
    ]  # fmt: skip
    return tag(
        "div",
        tag(
            "div",
            tag("p", lead, class_="summary"),
            tag("dl", [tag("div", tag("dt", k), tag("dd", v, tag("small", s) if s else None)) for k, v, s in facts])
            if facts else None,
        ),
        _histogram(card, changes, gap),
        tag("p", says, class_="note") if says else None,
        class_="pv-card",
    )  # fmt: skip


def _model(card: Mapping[str, Any] | None) -> str:
    """The model by the last two names of its path."""
    names = [x for x in str((card or {}).get("model", "")).split("/") if x not in ("", "hf")]
    return "/".join(names[-2:])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _histogram(card: Mapping[str, Any] | None, changes: list[float], gap: float) -> Html | None:
    """Changes by size: bars up are tokens that raise p, bars down those that lower it. The slider filters by size."""
    counted = (card or {}).get("changes")
    width = float(counted["width"]) if counted else 0.05
    bins = round(1 / width)
    if counted:
        up, down = list(counted["up"]), list(counted["down"])
    else:
        up, down = [0] * bins, [0] * bins
        for c in changes:
            (up if c > 0 else down)[min(int(abs(c) / width + 1e-9), bins - 1)] += 1
    if not any(up) and not any(down):
        return None
    first = min(int(gap / width + 1e-9), next(i for i in range(bins) if up[i] or down[i]))
    w, half, n = 320, 52, bins - first
    step, top = w / n, max(*up, *down)
    middle = round(half * max(up) / top + 12, 1)
    low = round(half * max(down) / top + 4, 1)
    bars = []
    for i in range(first, bins):
        x = round((i - first) * step + 1, 1)
        for count, way in ((up[i], "up"), (down[i], "down")):
            if count:
                h = max(1.0, round(half * count / top, 1))
                y = middle - h if way == "up" else middle + 1
                name = f"{i * width:.2f} to {(i + 1) * width:.2f} {way}: {count:,}"
                bar = tag("rect", x=x, y=round(y, 1), width=round(step - 2, 1), height=h, rx=1.5)
                bars.append(
                    tag(
                        "g",
                        tag("title", name),
                        bar,
                        class_=f"pv-bar {way}",
                        data_from=f"{(i + 1) * width:.3f}",
                    )
                )
    foot = round(middle + low, 1)
    ticks = [
        tag("text", f"{t:g}", x=round((t - first * width) / (1 - first * width) * w, 1), y=foot + 10)
        for t in (0.2, 0.4, 0.6, 0.8, 1)
        if t >= first * width
    ]
    svg = tag(
        "svg",
        tag("line", x1=0, x2=w, y1=middle, y2=middle, class_="axis"),
        bars,
        ticks,
        class_="pv-bars",
        viewBox=f"0 0 {w} {foot + 14}",
        role="img",
        aria_label=f"{sum(up)} changes up, {sum(down)} down, by size",
    )
    start = first * width
    slider = tag(
        "input", type="range", min=f"{start:g}", max="1", step="0.05", value=f"{start:g}", class_="pv-least",
        aria_label="Smallest change shown",
    )  # fmt: skip
    caption = tag("figcaption", "Change of p(success). Show from ", tag("output", f"{start:.2f}"), " on.")
    return tag("figure", svg, tag("div", slider, class_="pv-slide"), caption, class_="pv-sizes")


def _viewer() -> Html:
    def select(name: str, label: str, *options: tuple[str, str]) -> Html:
        return tag(
            "select",
            [tag("option", text, value=v) for v, text in options],
            class_=f"pv-{name}",
            aria_label=label,
        )

    bar = tag(
        "div",
        tag("input", type="search", class_="pv-search", placeholder="Search questions", aria_label="Search questions",
            autocomplete="off", spellcheck="false"),
        select("way", "Direction", ("0", "Up and down"), ("1", "Up"), ("-1", "Down")),
        select("right", "Answers", ("", "Right and wrong"), ("1", "Right answers"), ("0", "Wrong answers")),
        select("kind", "Kind of question", ("", "All kinds")),
        select("sort", "Order", ("change", "Largest first"), ("count", "Most tokens"), ("low", "Hardest first"),
               ("question", "By question")),
        tag("p", class_="pv-count", role="status"),
        tag("button", "?", type="button", class_="pv-ask", aria_label="Help", title="Help (?)"),
        class_="pv-filter",
        role="search",
    )  # fmt: skip
    help_ = tag(
        "dialog",
        tag("h3", "How to read it"),
        tag("dl", [tag("div", tag("dt", k), tag("dd", v)) for k, v in LEGEND], class_="pv-legend"),
        tag("h3", "Keys"),
        tag(
            "dl",
            [tag("div", tag("dt", [tag("kbd", x) for x in k.split()]), tag("dd", v)) for k, v in KEYS],
            class_="pv-keys",
        ),
        tag("form", tag("button", "Close"), method="dialog"),
        class_="pv-help",
        aria_label="Help",
    )
    return tag(
        "div",
        bar,
        tag(
            "div",
            tag(
                "div",
                tag("div", class_="pv-rows"),
                class_="pv-list",
                role="listbox",
                tabindex=0,
                aria_label="Answers",
            ),
            tag("article", class_="pv-answer", aria_label="Answer"),
            class_="pv-body",
        ),
        tag("p", class_="pv-said", aria_live="polite"),
        tag(
            "noscript",
            tag("p", "The answers need JavaScript; nothing is loaded from anywhere.", class_="absent"),
        ),
        help_,
        class_="pv-viewer",
    )


def _empty(card: Mapping[str, Any] | None) -> str:
    left = (
        [] if card is None else [f"{n:,} {k}" for k, n in card["questions"].items() if n and k != "answers"]
    )
    return "No answer was searched" + (f": {', '.join(left)}." if left else ".")
