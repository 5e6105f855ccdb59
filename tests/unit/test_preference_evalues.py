"""e-values, confidence sequences, e-BH and the bound, by simulation and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phikit.preference import evalues
from phikit.preference.bound import sampling_range, surprises
from phikit.preference.evalues import Stream, chance, e_bh, interval, log_e_change, log_e_difference


def streams(rng, p, q, n):
    """Two growing streams, one outcome at a time, whichever is shorter or luckier: an adaptive order."""
    a, b = Stream(0, 0), Stream(0, 0)
    for _ in range(n):
        if a.n <= b.n if rng.random() < 0.5 else a.right < b.right:
            a = Stream(a.n + 1, a.right + int(rng.random() < p))
        else:
            b = Stream(b.n + 1, b.right + int(rng.random() < q))
        yield a, b


@pytest.mark.parametrize(
    ("p", "q", "null"), [(0.5, 0.5, 0.02), (0.1, 0.12, 0.02), (0.6, 0.4, 0.2), (0.97, 0.95, 0.02)]
)
def test_an_e_value_rarely_grows_under_its_null_at_any_time(p, q, null):
    """Ville: the chance that it ever reaches 1 / 0.05 is at most 0.05, with a look after every outcome."""
    rng = np.random.default_rng(1)
    runs, hits = 150, 0
    for _ in range(runs):
        hits += any(
            log_e_difference(a, b, null) >= math.log(20)
            for a, b in streams(rng, p, q, 80)
            if a.n and b.n and (a.n + b.n) % 2 == 0
        )
    assert hits / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_an_e_value_grows_where_the_difference_is_real():
    assert log_e_difference(Stream(12, 12), Stream(24, 10), 0.02) > math.log(40)
    assert log_e_difference(Stream(12, 0), Stream(12, 12), 0.02) > math.log(5000)
    assert log_e_difference(Stream(12, 12), Stream(24, 10), 0.7) < 0
    assert log_e_difference(Stream(5, 5), Stream(0, 0), 0.02) == -math.inf
    assert log_e_difference(Stream(5, 5), Stream(5, 0), 1.0) == -math.inf


def test_the_best_null_is_the_best():
    """Against a dense grid of all pairs within the difference."""
    a, b, d = Stream(17, 15), Stream(23, 4), 0.2
    p = np.linspace(1e-6, 1 - 1e-6, 1001)
    one = a.right * np.log(p) + (a.n - a.right) * np.log1p(-p)
    two = b.right * np.log(p) + (b.n - b.right) * np.log1p(-p)
    within = np.abs(p[:, None] - p[None, :]) <= d + 1e-9
    want = np.where(within, one[:, None] + two[None, :], -np.inf).max()
    assert evalues._best_null(a, b, d) == pytest.approx(want, abs=1e-3)
    assert evalues._best_null(a, b, d) >= want - 1e-9


def test_the_change_scales_with_the_probability_of_the_token():
    """The same outcomes say less of a token that is drawn nearly always: it can move p by 1 - pi at most."""
    t, o = Stream(20, 20), Stream(20, 4)
    rare, usual = (log_e_change(t, o, 0.1, (p, p)) for p in (0.1, 0.85))
    assert rare > math.log(1000)
    assert usual < rare
    assert log_e_change(t, o, 0.1, (0.95, 0.95)) == -math.inf


def test_an_unknown_probability_takes_part_in_the_test():
    t, o = Stream(30, 30), Stream(40, 8)
    known = log_e_change(t, o, 0.02, (0.3, 0.3))
    ranged = log_e_change(t, o, 0.02, (0.2, 0.5), (15, 35))
    blind = log_e_change(t, o, 0.02, (0.0, 1.0), (15, 35))
    assert known > ranged >= blind - 1e-9
    assert blind > math.log(20)
    # Where every draw may have been this token, no outcome can show that it matters.
    assert log_e_change(t, o, 0.02, (0.2, 1.0), (50, 0)) < 0


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
def test_a_confidence_sequence_holds_at_all_times_at_once(p):
    rng = np.random.default_rng(2)
    runs, missed = 200, 0
    for _ in range(runs):
        right = np.cumsum(rng.random(100) < p)
        missed += any(
            not low <= p <= high
            for n in range(1, 101, 3)
            for low, high in [interval(Stream(n, int(right[n - 1])))]
        )
    assert missed / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_intervals_narrow_and_know_their_ends():
    assert interval(Stream(0, 0)) == (0.0, 1.0)
    assert interval(Stream(0, 0, 1.0)) == (1.0, 1.0)
    low, high = interval(Stream(100, 50))
    assert 0.3 < low < 0.45
    assert 0.55 < high < 0.7
    assert interval(Stream(50, 0))[0] == 0.0
    assert interval(Stream(50, 50))[1] == 1.0
    wide = interval(Stream(20, 10))
    assert wide[0] < low
    assert high < wide[1]


def test_e_bh():
    assert e_bh([], 10, 0.05) == math.inf
    assert e_bh([math.log(199)], 10, 0.05) == math.inf
    assert e_bh([math.log(201)], 10, 0.05) == pytest.approx(math.log(200))
    # Two that would not do alone.
    assert e_bh([math.log(101)] * 2, 10, 0.05) == pytest.approx(math.log(100))


def test_e_bh_keeps_the_false_discovery_rate():
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(60):
        logs, truth = [], []
        for k in range(40):
            p, q = (0.95, 0.3) if k < 8 else (0.5, 0.5)
            *_, (a, b) = streams(rng, p, q, 60)
            logs.append(log_e_difference(a, b, 0.02))
            truth.append(k < 8)
        found = [t for x, t in zip(logs, truth) if x >= e_bh(logs, 40, 0.1)]
        shares.append(found.count(False) / max(1, len(found)))
        assert found.count(True) >= 4
    assert np.mean(shares) <= 0.1


def test_chance():
    assert chance(Stream(30, 30), Stream(30, 0), 0.5) > 0.99
    assert chance(Stream(30, 15), Stream(30, 15), 0.5) < 0.01
    assert chance(Stream(0, 0, 1.0), Stream(30, 30), 0.2) < 0.05
    assert chance(Stream(3, 3), Stream(3, 0), 1.01) == 0.0


# -- the bound under the sampling distribution -------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("top_p", [0.5, 0.9, 1.0])
def test_the_range_holds_the_probability_that_was_sampled(temperature, top_p):
    rng = np.random.default_rng(4)
    for _ in range(40):
        p = rng.dirichlet(np.full(20, rng.choice([0.05, 0.3, 1.0])))
        p = np.maximum(p, 1e-12) / np.maximum(p, 1e-12).sum()
        q = p ** (1 / temperature)
        q /= q.sum()
        order = np.argsort(-q)
        kept = order[: int(np.searchsorted(np.cumsum(q[order]), top_p)) + 1]
        q = np.where(np.isin(np.arange(20), kept), q, 0.0)
        q /= q.sum()
        for t in kept:
            low, high = sampling_range(float(np.log(p[t])), temperature, top_p, 20)
            assert low - 1e-9 <= q[t] <= high + 1e-9


def test_the_range_is_a_point_at_temperature_1():
    assert sampling_range(math.log(0.3), 1.0, 1.0, 100) == pytest.approx((0.3, 0.3))
    low, high = sampling_range(math.log(0.9), 2.0, 1.0, 100)
    assert low < 0.3, "hot sampling: the reported 0.9 bounds nothing like 0.1"
    assert high > 0.7


@pytest.mark.parametrize(
    ("logprob", "temperature", "top_p", "says"),
    [(-1.0, 0.0, 1.0, "temperature"), (-1.0, 1.0, 0.0, "top_p"), (0.5, 1.0, 1.0, "log-probability")],
)
def test_what_gives_no_bound_is_refused(logprob, temperature, top_p, says):
    with pytest.raises(ValueError, match=says):
        sampling_range(logprob, temperature, top_p, 10)


def test_surprises_multiply_probabilities():
    s = surprises([0.5, 0.2, 1.0])
    assert 1 - math.exp(s[0] - s[2]) == pytest.approx(0.9)
    assert s[3] == s[2]
