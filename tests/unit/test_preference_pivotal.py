"""Pivotal Token Search on processes whose p(success) is known at every prefix."""

from __future__ import annotations

import json
from functools import cache

import pytest
from pivotal_process import EOT, RIGHT, Process, check

from phikit.preference.evalues import interval
from phikit.preference.pivotal import SearchConfig, search, to_pair
from phikit.preference.priors import Tokens
from phikit.preference.rollouts import LOG, Question, Rollouts, rollout_id

GAP = 0.2
SHAPES = {
    "paths": {"length": 14, "wording": 0.1, "decisive": 0.02, "size": 0.8, "paths": 8, "slips": 0.15},
    "forks": {"length": 20, "wording": 0.15, "decisive": 0.1, "size": 1.0},
}
# What a token does is mostly alike in all questions, so that the search learns it; mostly, not always.
SHAPES["alike"] = SHAPES["paths"] | {"alike": 0.8}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("PHIKIT_QUIET", "1")


def questions(n: int) -> list[Question]:
    return [Question(f"q{i}", str(i), str(RIGHT)) for i in range(n)]


def rollouts(folder, engine, budget=0, max_tokens=30, seed=5, temperature=1.0) -> Rollouts:
    return Rollouts(
        engine, check, folder, temperature=temperature, max_tokens=max_tokens, budget=budget, seed=seed
    )


def change(process: Process, v) -> float:
    n = int(v.question.question)
    return process.p(n, (*v.prefix, v.token)) - process.p(n, v.prefix)


def outcome(process, result):
    """(precision, recall) with the band of 0.05 around the gap left out, and the number of clear pivotal tokens."""
    true, band = set(), set()
    for f in result.found:
        n = int(f.question.question)
        for a in f.answers:
            for i in range(len(a) - 1):
                d = abs(process.p(n, a.tokens[: i + 1]) - process.p(n, a.tokens[:i]))
                key = (f.question.id, a.tokens[: i + 1])
                if d >= GAP + 0.05:
                    true.add(key)
                elif d > GAP - 0.05:
                    band.add(key)
    found = {(v.question.id, (*v.prefix, v.token)) for v in result.pivots} - band
    return len(found & true) / max(1, len(found)), len(found & true) / max(1, len(true)), len(true)


@cache
def searched(shape: str, seed: int, tmp: str):
    from pathlib import Path

    process = Process(seed=seed, **SHAPES[shape])
    r = rollouts(Path(tmp) / f"{shape}{seed}", process, seed=seed)
    return process, r, search(questions(24), r, SearchConfig(gap=GAP))


@pytest.fixture(scope="module")
def tmp(tmp_path_factory):
    return str(tmp_path_factory.mktemp("pts"))


@pytest.mark.parametrize("shape", SHAPES)
def test_precision_and_recall_where_the_truth_is_known(shape, tmp):
    scores = [outcome(p, result) for seed in (0, 1) for p, _, result in [searched(shape, seed, tmp)]]
    assert sum(n for *_, n in scores) >= 40
    assert sum(p for p, *_ in scores) / 2 >= 0.95
    assert sum(r for _, r, _ in scores) / 2 >= {"paths": 0.65, "forks": 0.5, "alike": 0.65}[shape]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_rate_holds(shape, tmp):
    """At most 5 % of the tokens change p by less than 3/4 gap, at most 5 % of the pairs differ by less: posterior
    statements, with room for chance. What e-BH certifies has an effect."""
    tokens, pairs = [], []
    for seed in (0, 1):
        process, _, result = searched(shape, seed, tmp)
        tokens += [abs(change(process, v)) >= 0.15 for v in result.pivots]
        pairs += [apart(process, v) >= 0.15 for v in result.pairs]
        assert result.certified <= len(result.pivots)
        assert result.certified_pairs <= len(result.pairs)
    assert len(tokens) >= 40
    assert len(pairs) >= 35
    assert sum(tokens) >= 0.93 * len(tokens)
    assert sum(pairs) >= 0.93 * len(pairs)


def apart(process: Process, v) -> float:
    """How much better the chosen token of a pair is than the rejected one."""
    n = int(v.question.question)
    d = process.p(n, (*v.prefix, v.token)) - process.p(n, (*v.prefix, v.other))
    return d if v.taken.mean > v.outcomes.mean else -d


