"""Pairs that pivotal pairs are compared with, and what tells choices of a path from facts."""

from __future__ import annotations

import random

import pytest

from phikit.preference.contrast import (
    LEAST,
    Moves,
    holds_elsewhere,
    next_tokens,
    random_token_pairs,
    recovers,
    whole_answer_pairs,
)
from phikit.preference.rollouts import Question, Rollout
from phikit.records.types import Preference, Turn

Q = Question("q", "2+2?", "4")


def text(ids) -> str:
    return " ".join(map(str, ids))


def rollout(*tokens: int, outcome: str = "right") -> Rollout:
    return Rollout(tokens, (), outcome)


def pair(prefix, chosen, rejected, question="q", p_rejected=0.0, n_rejected=9) -> Preference:
    meta = {"question": question, "p_rejected": p_rejected, "n_rejected": n_rejected}
    turns = (Turn("user", "2+2?"),)
    return Preference(turns, prefix, (chosen,), (rejected,), str(chosen), str(rejected), "pivotal", meta)


def test_whole_answers_are_right_over_wrong_and_all_used_before_one_is_used_again():
    right = [rollout(1, i) for i in range(3)]
    wrong = [rollout(2, i, outcome="wrong") for i in range(2)] + [rollout(3, 0, outcome="unparsed")]
    cut = [rollout(4, 4, outcome="truncated")]
    made = whole_answer_pairs(Q, [*right, *wrong, *cut, *right], 3, random.Random(1), text)
    assert {p.chosen_ids for p in made} == {r.tokens for r in right}
    assert {p.rejected_ids for p in made} == {r.tokens for r in wrong}
    assert all(p.prefix_ids == () and p.kind == "judged" for p in made)
    every = whole_answer_pairs(Q, [*right, *wrong, *cut], 99, random.Random(1), text)
    assert len({(p.chosen_ids, p.rejected_ids) for p in every}) == len(every) == 9
    assert whole_answer_pairs(Q, right, 3, random.Random(1), text) == []


@pytest.mark.parametrize(("n_right", "n_wrong"), [(2, 4), (4, 2), (3, 3), (5, 1)])
def test_no_combination_of_whole_answers_is_missed(n_right, n_wrong):
    answers = [rollout(1, i) for i in range(n_right)] + [
        rollout(2, i, outcome="wrong") for i in range(n_wrong)
    ]
    assert len(whole_answer_pairs(Q, answers, 99, random.Random(0), text)) == n_right * n_wrong


KNOWN = {
    ("q", ()): [
        rollout(5, 6, 7, 9),
        rollout(5, 6, 8, 9, outcome="wrong"),
        rollout(4, 9, outcome="wrong"),
        rollout(5, 9, outcome="truncated"),
    ],
    ("q", (5, 6)): [rollout(7, 9), rollout(3, 9, outcome="wrong")],
    ("q", (4,)): [rollout(6, 9)],
    ("other", ()): [rollout(5, 1, 9)],
}


def test_next_tokens_are_counted_where_they_were_sampled():
    found = next_tokens("q", (5, 6, 7, 9), KNOWN)
    assert found[0] == {True: [5], False: [5, 4]}
    assert found[1] == {True: [6], False: [6]}  # the rollouts of (5, 6) were given the 6
    assert found[2] == {True: [7, 7], False: [8, 3]}
    assert found[3] == {True: [9, 9], False: []}


def test_random_tokens_leave_pivotal_places_out_and_name_outcomes():
    answers = [(5, 6, 7, 9)]
    made = random_token_pairs(Q, answers, [], KNOWN, 9, random.Random(0), text)
    assert {(p.prefix_ids, p.chosen_ids, p.rejected_ids) for p in made} == {
        ((), (5,), (4,)), ((5, 6), (7,), (8,)), ((5, 6), (7,), (3,)),
    }  # fmt: skip
    made = random_token_pairs(Q, answers, [(5, 6)], KNOWN, 9, random.Random(0), text)
    assert [p.prefix_ids for p in made] == [()]
    assert random_token_pairs(Q, answers, [(), (5, 6)], KNOWN, 9, random.Random(0), text) == []
    assert len(random_token_pairs(Q, answers, [], KNOWN, 2, random.Random(0), text)) == 2


PATH, BAD_PATH, EQUALS, DIGITS = 1, 2, 3, (10, 11, 12, 13)


def world(seed: int, questions: int = 300, rollouts: int = 12):
    """Answers [path, equals, digit]. The good path ends in the question's digit with chance 0.7, the bad one 0.2."""
    rng = random.Random(seed)
    known = {}
    for n in range(questions):
        true, rows = rng.choice(DIGITS), []
        for _ in range(rollouts):
            path = rng.choice((PATH, BAD_PATH))
            right = rng.random() < (0.7 if path == PATH else 0.2)
            digit = true if right else rng.choice([d for d in DIGITS if d != true])
            rows.append(rollout(path, EQUALS, digit, outcome="right" if right else "wrong"))
        known[f"q{n}", ()] = rows
    return known


def test_a_choice_of_path_holds_in_other_questions_and_a_fact_does_not():
    known = world(1)
    moves = Moves(known)
    assert holds_elsewhere(pair((), PATH, BAD_PATH, "q0"), moves, 0.1)
    assert not holds_elsewhere(pair((), BAD_PATH, PATH, "q0"), moves, 0.1)
    facts = [pair((PATH, EQUALS), a, b, "q0") for a in DIGITS for b in DIGITS if a != b]
    assert sum(holds_elsewhere(p, moves, 0.1) for p in facts) <= 2
    assert all(moves.elsewhere(p).context == 3 for p in facts)
    assert moves.elsewhere(pair((), PATH, BAD_PATH, "q0")).difference == pytest.approx(0.5, abs=0.06)


def test_a_question_is_no_evidence_for_its_own_pairs():
    known = {("q0", ()): [rollout(PATH, 9)] * LEAST + [rollout(BAD_PATH, 9, outcome="wrong")] * LEAST}
    found = Moves(known).elsewhere(pair((), PATH, BAD_PATH, "q0"))
    assert (found.n_chosen, found.n_rejected, found.difference) == (0, 0, 0.0)
    assert Moves(known).elsewhere(pair((), PATH, BAD_PATH, "q1")).difference == 1.0


def test_a_rare_context_gives_way_to_a_shorter_one():
    many = [rollout(7, EQUALS, PATH, 9), rollout(8, EQUALS, BAD_PATH, 9, outcome="wrong")] * LEAST
    moves = Moves({("q1", ()): many})
    assert moves.elsewhere(pair((7, EQUALS), PATH, BAD_PATH)).context == 1
    assert moves.elsewhere(pair((7, EQUALS), PATH, BAD_PATH)).difference == 1.0
    assert moves.elsewhere(pair((5, 6), PATH, BAD_PATH)).context == 0


def test_recovers_reads_the_shrunk_share():
    assert not recovers(pair((), 1, 2, p_rejected=0.5 / 10, n_rejected=9))
    assert recovers(pair((), 1, 2, p_rejected=1.5 / 10, n_rejected=9))
