import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phikit.corpus import gram_table
from phikit.corpus.gram_table import GramTable

# Few values, so that items share them, and hashes that differ in their last bits alone: one full bucket.
GRAMS = st.sampled_from([0, 1, 2, 3, (1 << 64) - 1, 1 << 63, *(7 << 40 | i for i in range(12))])


def table(pairs: list[tuple[int, int]]) -> GramTable:
    pairs = sorted(set(pairs), key=lambda p: p[1])
    return GramTable.of(np.array([g for g, _ in pairs], np.uint64), np.array([i for _, i in pairs], np.int64))


@settings(deadline=None)
@given(st.lists(st.tuples(GRAMS, st.integers(0, 5)), max_size=40), st.lists(GRAMS, max_size=30))
def test_finds_what_a_dict_finds(pairs, asked):
    items: dict[int, list[int]] = {}
    for gram, item in sorted(set(pairs), key=lambda p: p[1]):
        items.setdefault(gram, []).append(item)
    t = table(pairs)
    at, left, right = t.find(np.array(asked, np.uint64))
    assert at.tolist() == [k for k, g in enumerate(asked) if g in items]
    assert [t.items[a:b].tolist() for a, b in zip(left, right)] == [items[g] for g in asked if g in items]


@pytest.mark.parametrize("block", [1, 100, 1 << 15])
def test_many_grams_in_blocks(monkeypatch, block):
    monkeypatch.setattr(gram_table, "_BLOCK", block)
    rng = np.random.default_rng(0)
    known = rng.integers(0, 1 << 64, 5000, np.uint64)
    t = GramTable.of(known, np.arange(5000))
    asked = np.concatenate([rng.integers(0, 1 << 64, 3000, np.uint64), known[::7]])
    at, left, right = t.find(asked)
    assert at.tolist() == list(range(3000, len(asked)))
    assert t.items[left].tolist() == list(range(0, 5000, 7))
    assert (right - left == 1).all()


def test_the_filter_lets_few_others_through():
    rng = np.random.default_rng(1)
    t = GramTable.of(rng.integers(0, 1 << 64, 50_000, np.uint64), np.arange(50_000))
    through = len(t._maybe(rng.integers(0, 1 << 64, 100_000, np.uint64)))
    assert through < 100_000 / 16
    assert t.seen.nbytes <= 4 * 50_000