@pytest.mark.parametrize("certified", [False, True])
def test_where_wording_changes_nothing_next_to_none_of_it_is_listed(tmp_path, certified):
    process = Process(seed=3, length=20, wording=0.5, decisive=0.0)
    result = search(questions(20), rollouts(tmp_path, process), SearchConfig(gap=GAP, certified=certified))
    # The last draw decides: it is pivotal. So is a rare word now and then.
    wording = [v for v in result.pivots if abs(change(process, v)) < 0.75 * GAP]
    assert result.hypotheses > 100
    assert len(result.pivots) >= 15
    assert len(wording) <= (0 if certified else 0.1 * len(result.pivots))
    assert not certified or result.certified == len(result.pivots)


def test_estimates_and_intervals_are_those_of_the_process(tmp):
    """Evidence from rollouts of other prefixes is unbiased: intervals that hold at all times hold here."""
    total = missed = 0
    for seed in (0, 1):
        process, _, result = searched("paths", seed, tmp)
        for f in result.found:
            for a in f.answers:
                for i in range(len(a)):
                    s = a.at(i)
                    if s.n >= 10:
                        low, high = interval(s)
                        total += 1
                        missed += not low <= process.p(int(f.question.question), a.tokens[:i]) <= high
    assert total > 300
    assert missed / total <= 0.05


def test_what_a_token_did_in_other_questions_is_learned(tmp_path, tmp, monkeypatch):
    """Where tokens do alike in all questions, as many are found with fewer rollouts."""
    process, r, result = searched("alike", 1, tmp)
    monkeypatch.setattr(Tokens, "share", lambda self, test, keys, before: before)
    without = rollouts(tmp_path, process, seed=1)
    assert len(result.pivots) >= len(search(questions(24), without, SearchConfig(gap=GAP)).pivots)
    assert r.generated <= 0.85 * without.generated


def test_pairs_name_two_tokens_that_were_sampled_and_verified(tmp):
    _, _, result = searched("paths", 0, tmp)
    assert len({to_pair(v, str).id for v in result.pairs}) == len(result.pairs)
    for v in result.pairs:
        pair = to_pair(v, str)
        (good,), (bad,) = pair.chosen_ids, pair.rejected_ids
        assert {good, bad} == {v.token, v.other}
        assert EOT not in (good, bad)
        assert (pair.kind, pair.prefix_ids, pair.prompt) == ("pivotal", v.prefix, v.question.turns)
        assert pair.meta["p_chosen"] > pair.meta["p_rejected"]
        assert min(pair.meta["n_chosen"], pair.meta["n_rejected"]) >= 3
        prefixes = [v.prefix, (*v.prefix, good), (*v.prefix, bad)]
        assert pair.meta["rollouts"] == [rollout_id(v.question.id, p) for p in prefixes]


def test_no_pair_is_listed_on_its_prior_alone(tmp_path):
    """Where nearly all pairs so far differed, the prior says so of the next one too. An alternative has rollouts of its
    own, or it is another searched answer's token, with outcomes from the rollouts of that answer."""
    process = Process(seed=1, length=4, wording=0.0, decisive=0.0, paths=8)
    r = rollouts(tmp_path, process)
    result = search(questions(40), r, SearchConfig(gap=GAP, active=4))
    answers = {f.question.id: [a.tokens for a in f.answers] for f in result.found}
    own = 0
    for v in result.pairs:
        path = (*v.prefix, v.other)
        assert v.outcomes.n >= 3
        if not any(a[: len(path)] == path for a in answers[v.question.id]):
            assert r.count(v.question, path) >= 3
            own += 1
    assert own >= 30


def test_it_is_cheaper_than_a_fixed_number_of_rollouts(tmp):
    """The report's search at N = 64 needs 64 rollouts for each prefix it looks at."""
    _, r, result = searched("paths", 0, tmp)
    looked_at = len(r.known)
    assert sum(map(len, r.known.values())) < 64 * looked_at / 3
    assert result.tested < result.hypotheses


def test_parts_that_cannot_move_p_are_not_sampled(tmp_path):
    process = Process(seed=1, length=20, wording=0.0, decisive=0.0)
    r = rollouts(tmp_path, process)
    result = search(questions(6), r, SearchConfig(gap=GAP))
    assert len(result.found) >= 4
    sampled = {(q, p) for q, p in r.known if p}
    near = {
        (f.question.id, a.tokens[:i])
        for f in result.found for a in f.answers for c in a.candidates for i in (c, c + 1)
    }  # fmt: skip
    alternatives = {(f.question.id, (*v.prefix, v.other)) for f in result.found for v in f.tested if v.other}
    assert sampled <= near | alternatives
    assert len(sampled) < 252 / 4  # 21 prefixes in each of two answers of six questions


