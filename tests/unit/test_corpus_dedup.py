import numpy as np
import pytest

from phikit.corpus.dedup import exact_twins, near_twins
from phikit.text import ngrams


def make(rng, n):
    return list(rng.choice([f"w{i}" for i in range(5000)], n))


def edit(rng, words, k):
    words = list(words)
    for i in rng.choice(len(words), k, replace=False):
        words[i] = f"edited{i}"
    return words


def test_exact_twins_ignore_blanks_only():
    assert exact_twins(["a  b", "c", "a\nb", "A b", "c "]).tolist() == [0, 1, 0, 3, 1]


def test_near_duplicates_join_their_first_and_others_stay():
    rng = np.random.default_rng(1)
    base = [make(rng, 400) for _ in range(100)]
    texts = [" ".join(b) for b in base]
    texts += [" ".join(edit(rng, b, 3)) for b in base]  # at most 15 of 396 shingles differ: Jaccard >= 0.92
    twins = near_twins(ngrams.words(texts))
    assert twins[:100].tolist() == list(range(100))
    assert (twins[100:] == np.arange(100)).mean() == 1.0


def test_candidates_below_the_threshold_are_kept():
    rng = np.random.default_rng(2)
    base = [make(rng, 400) for _ in range(60)]
    other = [edit(rng, b, 20) for b in base]

    def jaccard(a, b):
        x, y = ({tuple(t[i : i + 5]) for i in range(len(t) - 4)} for t in (a, b))
        return len(x & y) / len(x | y)

    exact = [jaccard(a, b) for a, b in zip(base, other)]
    assert max(exact) < 0.8
    assert min(exact) > 0.5  # near enough for many to share a band: only the check keeps them apart
    texts = [" ".join(t) for t in base + other]
    assert near_twins(ngrams.words(texts), 0.8).tolist() == list(range(120))
    found = near_twins(ngrams.words(texts), min(exact) - 0.01)
    assert (found[60:] == np.arange(60)).mean() > 0.5


def test_a_chain_is_one_group_with_the_first_as_survivor():
    rng = np.random.default_rng(3)
    chain = [make(rng, 300)]
    for _ in range(6):
        chain.append(edit(rng, chain[-1], 3))
    texts = ["an unrelated text with rather few words in it", *(" ".join(c) for c in chain)]
    assert near_twins(ngrams.words(texts)).tolist() == [0] + [1] * 7


def test_large_buckets_and_short_texts():
    texts = ["one two"] * 3 + ["the same licence text in every file of a project " * 3] * 100
    twins = near_twins(ngrams.words(texts))
    assert twins.tolist() == [0, 1, 2] + [3] * 100  # fewer than 5 words: left to the exact step


def test_bad_threshold_and_nothing():
    with pytest.raises(ValueError, match=r"\(0, 1\], got 0"):
        near_twins(ngrams.words(["a"]), 0)
    assert near_twins(ngrams.words([])).tolist() == []
