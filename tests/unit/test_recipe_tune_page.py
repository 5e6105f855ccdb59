"""The pages of `phikit tune`, and what counts as a best rate."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path

from phikit.recipe.tune import parabola
from phikit.recipe.tune_page import lr_page, warmup_page

POINTS = [(0.5, 4.0), (1.0, 3.0), (2.0, 3.5)]


class _Marks(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.texts.append(data.strip())

    def count(self, tag: str, **attrs: str) -> int:
        return sum(t == tag and attrs.items() <= a.items() for t, a in self.found)


def page(path: Path) -> _Marks:
    return _Marks(path.read_text(encoding="utf-8"))


def horizon(tokens: int, factor: float, inside: bool = True) -> dict:
    return {"tokens": tokens, "factor": factor, "loss": 2.9, "inside": inside, "points": POINTS}


def test_a_rate_is_the_best_only_between_others_that_are_worse():
    """The parabola of this falling curve has a lowest point before its end."""
    falling = parabola([(0.25, 5.4), (0.5, 4.5), (1, 3.53), (2, 3.0), (4, 2.89)])
    assert (falling.inside, falling.factor, falling.loss) == (False, 4.0, 2.89)
    assert parabola([(0.25, 5.4), (0.5, 4.5), (1, 3.53), (2, 3.0), (4, 3.1)]).inside


def test_best_rates_and_those_at_the_edge(tmp_path):
    found = {"lr": 0.002, "factor": 1.0, "tokens": 64_000, "sure": False,
             "horizons": [horizon(8000, 4.0, False), horizon(16_000, 2.0), horizon(32_000, 1.5)]}  # fmt: skip
    lr_page(tmp_path / "lr.html", 0.002, found)
    p = page(tmp_path / "lr.html")
    assert "Learning rate for 64K tokens: 0.002" in p.texts
    assert "0.008, at the edge" in p.texts
    assert any(
        "At 8K the best rate is at the edge" in t and "left out of the line. Try" in t for t in p.texts
    )
    assert p.count("circle", fill="none") == 2  # the edge and the prediction
    assert p.count("circle", r="4") == 4  # two horizons in both pictures
    assert not [a for _, a in p.found for v in a.values() if "nan" in str(v)]


def test_all_horizons_alike_or_at_the_edge_still_give_a_picture(tmp_path):
    rows = [horizon(8000, 4.0, False), horizon(16_000, 4.0, False)]
    lr_page(tmp_path / "lr.html", 0.002, {"lr": 0.008, "factor": 4.0, "tokens": 64_000, "horizons": rows})
    p = page(tmp_path / "lr.html")
    assert any("it is a bound alone" in t for t in p.texts)
    heights = [float(a["cy"]) for t, a in p.found if t == "circle"]
    assert all(0 < y < 300 for y in heights)
    (dashed,) = [a["points"] for t, a in p.found if t == "polyline" and "stroke-dasharray" in a]
    assert all(0 < float(pair.split(",")[1]) < 300 for pair in dashed.split())


def test_warm_ups_are_drawn_with_the_rates_that_broke(tmp_path):
    runs = [
        {"warmup": 0.01, "factor": 1.0, "losses": [5.0, 4.0, 3.0], "broken": ""},
        {"warmup": 0.01, "factor": 2.0, "losses": [5.0], "broken": "no number at step 2", "stable": 1.0},
        {"warmup": 0.02, "factor": 1.0, "losses": [5.0, math.nan, 3.0], "broken": "", "stable": 1.0},
    ]
    warmup_page(tmp_path / "warmup.html", {"lr": 0.01, "runs": runs})
    p = page(tmp_path / "warmup.html")
    assert "Warm-up at 0.01 and above" in p.texts
    assert p.count("svg", role="img") == 2
    assert "no number at step 2" in p.texts
    assert p.texts.count("stable") == 2
    assert "stable up to 1 times the rate, 0.01" in p.texts
    assert p.count("polyline") == 3