@pytest.mark.parametrize(("start", "reason"), [((0.96, 1.0), "too easy"), ((0.0, 0.03), "too hard")])
def test_questions_outside_low_and_high_are_not_searched(tmp_path, start, reason):
    r = rollouts(tmp_path, Process(seed=2, length=8, start=start))
    result = search(questions(6), r, SearchConfig())
    assert result.found == []
    assert result.skipped[reason] == 6
    assert {p for _, p in r.known} == {()}


def test_a_wider_gap_finds_fewer(tmp_path, tmp):
    process, _, result = searched("forks", 0, tmp)
    few = search(questions(24), rollouts(tmp_path, process, seed=0), SearchConfig(gap=0.6))
    assert len(few.pivots) < len(result.pivots)


@pytest.mark.parametrize(
    "settings", [{"gap": 0.0}, {"gap": 1.5}, {"error": 0.0}, {"rollouts": 0}, {"trajectories": 0}]
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match="pivotal search"):
        SearchConfig(**settings)


# -- temperature --------------------------------------------------------------------------------------------------


class Hot(Process):
    """Samples at temperature 2 while it reports the log-probabilities of temperature 1."""

    def link(self, node, r, options):
        options = [(t, q**2, c) for t, q, c in options]
        total = sum(q for _, q, _ in options)
        self.reported = [q / total for _, q, _ in options]
        super().link(node, r, [(t, q**0.5, c) for t, q, c in options])
        node.probability = self.reported


def test_hot_sampling_keeps_candidates_that_the_reported_bound_would_drop(tmp_path):
    """A token drawn with 0.6 at temperature 2 has 0.69 of the model, one with 0.8 has 0.94: its bound must be 0.2."""
    process = Hot(seed=0, **SHAPES["forks"])
    r = rollouts(tmp_path, process, temperature=2.0)
    result = search(questions(8), r, SearchConfig(gap=GAP))
    dropped = 0
    for f in result.found:
        n = int(f.question.question)
        for a in f.answers:
            for i in range(len(a) - 1):
                d = abs(process.p(n, a.tokens[: i + 1]) - process.p(n, a.tokens[:i]))
                assert d <= a.bound(i, i + 1) + 1e-6
                node = process.walk(n, a.tokens[:i])
                said = node.probability[node.tokens.index(a.tokens[i])]
                dropped += d > 1 - said
    assert dropped > 0, "the process never shows the difference"


# -- restart, budget, outcomes ------------------------------------------------------------------------------------


def same(a, b) -> bool:
    key = lambda result: [
        (v.question.id, v.prefix, v.token, v.other, v.log_e, v.taken) for v in result.pivots
    ]
    return key(a) == key(b) and a.skipped == b.skipped and a.hypotheses == b.hypotheses


