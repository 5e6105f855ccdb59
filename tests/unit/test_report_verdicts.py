"""The rules that turn scores into words."""

from __future__ import annotations

from typing import Any

import pytest

from phikit.report.verdicts import Verdict, judge


def score(checkpoint: str, task: str, value: float, half: float, metric: str = "accuracy") -> dict[str, Any]:
    row = {"checkpoint": checkpoint, "task": task, "metric": metric, "value": value, "n": 500}
    return row | {"low": value - half, "high": value + half}


def pair(a: str, b: str, task: str, low: float, high: float, metric: str = "sampled") -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "task": task,
        "metric": metric,
        "value": (low + high) / 2,
        "low": low,
        "high": high,
        "n": 9,
    }


def verdict(
    stage: str, scores: list[dict[str, Any]], comparisons: list[dict[str, Any]] | None = None
) -> Verdict:
    return next(v for v in judge(scores, comparisons or []) if v.stage == stage)


@pytest.mark.parametrize(
    "after, word", [(0.41, "worked"), (0.24, "no effect"), (0.21, "no effect"), (0.05, "harmed")]
)
def test_midtrain_is_judged_by_disjoint_intervals_of_recall_4x(after: float, word: str) -> None:
    v = verdict(
        "midtrain", [score("pretrain", "recall_4x", 0.2, 0.03), score("midtrain", "recall_4x", after, 0.03)]
    )
    assert v.word == word
    assert v.goal is (word == "worked")
    assert ("disjoint" if word != "no effect" else "overlap") in v.text


def test_sft_works_by_format_and_misses_its_goal_below_95_per_cent() -> None:
    before = score("midtrain", "format", 0.02, 0.01)
    good = verdict("sft", [before, score("sft", "format", 0.97, 0.01)])
    weak = verdict("sft", [before, score("sft", "format", 0.80, 0.02)])
    assert (good.word, good.goal) == ("worked", True)
    assert (weak.word, weak.goal) == ("worked", False)
    assert "the goal is 95%" in weak.text


def test_sft_that_loses_arithmetic_harmed() -> None:
    scores = [score("midtrain", "format", 0.02, 0.01), score("sft", "format", 0.97, 0.01)]
    scores += [score(c, "arithmetic", v, 0.01, "sampled") for c, v in (("midtrain", 0.3), ("sft", 0.2))]
    assert verdict("sft", scores).word == "harmed"


@pytest.mark.parametrize(
    "low, high, word", [(0.01, 0.15, "worked"), (-0.02, 0.1, "no effect"), (-0.2, -0.01, "harmed")]
)
def test_dpo1_is_judged_by_the_paired_difference_in_either_direction(
    low: float, high: float, word: str
) -> None:
    # The intervals of the two scores overlap: only the paired comparison can decide.
    scores = [score(c, "arithmetic", 0.3, 0.2, "sampled") for c in ("sft", "dpo1")]
    forward = verdict("dpo1", scores, [pair("dpo1", "sft", "arithmetic", low, high)])
    backward = verdict("dpo1", scores, [pair("sft", "dpo1", "arithmetic", -high, -low)])
    assert forward.word == backward.word == word
    assert forward.text == backward.text
    assert "paired" in forward.text


def test_dpo1_without_a_paired_comparison_says_so() -> None:
    scores = [
        score("sft", "arithmetic", 0.2, 0.01, "sampled"),
        score("dpo1", "arithmetic", 0.3, 0.01, "sampled"),
    ]
    v = verdict("dpo1", scores)
    assert v.word == "worked"
    assert "intervals disjoint" in v.text
    assert "paired" not in v.text


def test_dpo1_ignores_the_greedy_metric() -> None:
    scores = [
        score("sft", "arithmetic", 0.2, 0.01, "greedy"),
        score("dpo1", "arithmetic", 0.3, 0.01, "greedy"),
    ]
    assert verdict("dpo1", scores).word == "not judged"


@pytest.mark.parametrize(
    "wins, sums, word, goal",
    [
        ((0.02, 0.1), (-0.01, 0.02), "worked", True),
        ((0.02, 0.1), (-0.05, -0.01), "harmed", False),
        ((-0.02, 0.1), (-0.01, 0.02), "no effect", False),
        ((-0.1, -0.02), (0.01, 0.02), "harmed", False),
    ],
)
def test_dpo2_needs_wins_without_losing_arithmetic(
    wins: tuple[float, float], sums: tuple[float, float], word: str, goal: bool
) -> None:
    comparisons = [pair("dpo2", "dpo1", "preference_wins", *wins, metric="share")]
    comparisons.append(pair("dpo2", "dpo1", "arithmetic", *sums))
    v = verdict("dpo2", [score("dpo1", "icl", 0.5, 0.1)], comparisons)
    assert (v.word, v.goal) == (word, goal)


def test_bits_per_byte_is_better_when_lower() -> None:
    scores = [
        score("pretrain", "bits_per_byte", 2.5, 0.01, "mean"),
        score("midtrain", "bits_per_byte", 2.3, 0.01, "mean"),
    ]
    scores += [score("pretrain", "recall_4x", 0.1, 0.01), score("midtrain", "recall_4x", 0.4, 0.01)]
    scores += [score("pretrain", "icl", 0.6, 0.01), score("midtrain", "icl", 0.5, 0.01)]
    v = verdict("midtrain", scores)
    assert v.gains == ("bits_per_byte 2.500 to 2.300",)
    assert v.costs == ("icl 60.0 to 50.0",)


def test_failed_and_missing_stages_are_not_judged() -> None:
    stages = [
        {"name": "pretrain", "status": "done"},
        {"name": "midtrain", "status": "failed", "error": "a\nboom"},
    ]
    stages += [{"name": n, "status": "not run"} for n in ("sft", "dpo1", "dpo2")]
    words = {v.stage: v.word for v in judge([], [], stages)}
    assert [words[n] for n in ("pretrain", "midtrain", "dpo2")] == ["not judged", "failed", "not run"]
    assert "boom" in judge([], [], stages)[1].text
