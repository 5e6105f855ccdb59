"""Graders: the published rules, case by case."""

from __future__ import annotations

import math
import random

import pytest

from phikit.evals.metrics import answers, drop, programs, simpleqa
from phikit.evals.task import Answer, Item


def graded(grade, text: str, reference, **more):
    return grade(Item("i", "?", reference=reference, **more), Answer(text))


@pytest.mark.parametrize(
    ("text", "outcome", "said"),
    [
        ("So.\nAnswer: B", "right", "B"),
        ("Answer: $B$", "right", "B"),
        ("**Answer: B**", "right", "B"),
        ("Answer: (B)", "right", "B"),
        ("answer:b", "right", "B"),
        ("Answer: C. No, Answer: B", "wrong", "C"),  # simple-evals takes the first
        ("Answer: Because", "unparsed", ""),
        ("It is B.", "unparsed", ""),
    ],
)
def test_letters(text, outcome, said):
    found = graded(answers.letter(), text, "B")
    assert (found.outcome, found.said) == (outcome, said)
    assert found.scores == {"acc": float(outcome == "right")}


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        (" 9 + 7 = 16\n#### 1,016", 1, 1),
        ("#### 1016.", 1, 1),
        ("The total is $1,016", 0, 1),
        ("#### 5 but then 1016", 0, 1),
        ("#### 1016 or 5", 1, 0),
        ("nothing", 0, 0),
    ],
)
def test_gsm8k_has_two_scores(text, strict, flexible):
    assert graded(answers.gsm8k, text, "1016").scores == {"strict": strict, "flexible": flexible}


def test_short_answers():
    gold = ["Sinclair Lewis", "Harry Sinclair Lewis"]
    assert graded(answers.short_answer, "sinclair lewis!", gold).outcome == "right"
    assert graded(answers.short_answer, " the Sinclair Lewis", gold).outcome == "wrong"
    assert graded(answers.short_answer, " ", gold).outcome == "unparsed"
    assert graded(answers.contains, "It was Sinclair Lewis, I think", gold).outcome == "right"
    assert graded(answers.word_f1, "Sinclair", ["Sinclair Lewis"]).scores["f1"] == pytest.approx(2 / 3)
    assert graded(answers.math_line, r"Answer: $\frac{1}{2}$", "0.5").outcome == "right"
    assert graded(answers.math_line, "it is 0.5", "0.5").outcome == "unparsed"


def test_mgsm_reads_its_language():
    grade = answers.mgsm("Antwort")
    assert graded(grade, "Also 18.\nAntwort: 1,018.00", "1018").outcome == "right"
    assert graded(grade, "Answer: 18", "18").outcome == "unparsed"


@pytest.mark.parametrize(
    ("said", "gold", "em", "f1"),
    [
        ("the 12-yard run", "12 yard run", 1, 1),
        ("3", "3.0", 1, 1),
        ("4", "3", 0, 0),
        ("4 yards", "3 yards", 0, 0),  # no number in common: nothing else counts
        ("Tom Brady", "Brady", 0, 0.6667),
        ("", "Brady", 0, 0),
    ],
)
def test_drop(said, gold, em, f1):
    found = drop.scores(said, gold)
    assert found[0] == em
    assert found[1] == pytest.approx(f1, abs=1e-4)


def test_drop_takes_the_best_reference_and_the_answer_line():
    found = graded(drop.grade, "First 7.\nAnswer: Tom Brady", ["Manning", "Tom Brady"])
    assert (found.scores, found.outcome) == ({"f1": 1.0, "em": 1.0}, "right")
    assert graded(drop.grade, "no line", ["x"]).outcome == "unparsed"


def test_pass_at_k_is_the_share_of_draws_that_pass():
    rng = random.Random(0)
    passed = [1.0] * 3 + [0.0] * 7
    draws = [any(rng.sample(passed, 4)) for _ in range(20_000)]
    assert programs.pass_at(4)(passed) == pytest.approx(sum(draws) / len(draws), abs=0.01)
    assert programs.pass_at(10)(passed) == 1.0
    with pytest.raises(ValueError, match="needs 11 samples"):
        programs.pass_at(11)(passed)


def test_simpleqa():
    item, answer = Item("i", "Who?", reference="Ada"), Answer("Ada Lovelace")
    assert "Reference: Ada" in simpleqa.ask(item, answer)[1].content
    assert simpleqa.read(item, answer, "A").outcome == "right"
    assert simpleqa.read(item, answer, " C.").scores == {"correct": 0, "incorrect": 0, "not_attempted": 1}
    assert simpleqa.read(item, answer, "CORRECT").outcome == "unparsed"
    means = {"correct": 0.068, "incorrect": 0.9, "not_attempted": 0.032}  # facts 5.5: base has F1 6.9
    assert simpleqa.f1(means) == pytest.approx(0.069, abs=5e-4)
    assert simpleqa.f1({"correct": 0.0, "incorrect": 0.0, "not_attempted": 1.0}) == 0.0
    assert math.isclose(simpleqa.given_attempted({"correct": 0.03, "incorrect": 0.03}), 0.5)
