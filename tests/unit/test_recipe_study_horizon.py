"""The study of horizons: what it predicts from, what it compares, its tables, and one tiny run."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from phikit.recipe import study_horizon as study
from phikit.recipe import study_horizon_show as show
from phikit.recipe.studies import STUDIES
from phikit.recipe.study_runs import nano
from phikit.recipe.tune import Fit, Sweep
from phikit.records.io import read_json

STEPS = 800


class Curve:
    """Runs whose best factor falls by `slope` for each doubling of the steps; what is asked for is kept."""

    def __init__(self, slope: float, best: float = 1.0) -> None:
        self.recipe, self.slope, self.best = nano(1, study.SETTINGS), slope, best
        self.asked: list[tuple[int, float]] = []

    def say(self, line: str) -> None: ...

    def steps(self, share: float) -> int:
        return round(share * STEPS)

    def losses(self, steps: int, stop: int, factor: float, warmup: float) -> list[float]:
        self.asked.append((steps, factor))
        best = math.log2(self.best) - self.slope * math.log2(steps / STEPS)
        return [3.0 + 0.1 * (math.log2(factor) - best) ** 2] * steps


def test_a_rate_that_falls_along_a_line_is_predicted_and_the_unchanged_one_costs():
    tuning = Curve(slope=0.3)
    row = study.compared(tuning)  # type: ignore[arg-type]
    assert row["sure"]
    assert row["off"]["predicted"] == pytest.approx(0, abs=1e-6)
    assert row["off"]["unchanged"] == pytest.approx(0.9)
    assert row["lost"]["predicted"] == pytest.approx(0, abs=1e-9)
    assert row["lost"]["unchanged"] == pytest.approx(0.1 * 0.9**2)
    # The three rates are run, not read from the parabola.
    long = [f for steps, f in tuning.asked if steps == STEPS]
    assert len(long) == len(study.FACTORS) + 3
    assert [f for f in long if f not in study.FACTORS] == pytest.approx([1.0, 1.0, 2**0.9], rel=1e-6)


def test_the_prediction_knows_nothing_of_the_long_runs():
    short = [study.sweep(Curve(0.3), share, study.FACTORS) for share in study.SHARES]  # type: ignore[arg-type]
    assert max(s.tokens for s in short) * 2 == study.sweep(Curve(0.3), 1.0, study.FACTORS).tokens  # type: ignore[arg-type]
    assert study.extended(short, 2 * short[-1].tokens) == pytest.approx(1.0)


def test_a_best_rate_at_the_edge_does_not_bend_the_line():
    short = [study.sweep(Curve(0.3), share, study.FACTORS) for share in study.SHARES]  # type: ignore[arg-type]
    edge = Sweep(short[-1].tokens, short[-1].points, Fit(4.0, 0.0, inside=False))
    assert study.extended([*short[:-1], edge], 2 * edge.tokens) == pytest.approx(1.0)
    assert study.extended([edge], 2 * edge.tokens) == 4.0


def test_a_best_rate_at_the_edge_is_said():
    row = study.compared(Curve(slope=0.0, best=16.0))  # type: ignore[arg-type]
    assert not row["sure"]
    assert show.markdown(
        {"lr": 0.01, "seeds": [{"seed": 1, **row}], "over_seeds": show.over_seeds([{"seed": 1, **row}])}
    ).count("0.04*")


def test_tables_and_picture(tmp_path: Path, capsys):
    rows = [
        {"seed": s, **study.compared(Curve(slope, best))}  # type: ignore[arg-type]
        for s, slope, best in ((1, 0.2, 1.0), (2, 0.3, 1.2), (3, 0.25, 0.9))
    ]
    show.publish(tmp_path, rows)
    found = read_json(tmp_path / "study.json")
    e = found["over_seeds"]["off"]["unchanged"]
    assert e["value"] == pytest.approx(0.75)  # 3 doublings
    assert e["low"] < 0.75 < e["high"]
    assert e["n"] == 3
    text = (tmp_path / "study.md").read_text()
    assert text in capsys.readouterr().out
    assert "| extended from the shorter runs | 1.00 [1.00, 1.00] | +0.0000 [+0.0000, +0.0000] |" in text
    assert "1.68" in text  # 2^0.75
    drawn = ElementTree.parse(tmp_path / "study.svg")
    rings = [c for c in drawn.iter("{http://www.w3.org/2000/svg}circle") if c.get("r") == "6"]
    assert len(rings) == 3


def test_the_study_is_named():
    assert STUDIES["horizon"] is study.study
    assert len(study.SEEDS) >= 3


def test_a_finished_seed_is_not_run_again(tmp_path: Path, monkeypatch):
    done: list[Any] = []
    monkeypatch.setattr(study, "run_until", lambda *a: done.append(a))
    monkeypatch.setattr(study, "Tuning", lambda *a: SimpleNamespace())
    monkeypatch.setattr(study, "compared", lambda tuning: {"off": {}, "sure": True})
    for _ in range(2):
        assert study.measured(7, tmp_path / "run", tmp_path / "out") == {"seed": 7, "off": {}, "sure": True}
    assert len(done) == 1
