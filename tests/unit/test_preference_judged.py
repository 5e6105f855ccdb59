"""Judged pairs with a model as judge: both orders, position bias, junk, budget, replay, further responders."""

from __future__ import annotations

import json
import re

import pytest

from phikit.ask.budget import Budget
from phikit.ask.teacher import Teacher
from phikit.engine.scripted import ScriptedEngine
from phikit.preference.judged import Marks, PairCounts, Reply, pairs, teacher_answers
from phikit.preference.judging import JudgingCounts, judge_prompts, judged_pairs
from phikit.preference.rollouts import Question

EOT = 999
QUESTIONS = [Question(f"q{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(4)]


def reply(text: str, by: str = "me", stopped: bool = True) -> Reply:
    return Reply(text, (*text.encode(), EOT), stopped, by)


REPLIES = {
    q.id: [reply(f"It is {q.answer}."), reply("It is 99.", "other"), reply("No idea.")] for q in QUESTIONS
}


def verdict(prompt: str, mark) -> str:
    """A judge's JSON: `mark(position, reply text)` for each assistant."""
    shown = prompt.split("# Replies", 1)[1].split("<|im_end|>", 1)[0]
    said = re.findall(r"\[Assistant (\d+)\]\n([^\n]*)", shown)
    value: dict = {"faults": {f"Assistant {i}": [] for i, _ in said}, "faults_discussion": "x"}
    for name in ("accuracy", "style", "detail"):
        value[name] = {f"Assistant {i}": mark(int(i), text) for i, text in said}
    return json.dumps(value)


def honest(_: int, text: str) -> int:
    return 1 if "99" in text else 2 if "idea" in text else 5


def run(tmp_path, script, *, budget=None, swap=True, replies=REPLIES):
    engine, counts = ScriptedEngine(script), JudgingCounts()
    with Teacher(engine, tmp_path, budget=budget) as teacher:
        marks = judge_prompts(teacher, QUESTIONS, replies, swap=swap, counts=counts, max_tokens=2000)
    made = judged_pairs(QUESTIONS, replies, marks, most=2, counts=counts.pairs)
    return made, counts, engine


def test_an_honest_judge_gives_the_better_answer_in_both_orders(tmp_path):
    made, counts, engine = run(tmp_path, lambda p: verdict(p, honest))
    assert counts.judged == 4
    assert len(engine.prompts) == 8  # both orders of each prompt
    assert len(made) == 8
    for p in made:
        assert p.chosen.startswith("It is") or p.chosen == "No idea."
        assert p.rejected != f"It is {2 * int(p.parents[0][1])}."
    assert {p.meta["by"] for p in made} == {"accuracy"}
    first = [p for p in made if p.parents == ("q3",)]
    assert (first[0].chosen, first[0].rejected) == ("It is 6.", "It is 99.")
    assert first[0].meta["marks_chosen"] == [5.0, 5.0, 5.0]


def test_the_second_order_is_the_first_one_backwards(tmp_path):
    _, _, engine = run(tmp_path, lambda p: verdict(p, honest))
    orders = [re.findall(r"\[Assistant \d\]\n([^\n<]*)", p.split("# Replies", 1)[1]) for p in engine.prompts]
    for q in QUESTIONS:
        two = [o for o, p in zip(orders, engine.prompts) if q.question in p]
        assert two[0] == two[1][::-1]


def test_a_judge_that_likes_the_first_reply_makes_no_pair(tmp_path):
    made, counts, _ = run(tmp_path, lambda p: verdict(p, lambda i, text: 6 - i))
    assert made == []
    assert counts.pairs.position == 12  # three pairs of answers a prompt, each a tie by disagreement
    assert counts.pairs.ties == 0
    biased, once, engine = run(tmp_path / "once", lambda p: verdict(p, lambda i, text: 6 - i), swap=False)
    assert len(biased) == 8  # what the swap has kept out
    assert once.pairs.position == 0
    assert len(engine.prompts) == 4


def test_a_second_run_asks_nothing(tmp_path):
    first, _, _ = run(tmp_path, lambda p: verdict(p, honest))

    def fail(prompt):
        raise AssertionError("asked again")

    again, counts, engine = run(tmp_path, fail)
    assert [p.id for p in again] == [p.id for p in first]
    assert engine.prompts == []
    assert counts.judged == 4


def test_junk_is_repaired_or_dropped_and_counted(tmp_path):
    def script(prompt):
        good = verdict(prompt, honest)
        if QUESTIONS[0].question in prompt:
            return "I like them all."
        if QUESTIONS[1].question in prompt:
            return f"Sure:\n```json\n{good[:-1]},}}\n```"
        if QUESTIONS[2].question in prompt:
            return good.replace("5", "9")
        return good

    made, counts, _ = run(tmp_path, script)
    assert {p.parents[0] for p in made} == {"q1", "q3"}
    assert (counts.judged, counts.unreadable) == (2, 2)
    assert counts.json.repaired == 2
    assert counts.json.dropped == {"no_json": 2, "bad_schema": 2}


def test_the_budget_ends_the_asking_and_a_higher_one_goes_on(tmp_path):
    budget = Budget(tokens=8_000)
    made, counts, _ = run(tmp_path, lambda p: verdict(p, honest), budget=budget)
    assert 0 < counts.judged < 4
    assert counts.budget == 4 - counts.judged
    assert budget.tokens <= 8_000
    assert made
    whole, counts, _ = run(tmp_path, lambda p: verdict(p, honest))
    assert counts.judged == 4
    assert {p.id for p in made} < {p.id for p in whole}


def test_prompts_with_one_answer_only_are_not_asked(tmp_path):
    same = {q.id: [reply("a"), reply("a", "other")] for q in QUESTIONS}
    made, counts, engine = run(tmp_path, lambda p: verdict(p, honest), replies=same)
    assert (made, counts.too_few, engine.prompts) == ([], 4, [])


# -- rules of pairs --------------------------------------------------------------------------------------------

A, B = reply("a"), reply("b")
Q = QUESTIONS[0]


def rule(first, second, overall=None):
    counts = PairCounts()
    made = pairs(
        Q,
        [A, B],
        [Marks(*m) for m in first],
        again=[Marks(*m) for m in second],
        most=2,
        overall=overall,
        counts=counts,
    )
    return [(p.chosen, p.rejected, p.meta["by"]) for p in made], counts


def test_both_orders_must_agree():
    assert rule([(5, 3, 3), (1, 3, 3)], [(4, 3, 3), (2, 3, 3)])[0] == [("a", "b", "accuracy")]
    for second in ([(1, 3, 3), (5, 3, 3)], [(3, 3, 3), (3, 3, 3)]):
        made, counts = rule([(5, 3, 3), (1, 3, 3)], second)
        assert (made, counts.position) == ([], 1)
    made, counts = rule([(3, 5, 3), (3, 1, 3)], [(3, 4, 3), (3, 2, 3)])
    assert made == [("a", "b", "overall")]
    made, counts = rule([(3, 3, 3)] * 2, [(3, 3, 3)] * 2)
    assert (made, counts.ties) == ([], 1)


def test_the_two_sets_of_the_report():
    marks = [(5, 1, 1), (4, 5, 5)]  # more accurate against better in all
    assert rule(marks, marks)[0] == [("a", "b", "accuracy")]
    assert rule(marks, marks, overall=1)[0] == [("a", "b", "accuracy"), ("b", "a", "overall")]
    marks = [(5, 5, 5), (1, 1, 1)]  # both sets would hold the same pair: once is enough
    assert rule(marks, marks, overall=1)[0] == [("a", "b", "accuracy")]


def test_marks_of_a_pair_are_means_of_both_orders():
    (made,) = pairs(
        Q, [A, B], [Marks(5, 3, 3), Marks(1, 3, 3)], again=[Marks(4, 2, 3), Marks(2, 3, 3)], most=1
    )
    assert made.meta["marks_chosen"] == [4.5, 2.5, 3.0]
    assert made.meta["responders"] == ["me", "me"]


# -- responders ------------------------------------------------------------------------------------------------


def test_a_teacher_is_a_responder(tmp_path):
    engine = ScriptedEngine(lambda p, seed: ["", "It is 4.", " It is 5. "][seed % 3], seeded=True)
    with Teacher(engine, tmp_path) as teacher:
        given = teacher_answers(
            teacher, QUESTIONS, lambda t: list(t.encode()), EOT,
            responder="big", n=6, temperature=1.0, max_tokens=50, seed=1,
        )  # fmt: skip
        again = teacher_answers(
            teacher, QUESTIONS, lambda t: list(t.encode()), EOT,
            responder="big", n=6, temperature=1.0, max_tokens=50, seed=1,
        )  # fmt: skip
    assert given == again
    assert teacher.counts()["asked"] == 24
    some = [r for rs in given.values() for r in rs]
    assert {r.text for r in some} == {"It is 4.", "It is 5."}  # empty ones are left out
    assert all(r.tokens == (*r.text.encode(), EOT) and r.responder == "big" and r.stopped for r in some)


def test_a_cut_answer_of_a_teacher_has_no_end(tmp_path):
    with Teacher(ScriptedEngine(lambda p: "a long answer"), tmp_path) as teacher:
        given = teacher_answers(
            teacher, QUESTIONS[:1], lambda t: list(t.encode()), EOT,
            responder="big", n=1, temperature=0.0, max_tokens=5, seed=1,
        )  # fmt: skip
    (r,) = given["q0"]
    assert (r.text, r.stopped, r.tokens[-1]) == ("a lon", False, ord("n"))


@pytest.mark.parametrize("kind", ["judged", "safety"])
def test_pairs_carry_their_kind(kind):
    (made,) = pairs(Q, [A, B], [Marks(5, 3, 3), Marks(1, 3, 3)], most=1, kind=kind)
    assert made.kind == kind
