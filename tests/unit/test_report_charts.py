"""Axes, scaling and downsampling of the inline charts."""

from __future__ import annotations

import itertools
import json
import math
import re

import pytest

from phikit.report.charts import MAX_POINTS, line, nice_ticks, whiskers
from phikit.report.numbers import duration, score_text, short


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1.87, 2.22), (0, 4.2e6), (-3, 17), (99.1, 99.9)])
def test_ticks_lie_inside_and_are_evenly_spaced(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in ticks)
    gaps = {round(b - a, 9) for a, b in itertools.pairwise(ticks)}
    assert len(gaps) == 1


def points_of(svg: str) -> list[list[float]]:
    return json.loads(re.search(r'data-points="([^"]*)"', svg)[1].replace("&quot;", '"'))  # type: ignore[index]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    values = [(float(i), 5.0 - i / 1000) for i in range(3001)]
    points = points_of(line(values, [str(i) for i in range(3001)], x_name="x", y_name="y", title="t"))
    assert len(points) <= MAX_POINTS + 1
    assert (points[0][2], points[-1][2]) == ("0", "3000")
    assert points[0][1] < points[-1][1]  # a falling loss goes down the page


def test_values_that_are_not_finite_are_left_out() -> None:
    svg = line(
        [(0, 1), (1, math.nan), (2, math.inf), (3, 2)], list("abcd"), x_name="x", y_name="y", title="t"
    )
    assert [p[2] for p in points_of(svg)] == ["a", "d"]
    assert "No finite value" in line([(0, math.nan)], ["a"], x_name="x", y_name="y", title="t")


def test_one_point_and_equal_values_do_not_divide_by_zero() -> None:
    line([(1, 2)], ["a"], x_name="x", y_name="y", title="t")
    line([(1, 0), (2, 0)], ["a", "b"], x_name="x", y_name="y", title="t")
    whiskers([("sft", 0.0, float("-inf"), float("inf"), "tip")], share=True, x_name="x", title="t")


def test_numbers_are_written_for_people() -> None:
    assert [short(x) for x in (950, 12_345, 1_310_720, 14_659_507_200, 9.8e12)] == [
        "950", "12.3 k", "1.31 M", "14.7 B", "9.80 T",
    ]  # fmt: skip
    assert [duration(x) for x in (0.42, 59.7, 185, 7800)] == [
        "0.4 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 10 min",
    ]
    assert score_text("arithmetic", "sampled", 0.2314) == "23.1"
    assert score_text("bits_per_byte", "mean", 2.3) == "2.300"