def test_a_kill_at_any_moment_changes_nothing_and_samples_nothing_twice(tmp_path):
    shape = SHAPES["paths"]
    first = Process(seed=4, **shape)
    r = rollouts(tmp_path / "whole", first)
    want = search(questions(4), r, SearchConfig())
    log = (tmp_path / "whole" / LOG).read_bytes()
    lines = log.splitlines(keepends=True)
    for kept in (0, 1, 2, len(lines) // 3, 2 * len(lines) // 3, len(lines) - 1, len(lines)):
        folder = tmp_path / f"kept{kept}"
        folder.mkdir()
        torn = b"" if kept == len(lines) else lines[kept][: len(lines[kept]) // 2]
        (folder / LOG).write_bytes(b"".join(lines[:kept]) + torn)
        again = Process(seed=4, **shape)
        r = rollouts(folder, again)
        assert same(search(questions(4), r, SearchConfig()), want)
        assert len(again.asked) == len(lines) - max(kept, 1)
        assert sorted((folder / LOG).read_bytes().splitlines()) == sorted(log.splitlines())


def test_more_can_be_asked_of_the_same_rollouts_later(tmp_path):
    process = Process(seed=4, **SHAPES["paths"])
    search(questions(4), rollouts(tmp_path, process), SearchConfig(rollouts=16))
    before = (tmp_path / LOG).read_bytes()
    asked = len(process.asked)
    r = rollouts(tmp_path, process)
    result = search(questions(4), r, SearchConfig(rollouts=64))
    assert (tmp_path / LOG).read_bytes().startswith(before)
    alone = rollouts(tmp_path / "alone", Process(seed=4, **SHAPES["paths"]))
    assert same(result, search(questions(4), alone, SearchConfig(rollouts=64)))
    assert len(process.asked) - asked < sum(map(len, alone.known.values()))


def test_other_settings_do_not_mix_with_the_rows_of_these(tmp_path):
    rollouts(tmp_path, Process(seed=4))
    with pytest.raises(ValueError, match=r"another temperature \(temperature 1.0\)"):
        rollouts(tmp_path, Process(seed=4), temperature=0.7)


def test_a_damaged_row_is_named(tmp_path):
    rollouts(tmp_path, Process(seed=4))
    with (tmp_path / LOG).open("a") as f:
        f.write('{"q": "x"}\n')
    with pytest.raises(ValueError, match="line 2: not a rollout"):
        rollouts(tmp_path, Process(seed=4))


@pytest.mark.parametrize("budget", [1, 400, 3_000, 9_000, 200_000])
def test_the_budget_is_never_exceeded(tmp_path, budget):
    shape = SHAPES["paths"]
    process = Process(seed=4, **shape)
    r = rollouts(tmp_path / "a", process, budget=budget, max_tokens=18)
    result = search(questions(8), r, SearchConfig())
    used = process.usage.generated + process.usage.prefilled
    assert used <= budget
    assert r.generated + r.prefilled <= budget
    assert process.usage.generated == r.generated
    if budget < 200_000:
        assert f"{budget:,}" in result.stopped
        assert budget < 1_000 or used > 0.9 * budget
    else:
        assert result.stopped == ""
    assert len(result.found) + sum(result.skipped.values()) == 8
    # The same rows, the same end: after a restart nothing is asked any more.
    again = Process(seed=4, **shape)
    assert same(
        search(questions(8), rollouts(tmp_path / "a", again, budget=budget, max_tokens=18), SearchConfig()),
        result,
    )
    assert again.asked == []


def test_questions_are_searched_side_by_side_and_in_turn(tmp_path):
    """One wave serves all active questions; with fewer active at a time the rows of a question stay the same."""
    r = rollouts(tmp_path / "a", Process(seed=4, **SHAPES["paths"]))
    search(questions(6), r, SearchConfig())
    one = rollouts(tmp_path / "b", Process(seed=4, **SHAPES["paths"]))
    search(questions(6), one, SearchConfig(active=1))
    assert r.waves < one.waves / 2
    assert [x.tokens for x in r.of(questions(6)[3], ())[:16]] == [
        x.tokens for x in one.of(questions(6)[3], ())[:16]
    ]


def test_outcomes_are_kept_apart_and_verdicts_are_cached(tmp_path):
    from phikit.jobs.progress import bar

    calls = []

    def judge(question, text):
        calls.append(text)
        return None if "91" in text else "90" in text

    process = Process(seed=5, length=4, wording=0.6)
    r = Rollouts(process, judge, tmp_path, temperature=1.0, max_tokens=6, budget=0, seed=1)
    with bar("x") as b:
        r.ensure([(questions(1)[0], (), 200)], b)
        r.ensure([(questions(1)[0], (), 100)], b)
    counts = r.outcomes()
    assert set(counts) == {"right", "wrong", "unparsed", "truncated"}
    assert counts["right"] > 30
    assert counts["unparsed"] > 30
    assert sum(counts.values()) == 200
    assert len(calls) == len(set(calls))
    short = Rollouts(process, judge, tmp_path / "s", temperature=1.0, max_tokens=3, budget=0, seed=1)
    with bar("x") as b:
        short.ensure([(questions(1)[0], (), 20)], b)
    assert short.outcomes()["truncated"] == 20


def test_an_engine_without_probabilities_is_refused(tmp_path):
    from dataclasses import replace

    class Mute(Process):
        def sample(self, request, j):
            return replace(super().sample(request, j), logprobs=())

    with pytest.raises(ValueError, match="without token ids or log-probabilities"):
        search(questions(1), rollouts(tmp_path, Mute(seed=1)), SearchConfig())


def test_the_log_is_json_lines(tmp_path):
    search(questions(2), rollouts(tmp_path, Process(seed=4, **SHAPES["paths"])), SearchConfig())
    first, *rows = [json.loads(x) for x in (tmp_path / LOG).read_text().splitlines()]
    assert first["settings"]["temperature"] == 1.0
    assert len({(r["q"], tuple(r["p"]), r["i"]) for r in rows}) == len(rows) > 30
