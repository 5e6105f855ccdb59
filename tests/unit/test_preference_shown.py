"""What people see of a searched answer: p and its interval at every place, pivots with alternatives and rollouts."""

from __future__ import annotations

import math

import pytest
from pivotal_process import EOT, RIGHT, WRONG, Process, check

from phikit.engine.scripted import ScriptedEngine
from phikit.preference.answer import Answer
from phikit.preference.evalues import interval
from phikit.preference.pivotal import SearchConfig, search
from phikit.preference.rollouts import Question, Rollout, Rollouts
from phikit.preference.shown import KNOWN, LONGEST, Texts, _examples, answer_rows, band


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")


def test_the_interval_holds_p_at_every_place_sampled_or_not(tmp_path):
    covered, carried = [], []
    for seed in (0, 1):
        process = Process(seed=seed, length=20, wording=0.15, decisive=0.1, size=1.0)
        rollouts = Rollouts(
            process, check, tmp_path / str(seed), temperature=1.0, max_tokens=30, budget=0, seed=seed
        )
        questions = [Question(f"q{i}", str(i), str(RIGHT)) for i in range(16)]
        result = search(questions, rollouts, SearchConfig())
        for row in answer_rows(result, rollouts, Texts(process)):
            n = int(row["question"])
            for i, (p, low, high) in enumerate(zip(row["p"], row["low"], row["high"])):
                inside = low - 1e-3 <= process.p(n, tuple(row["ids"][:i])) <= high + 1e-3
                (covered if p is not None else carried).append(inside)
    assert len(covered) > 200
    assert len(carried) > 100
    assert sum(covered) / len(covered) >= 0.95
    assert sum(carried) / len(carried) >= 0.95


def test_where_nothing_was_sampled_the_nearest_estimate_and_the_bound_say_what_p_can_be():
    pi = (1.0, 0.9, 1.0, 0.5, 1.0)
    answer = Answer(Rollout((1, 2, 3, 4, 5), tuple(map(math.log, pi)), "wrong"), [(x, x) for x in pi], 0.2)
    for right in [True] * 30 + [False] * 10:
        answer.add((), Rollout((9,), (), "right" if right else "wrong"))
    low, high = band(answer, [answer.at(i) for i in range(6)])
    l, h = interval(answer.at(0))
    assert (low[0], high[0]) == (low[1], high[1]) == (l, h)  # a certain token changes nothing
    assert low[2] == pytest.approx(max(0, (l - 0.1) / 0.9))
    assert high[2] == pytest.approx(min(1, h / 0.9))
    assert (low[3], high[3]) == pytest.approx((low[2], high[2]))
    assert (low[4], high[4]) == (low[5], high[5]) == (0.0, 0.0)  # the end is known to be wrong
    assert answer.at(2).n < KNOWN


def test_tokens_that_are_bytes_of_a_character_show_it_once():
    texts = Texts(ScriptedEngine(lambda prompt: ""))
    ids = texts.engine.encode("a\u00e9\U0001f642b")
    pieces = texts.pieces(ids)
    assert pieces == ["a", "", "\u00e9", "", "", "", "\U0001f642", "b"]
    assert texts.pieces(ids[:4])[-1] == "\ufffd"  # the character never came


def test_a_blank_that_a_token_shows_only_inside_a_text_is_kept():
    class Words(ScriptedEngine):
        def decode(self, ids):
            return "".join(" " + "abc"[i] for i in ids).removeprefix(" ")

    texts = Texts(Words(lambda prompt: ""))
    assert texts.pieces([0, 1, 2]) == ["a", " b", " c"]


def test_examples_are_the_first_right_and_wrong_rollouts_through_the_token():
    texts = Texts(Process())
    right, wrong = Rollout((7, 8, RIGHT, EOT), (), "right"), Rollout((7, 9, WRONG, EOT), (), "wrong")
    cut = Rollout((8,) * 2000, (), "truncated")
    samples = [
        ((5, 7, 8), Rollout((RIGHT,), (), "right")),  # it was told how to go on
        ((), Rollout((6, 7, RIGHT), (), "right")), ((5,), wrong), ((5,), wrong), ((5,), right), ((5, 7), cut),
    ]  # fmt: skip
    found = _examples((5, 7), samples, texts)
    assert [(e["outcome"], e["text"].split()) for e in found] == [
        ("right", ["8", "90"]),
        ("wrong", ["9", "91"]),
    ]
    (long,) = _examples((5, 7, 8, 8), samples, texts)
    assert (long["outcome"], len(long["text"])) == ("truncated", LONGEST)
    assert long["left_out"] > 0
    assert _examples((4,), samples, texts) == []
