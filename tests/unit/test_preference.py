"""Pivotal Token Search on a process whose success probabilities are known, and the rules of judged pairs."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from phikit.engine.base import Counter as Used
from phikit.engine.base import EngineInfo
from phikit.engine.sampling import uniforms
from phikit.jobs.progress import bar
from phikit.preference import judged
from phikit.preference.judged import Marks, Reply
from phikit.preference.pivotal import SearchConfig, search, to_pair
from phikit.preference.rollouts import BudgetSpent, Question, Rollouts, rollout_id
from phikit.records import Completion

RIGHT, WRONG, EOT = 90, 91, 99
# Prefix of an answer -> next tokens with their probabilities. After the third token nothing is open but luck:
#   10 leads to a method (12: p = 0.95, 13: p = 0.1), 11 does nothing, then filler, then the result.
SUCCESS = {12: 0.95, 13: 0.1}


def choices(answer: tuple[int, ...]) -> dict[int, float]:
    match len(answer):
        case 0:
            return {10: 0.9, 11: 0.1}  # how it begins does not matter
        case 1:
            return {12: 0.5, 13: 0.5}  # pivotal
        case 2 | 3:
            return {20: 0.97, 21: 0.03}  # filler
        case 4:
            p = SUCCESS[answer[1]]
            return {RIGHT: p, WRONG: 1 - p}
    return {EOT: 1.0}


def p_right(answer: tuple[int, ...]) -> float:
    """Exact probability of a right answer after a prefix."""
    if len(answer) >= 5:
        return float(answer[4] == RIGHT)
    return sum(p * p_right((*answer, t)) for t, p in choices(answer).items())


class Process:
    """An engine whose model is `choices`; a prompt is [1, number of the question] and what was answered."""

    def __init__(self, choices=choices) -> None:
        self.info, self._used, self.choices = EngineInfo("process", 64, 100, "scripted"), Used(), choices
        self.asked: list[tuple[tuple[int, ...], int]] = []  # (prompt, seed) of every request

    usage = property(lambda self: self._used.usage())
    stop_ids = (EOT,)

    def render(self, turns):
        return [1, int(turns[0].content)]

    def decode(self, ids):
        return " ".join(str(i) for i in ids if i != EOT)

    def generate(self, requests):
        for i, r in reversed(list(enumerate(requests))):  # any order is allowed
            self.asked.append((r.prompt, r.seed))
            yield i, [self._sample(r, j) for j in range(r.n)]

    def _sample(self, r, j):
        tokens, logprobs = [], []
        while len(tokens) < r.max_tokens:
            options = self.choices((*r.prompt[2:], *tokens))
            u = uniforms(np.asarray([r.seed + j], dtype=np.uint64), np.asarray([len(tokens)]))[0]
            t = list(options)[
                min(int(np.searchsorted(np.cumsum(list(options.values())), u)), len(options) - 1)
            ]
            tokens.append(t)
            logprobs.append(math.log(options[t]))
            self._used.generated += 1
            if t in r.stop_ids:
                return Completion(self.decode(tokens), tuple(tokens), tuple(logprobs), "stop")
        return Completion(self.decode(tokens), tuple(tokens), tuple(logprobs), "length")

    def encode(self, text): ...
    def score(self, requests): ...
    def close(self): ...


def check(q: Question, text: str) -> bool | None:
    words = text.split()
    return None if str(WRONG) not in words and q.answer not in words else q.answer in words


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")


QUESTIONS = [Question(f"q{i}", str(i), str(RIGHT)) for i in range(4)]


def rollouts(folder, engine=None, n=200, budget=0, max_tokens=10, seed=5) -> Rollouts:
    return Rollouts(
        engine or Process(), check, folder, n=n, temperature=1.0, max_tokens=max_tokens, budget=budget, seed=seed
    )  # fmt: skip


def test_the_process_is_what_the_tests_say():
    assert p_right(()) == p_right((10,)) == p_right((11,)) == pytest.approx(0.525)
    assert p_right((10, 12)) == pytest.approx(0.95)
    assert p_right((11, 13, 20)) == pytest.approx(0.1)


def test_exactly_the_pivotal_tokens_are_found(tmp_path):
    r = rollouts(tmp_path)
    result = search(QUESTIONS, r, SearchConfig())
    assert sorted(f.question.id for f in result.found) == ["q0", "q1", "q2", "q3"]
    assert result.stopped == ""
    pivots = [v for f in result.found for v in f.pivots]
    assert len(pivots) >= 4
    for v in pivots:
        # The method is always one; the last draw moves p too, but only where its other result is likely enough.
        place = len(v.prefix)
        assert place in (1, 4)
        assert abs(v.p_after - v.p_before) >= 0.2
        assert abs(v.p_after - v.p_other) >= 0.2
        assert (v.p_after > v.p_before) != (v.p_other > v.p_before)
        assert v.p_before == pytest.approx(p_right(v.prefix), abs=0.12)
        assert v.p_after == pytest.approx(p_right((*v.prefix, v.token)), abs=0.12)
        assert v.p_other == pytest.approx(p_right((*v.prefix, v.other)), abs=0.12)
    for f in result.found:
        assert 1 in {len(v.prefix) for v in f.pivots}
        assert f.p0 == pytest.approx(0.525, abs=0.12)


def test_pairs_name_two_single_tokens_and_their_rollouts(tmp_path):
    r = rollouts(tmp_path)
    for f in search(QUESTIONS, r, SearchConfig()).found:
        for v in f.pivots:
            pair = to_pair(v, str)
            good, bad = pair.chosen_ids[0], pair.rejected_ids[0]
            assert (len(pair.chosen_ids), len(pair.rejected_ids)) == (1, 1)
            assert {good, bad} == {v.token, v.other}
            assert (good, bad) in ((12, 13), (RIGHT, WRONG))
            assert (pair.kind, pair.prefix_ids, pair.prompt) == ("pivotal", v.prefix, f.question.turns)
            assert pair.meta["p_chosen"] - pair.meta["p_rejected"] >= 0.2
            assert pair.parents == (f.question.id,)
            # Both tokens were sampled at the pivot, and each has an estimate of its own.
            first = Counter(x.tokens[0] for x in r.of(f.question, v.prefix))
            assert min(first[good], first[bad]) >= 2
            prefixes = [v.prefix, (*v.prefix, good), (*v.prefix, bad)]
            assert pair.meta["rollouts"] == [rollout_id(f.question.id, p) for p in prefixes]
            assert [r.p(f.question, p) for p in prefixes[1:]] == [
                pair.meta["p_chosen"],
                pair.meta["p_rejected"],
            ]


def test_a_wider_gap_finds_fewer(tmp_path):
    few = search(QUESTIONS, rollouts(tmp_path), SearchConfig(gap=0.6))
    assert [v for f in few.found for v in f.pivots if len(v.prefix) == 1] == []


@pytest.mark.parametrize(("success", "reason"), [(0.97, "too easy"), (0.02, "too hard")])
def test_questions_outside_low_and_high_are_not_searched(tmp_path, success, reason):
    def one_way(answer):
        return {RIGHT: success, WRONG: 1 - success} if len(answer) == 4 else choices(answer)

    r = rollouts(tmp_path, Process(one_way))
    result = search(QUESTIONS, r, SearchConfig())
    assert result.found == []
    assert result.skipped == {"too easy": 0, "too hard": 0} | {reason: 4}
    assert set(r.known) == {(q.id, ()) for q in QUESTIONS}


def test_parts_that_cannot_move_p_are_not_sampled(tmp_path):
    """All is certain but the result: filler cannot be pivotal, and no estimate is spent inside it."""

    def luck(answer):
        return {RIGHT: 0.5, WRONG: 0.5} if len(answer) == 8 else {EOT: 1.0} if len(answer) > 8 else {20: 1.0}

    r = rollouts(tmp_path, Process(luck), n=100, max_tokens=12)
    result = search(QUESTIONS[:1], r, SearchConfig())
    lengths = {len(prefix) for _, prefix in r.known}
    assert lengths <= {0, 8, 9}
    assert {len(v.prefix) for f in result.found for v in f.pivots} == {8}


def test_ending_the_turn_is_no_alternative(tmp_path):
    """An answer that just stops is wrong, but a pair has no end of turn, and nothing is sampled after one."""

    def may_stop(answer):
        if answer and answer[-1] == EOT:
            raise AssertionError("sampled on after the end of the turn")
        if len(answer) == 1:
            return {12: 0.6, EOT: 0.4}
        return {EOT: 1.0} if len(answer) > 4 else choices(answer)

    r = rollouts(tmp_path, Process(may_stop))
    result = search(QUESTIONS, r, SearchConfig())
    assert not any(EOT in (v.token, v.other) for f in result.found for v in f.pivots)


def test_a_restart_samples_nothing_twice_and_gives_the_same(tmp_path):
    whole = Process()
    want = search(QUESTIONS, rollouts(tmp_path / "whole", whole), SearchConfig())
    assert len(set(whole.asked)) == len(whole.asked)
    waves = sorted((tmp_path / "whole").iterdir())
    assert len(waves) >= 3
    for kept in range(len(waves) + 1):
        folder = tmp_path / f"kept{kept}"
        folder.mkdir()
        for w in waves[:kept]:
            (folder / w.name).write_bytes(w.read_bytes())
        again = Process()
        r = rollouts(folder, again)
        before = set(r.known)
        assert search(QUESTIONS, r, SearchConfig()) == want
        assert len(again.asked) == len(r.known) - len(before)
        assert {w.name: w.read_bytes() for w in folder.iterdir()} == {w.name: w.read_bytes() for w in waves}
    assert again.asked == []


def test_estimates_do_not_depend_on_the_other_questions(tmp_path):
    alone = rollouts(tmp_path / "a")
    search(QUESTIONS[1:2], alone, SearchConfig())
    together = rollouts(tmp_path / "b")
    search(QUESTIONS, together, SearchConfig())
    assert alone.known == {k: v for k, v in together.known.items() if k[0] == "q1"}


@pytest.mark.parametrize("budget", [1, 7_000, 9_000, 20_000])
def test_the_budget_is_never_exceeded(tmp_path, budget):
    engine = Process()
    r = rollouts(tmp_path, engine, n=100, budget=budget)
    result = search(QUESTIONS, r, SearchConfig())
    assert engine.usage.generated == r.generated <= budget
    if result.stopped:
        assert f"{budget:,}" in result.stopped
        assert len(result.found) + sum(result.skipped.values()) == 4
    else:
        assert len(result.found) == 4
    assert result.stopped or budget > 1
    # A restart counts what was spent before.
    assert rollouts(tmp_path, budget=budget).generated == r.generated


def test_nothing_is_sampled_when_the_budget_is_spent(tmp_path):
    engine = Process()
    r = rollouts(tmp_path, engine, n=10, budget=50)
    with bar("x") as progress, pytest.raises(BudgetSpent, match="could take 100 more, and the budget is 50"):
        r.ensure([(QUESTIONS[0], ())], progress)
    assert engine.asked == []


def test_outcomes_are_kept_apart(tmp_path):
    def mixed(answer):
        if not answer:
            return {RIGHT: 0.25, WRONG: 0.25, 50: 0.25, 51: 0.25}
        return {51: 1.0} if answer[0] == 51 else {EOT: 1.0}  # 51 never ends, 50 says nothing

    r = rollouts(tmp_path, Process(mixed), n=400, max_tokens=5)
    with bar("x") as progress:
        r.ensure([(QUESTIONS[0], ()), (QUESTIONS[0], ())], progress)
        r.ensure([(QUESTIONS[0], ())], progress)
    outcomes = r.outcomes()
    assert set(outcomes) == {"right", "wrong", "unparsed", "truncated"}
    assert sum(outcomes.values()) == 400
    assert min(outcomes.values()) > 70
    assert r.p(QUESTIONS[0], ()) == outcomes["right"] / 400
    assert r.waves == 1


# -- judged pairs ----------------------------------------------------------------------------------------------

Q = QUESTIONS[0]


def reply(number: int, stopped: bool = True) -> Reply:
    return Reply(f"answer {number}", (number, EOT) if stopped else (number,), stopped, f"model {number}")


def pairs_of(marks, stopped=None, most=10):
    replies = [reply(i, stopped is None or stopped[i]) for i in range(len(marks))]
    made = judged.pairs(Q, replies, [Marks(*m) for m in marks], most=most)
    return [(p.chosen_ids[0], p.rejected_ids[0], p.meta["by"]) for p in made]


def test_ties_are_dropped():
    assert pairs_of([(3, 3, 3), (3, 3, 3)]) == []
    assert pairs_of([(3, 4, 2), (3, 2, 4)]) == []
    assert pairs_of([(3, 3, 3)]) == pairs_of([]) == []


def test_accuracy_comes_before_the_overall_mark():
    assert pairs_of([(5, 1, 1), (1, 5, 5)]) == [(0, 1, "accuracy")]
    assert pairs_of([(4, 1, 2), (4, 5, 1)]) == [(1, 0, "overall")]


def test_the_widest_margin_comes_first_and_at_most_most_are_made():
    marks = [(1, 3, 3), (5, 3, 3), (3, 3, 3), (4, 3, 3)]
    assert pairs_of(marks, most=1) == [(1, 0, "accuracy")]
    assert pairs_of(marks, most=2) == [(1, 0, "accuracy"), (3, 0, "accuracy")]
    assert [len(pairs_of(marks, most=m)) for m in (0, 1, 2)] == [0, 1, 2]


def test_a_cut_answer_is_never_chosen():
    assert pairs_of([(5, 5, 5), (1, 1, 1)], stopped=[False, True]) == []
    assert pairs_of([(5, 5, 5), (1, 1, 1)], stopped=[True, False]) == [(0, 1, "accuracy")]


def test_equal_answers_make_no_pair_and_repeated_ones_only_one():
    a, b = reply(1), reply(2)
    marks = [Marks(5, 3, 3), Marks(4, 3, 3)]
    assert judged.pairs(Q, [a, a], marks, most=5) == []
    good, bad = Marks(5, 3, 3), Marks(1, 3, 3)
    made = judged.pairs(Q, [a, a, b, b], [good, good, bad, bad], most=5)
    assert [(p.chosen_ids, p.rejected_ids) for p in made] == [(a.tokens, b.tokens)]
    pair = made[0]
    assert (pair.kind, pair.prefix_ids, pair.prompt, pair.parents) == ("judged", (), Q.turns, (Q.id,))
    assert pair.meta["responders"] == ["model 1", "model 2"]
    assert pair.meta["marks_chosen"] == [5, 3, 3]


def test_answers_of_a_responder():
    engine = Process()
    given = judged.answers(
        engine, QUESTIONS, responder="me", n=3, temperature=1.0, max_tokens=10, seed=1
    )  # fmt: skip
    assert {q: len(x) for q, x in given.items()} == dict.fromkeys([q.id for q in QUESTIONS], 3)
    for r in given["q2"]:
        assert r.tokens[-1] == EOT
        assert (r.stopped, r.responder, r.text) == (True, "me", engine.decode(r.tokens))
    assert len({seed for _, seed in engine.asked}) == 4
    other = Process()
    cut = judged.answers(other, QUESTIONS, responder="you", n=1, temperature=1.0, max_tokens=3, seed=1)
    assert not any(r.stopped for x in cut.values() for r in x)
    assert not {s for _, s in engine.asked} & {s for _, s in other.asked}
