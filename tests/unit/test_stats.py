"""Intervals against values known from elsewhere, and their coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phikit import stats


def test_wilson_known_values():
    e = stats.share(8, 10)
    assert (e.value, e.n, e.clusters, e.method) == (0.8, 10, 10, "wilson")
    assert e.low == pytest.approx(0.4901625, abs=1e-6)
    assert e.high == pytest.approx(0.9433178, abs=1e-6)
    assert stats.share(0, 20).low == 0
    assert stats.share(0, 20).high == pytest.approx(0.1611252, abs=1e-6)
    assert (stats.share(0, 0).low, stats.share(0, 0).high) == (0, 1)


@pytest.mark.parametrize(
    ("dof", "value"),
    [(1, 12.706), (2, 4.303), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423), (999, 1.9623)],
)
def test_student_t(dof, value):
    assert stats.student_t95(dof) == pytest.approx(value, rel=2e-3)


def test_mean_of_known_numbers():
    e = stats.mean([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * math.sqrt(5 / 3 / 4)
    assert e.value == 2.5
    assert e.high - e.value == pytest.approx(half, rel=5e-3)


def test_copies_of_a_row_add_nothing_to_a_clustered_mean():
    x = [0.2, 0.9, 0.4, 0.7, 0.1]
    once = stats.mean(x, range(5))
    four = stats.mean([v for v in x for _ in range(4)], [i for i in range(5) for _ in range(4)])
    assert (four.low, four.high) == pytest.approx((once.low, once.high))
    assert (four.n, four.clusters) == (20, 5)
    assert stats.mean([v for v in x for _ in range(4)]).low > four.low


def test_clustered_share_of_copies_is_no_narrower_than_its_clusters():
    x = [1, 0, 0, 1, 0, 0, 0, 1, 0, 0] * 5
    once = stats.share(15, 50)
    four = stats.clustered_share([v for v in x for _ in range(4)], [i for i in range(50) for _ in range(4)])
    assert four.value == pytest.approx(0.3)
    assert four.high - four.low == pytest.approx(once.high - once.low, rel=0.05)


def test_clustered_share_keeps_a_width_where_all_agree():
    e = stats.clustered_share([0.0] * 400, [i // 4 for i in range(400)])
    assert e.low == 0
    assert e.high == pytest.approx(stats.share(0, 100).high, rel=0.05)
    draws = stats.clustered_share([0.5] * 100, range(100))
    assert draws.low < 0.45
    assert draws.high > 0.55


def test_share_of_is_wilson_where_rows_are_independent():
    assert stats.share_of([1.0, 0.0, 1.0], "abc") == stats.share(2, 3)
    assert stats.share_of([1.0, 0.0, 1.0], "aab") == stats.clustered_share([1.0, 0.0, 1.0], "aab")
    assert stats.share_of([0.5, 0.0, 1.0], "abc") == stats.clustered_share([0.5, 0.0, 1.0], "abc")
    assert stats.share_of([], "") == stats.share(0, 0)


def test_clustered_share_refuses_what_is_no_share():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        stats.clustered_share([0.5, 1.5], [0, 1])


def test_ratio_is_the_ratio_of_sums():
    e = stats.ratio([10.0, 30.0], [5.0, 10.0])
    assert e.value == pytest.approx(40 / 15)
    assert e.low < e.value < e.high
    exact = stats.ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0])
    assert (exact.low, exact.high) == pytest.approx((2.0, 2.0))
    with pytest.raises(ValueError, match="positive"):
        stats.ratio([1.0], [0.0])


def test_paired_is_narrower_than_two_means_of_correlated_rows():
    rng = np.random.default_rng(0)
    base = rng.normal(size=200)
    a, b = base + 0.1 + 0.05 * rng.normal(size=200), base + 0.05 * rng.normal(size=200)
    e = stats.paired(a, b)
    assert e.low > 0
    assert e.high - e.low < (stats.mean(a).high - stats.mean(a).low) / 5
    assert e.method == "paired-mean"
    with pytest.raises(ValueError, match="equal rows"):
        stats.paired([1.0], [])


def test_mcnemar_known_values():
    a = [1] * 8 + [0] * 2 + [1] * 5 + [0] * 5
    b = [0] * 8 + [1] * 2 + [1] * 5 + [0] * 5
    assert stats.mcnemar(a, b) == pytest.approx(0.109375)  # 2 * P(X <= 2), X ~ B(10, 1/2)
    assert stats.mcnemar([1, 0], [1, 0]) == 1.0
    assert stats.mcnemar([1] * 2000, [0] * 2000) < 1e-300
    with pytest.raises(ValueError, match="0 and 1"):
        stats.mcnemar([0.5], [1.0])


def _coverage(estimate, truth: float, draws: int = 800) -> float:
    return sum(e.low <= truth <= e.high for e in (estimate(k) for k in range(draws))) / draws


@pytest.mark.parametrize("p", [0.02, 0.2, 0.6])
def test_wilson_covers(p):
    rng = np.random.default_rng(1)
    hits = rng.binomial(300, p, size=800)
    assert 0.93 <= _coverage(lambda k: stats.share(int(hits[k]), 300), p) <= 0.97


@pytest.mark.parametrize("p", [0.01, 0.04, 0.2, 0.85])
def test_clustered_share_covers_where_wilson_does_not(p):
    """150 problems x 4 samples whose success rate differs by problem (beta, mean p)."""
    rng = np.random.default_rng(2)
    ids = np.repeat(np.arange(150), 4).tolist()
    rows = rng.binomial(1, np.repeat(rng.beta(0.5 * p, 0.5 * (1 - p), size=(800, 150)), 4, axis=1))
    good = _coverage(lambda k: stats.clustered_share(rows[k].tolist(), ids), p)
    naive = _coverage(lambda k: stats.share(int(rows[k].sum()), 600), p)
    assert (0.9 if p == 0.01 else 0.93) <= good <= 0.97  # 0.01: one or two clusters with any success
    assert naive < 0.88


def test_paired_clusters_cover():
    """Two checkpoints, 150 problems x 4 samples, a true difference of 5 points, correlated by problem."""
    rng = np.random.default_rng(3)
    ids = np.repeat(np.arange(150), 4).tolist()
    rate = np.repeat(rng.beta(1, 2, size=(800, 150)) * 0.9, 4, axis=1)
    b = rng.binomial(1, rate)
    a = rng.binomial(1, np.clip(rate + 0.05, 0, 1))
    covered = _coverage(lambda k: stats.paired(a[k].tolist(), b[k].tolist(), ids), 0.05)
    assert 0.93 <= covered <= 0.97


def test_ratio_covers():
    """40 documents of unequal length whose cost per byte differs: bits per byte over all of them."""
    rng = np.random.default_rng(4)
    size = rng.lognormal(6, 0.8, size=(800, 40))
    bits = size * (2.0 + 0.3 * rng.normal(size=size.shape))
    assert 0.91 <= _coverage(lambda k: stats.ratio(bits[k], size[k]), 2.0) <= 0.97


def test_two_way_is_the_item_interval_where_runs_do_not_differ():
    rng = np.random.default_rng(0)
    x = rng.random((50, 5))
    x -= x.mean(axis=0)  # equal run means
    items, runs = np.repeat(range(50), 5), np.tile(range(5), 50)
    both = stats.two_way(x.ravel(), items, runs)
    one = stats.mean(x.ravel(), items)
    assert (both.low, both.high) == pytest.approx((one.low, one.high), rel=1e-2)
    shifted = stats.two_way((x + np.array([0, 1, 2, 3, 4])).ravel(), items, runs)
    assert shifted.high - shifted.low > 2 * (both.high - both.low)


@pytest.mark.parametrize(("of_items", "of_runs"), [(1.0, 0.0), (1.0, 0.3), (0.2, 0.5)])
def test_two_way_covers(of_items, of_runs):
    """Five runs whose examples are dealt anew, 60 items: the interval holds the mean of all items and runs."""
    rng, hit, n = np.random.default_rng(1), 0, 600
    items, runs = np.repeat(range(60), 5), np.tile(range(5), 60)
    for _ in range(n):
        x = rng.normal(0, of_items, (60, 1)) + rng.normal(0, of_runs, (1, 5)) + rng.normal(0, 1, (60, 5))
        e = stats.two_way(x.ravel(), items, runs)
        hit += e.low <= 0 <= e.high
    assert hit / n >= 0.93


def test_jackknife_of_a_mean_is_the_clustered_mean():
    rng = np.random.default_rng(2)
    x, clusters = rng.random(80), np.arange(80) // 4
    a, b = stats.jackknife(lambda m: m[0], x[:, None], clusters), stats.mean(x, clusters)
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), rel=1e-6)


def test_jackknife_covers_an_f1_of_shares():
    rng, hit, n = np.random.default_rng(3), 0, 400

    def f1(m):
        tried = m[0] + m[1]
        given = m[0] / tried if tried else 0.0
        return 2 * given * m[0] / (given + m[0]) if given + m[0] else 0.0

    true = f1(np.array([0.3, 0.4]))
    for _ in range(n):
        drawn = rng.choice(3, 300, p=[0.3, 0.4, 0.3])
        e = stats.jackknife(f1, np.stack([drawn == 0, drawn == 1], axis=1), range(300))
        hit += e.low <= true <= e.high
    assert 0.92 <= hit / n <= 0.98


def test_detectable_differences_are_detected_four_times_in_five():
    rng, hit, n, size = np.random.default_rng(4), 0, 600, 200
    a, b = rng.random(size), rng.random(size)
    effect = stats.detectable(stats.paired(a, b))
    for _ in range(n):
        a, b = rng.random(size), rng.random(size)
        hit += stats.paired(a + effect, b).low > 0
    assert 0.75 <= hit / n <= 0.85


@pytest.mark.parametrize(
    ("only_a", "only_b", "n"), [(0.0, 0.0, 100), (0.02, 0.02, 100), (0.15, 0.05, 60), (0.3, 0.3, 40)]
)
def test_paired_shares_cover(only_a, only_b, n):
    rng, hit = np.random.default_rng(5), 0
    for _ in range(500):
        cell = rng.choice(3, n, p=[only_a, only_b, 1 - only_a - only_b])
        e = stats.paired_shares((cell == 0).astype(float), (cell == 1).astype(float))
        hit += e.low <= only_a - only_b <= e.high
    assert hit / 500 >= 0.935
    same = stats.paired_shares([1.0] * n, [1.0] * n)
    assert same.value == 0
    assert same.low < 0 < same.high


def test_difference_of_independent_shares_is_newcombes():
    """Newcombe (1998), method 10: 56 of 70 against 48 of 80 has 0.0524 to 0.3339."""
    e = stats.difference(stats.share(56, 70), stats.share(48, 80))
    assert (e.value, e.low, e.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert (e.n, e.clusters) == (150, 150)


def test_difference_of_symmetric_intervals_adds_squares():
    a, b = stats.Estimate(5.0, 2.0, 8.0, 9, 9, "x"), stats.Estimate(1.0, -3.0, 5.0, 9, 9, "x")
    e = stats.difference(a, b)
    assert (e.low, e.high) == (-1.0, 9.0)
