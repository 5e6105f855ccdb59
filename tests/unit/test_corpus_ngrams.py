import re
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from phikit.text import ngrams


def spans(w, text, d=0):
    a, b = w.offsets[d], w.offsets[d + 1]
    return [text[i:j] for i, j in zip(w.starts[a:b], w.ends[a:b])]


LATIN = st.text(st.characters(max_codepoint=0x5FF) | st.sampled_from(" \n.,_-"), max_size=60)


@settings(deadline=None)  # the first call makes the table of characters
@given(st.lists(LATIN, max_size=5))
def test_words_are_what_the_regex_finds(texts):
    w = ngrams.words(texts)
    assert len(w) == len(texts)
    for d, text in enumerate(texts):
        assert spans(w, text, d) == re.findall(r"\w+", text)


@given(st.lists(LATIN, min_size=1, max_size=4), st.integers(1, 8))
def test_ngrams_of_a_batch_are_those_of_each_text(texts, n):
    grams, offsets = ngrams.ngrams(ngrams.words(texts), n)
    for d, text in enumerate(texts):
        alone, _ = ngrams.ngrams(ngrams.words([text]), n)
        assert grams[offsets[d] : offsets[d + 1]].tolist() == alone.tolist()
        assert len(alone) == max(len(re.findall(r"\w+", text)) - n + 1, 0)


def test_case_line_breaks_and_punctuation_change_nothing():
    a, b = (
        ngrams.words(["The mean weight, 1.8 kg, of TEN men"]),
        ngrams.words(["the mean\nweight 1 8 kg\tof ten\n\nmen"]),
    )
    assert a.ids.tolist() == b.ids.tolist()
    assert len(set(a.ids.tolist())) == 9


def test_order_of_words_and_of_letters_matters():
    ids = ngrams.words(["ab ba aab aba baa a aa"]).ids
    assert len(set(ids.tolist())) == 7
    one, two = (ngrams.ngrams(ngrams.words([t]), 2)[0][0] for t in ("red fish", "fish red"))
    assert one != two


def test_scripts_without_spaces_give_a_word_a_character():
    text = "东京は大きい x1"
    assert spans(ngrams.words([text]), text) == [*"东京は大きい", "x1"]


def test_batches_do_not_change_the_ids(monkeypatch):
    texts = [f"text number {i} with its own words {i * i}" for i in range(50)]
    whole = ngrams.words(texts)
    monkeypatch.setattr(ngrams, "BATCH_CHARACTERS", 64)
    parts = ngrams.words(texts)
    assert np.array_equal(whole.ids, parts.ids)
    assert np.array_equal(whole.offsets, parts.offsets)
    assert np.array_equal(whole.ends, parts.ends)


def test_ids_are_stable_across_releases():
    # Stored signatures depend on these: a change must be made on purpose.
    assert [hex(i) for i in ngrams.words(["phi Ä"]).ids.tolist()] == [
        "0x38d07301e0d1e10c",
        "0xc21416a12d6652a1",
    ]


def test_take_and_distinct():
    w = ngrams.words(["a b c", "", "d e", "a a b a"])
    t = w.take([3, 1, 0])
    assert np.diff(t.offsets).tolist() == [4, 0, 3]
    assert t.ids[4:].tolist() == w.ids[:3].tolist()
    grams, offsets = ngrams.distinct(*ngrams.ngrams(t, 1))
    assert np.diff(offsets).tolist() == [2, 0, 3]
    assert all(np.all(np.diff(grams[i:j].astype(object)) > 0) for i, j in pairwise(offsets))


def test_no_texts():
    w = ngrams.words([])
    assert len(w) == 0
    assert ngrams.ngrams(w, 13)[0].tolist() == []


def mix(x: int) -> int:
    """splitmix64's finalizer."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def power(k: int) -> int:
    return mix((k + 1) * 0x9E3779B97F4A7C15 % 2**64) | 1


def test_ids_and_runs_are_those_of_the_definition():
    found = ["a", "Na\u00efve", "x" * 31, "y" * 32, "z" * 33, "Long" * 300, "\U0001d7d8b", "end"]
    w = ngrams.words([" ".join(found[:5]) + " \U0010ffff", "\n".join(found[5:])])
    ids = [mix(sum(mix(ord(c.lower()[0]) + 1) * power(k) for k, c in enumerate(t)) + len(t)) for t in found]
    assert w.ids.tolist() == [i % 2**64 for i in ids]
    runs = [mix(sum(i * power(j) for j, i in enumerate(ids[a : a + 3]))) for a in range(len(ids) - 2)]
    assert ngrams.runs(w.ids, 3).tolist() == runs
    assert ngrams.runs_at(w.ids, np.array([4, 0]), 3).tolist() == [runs[4], runs[0]]
    assert ngrams.runs(w.ids, 9).tolist() == []


def test_runs_longer_than_a_block(monkeypatch):
    ids = np.random.default_rng(0).integers(0, 1 << 64, 1000, np.uint64)
    whole = ngrams.runs(ids, 7)
    monkeypatch.setattr(ngrams, "_BLOCK", 64)
    assert np.array_equal(ngrams.runs(ids, 7), whole)


def test_numbers_are_digits_alone_and_alike():
    w = ngrams.words(["In 1999, x2 cost 3.50 and 2nd ٣٤ ½", "in 7, x2 cost 1.1 and 2nd 5 ½", "", "12"])
    shown = [bool(n) for n in w.numbers]
    assert shown[:9] == [False, True, False, False, True, True, False, False, True]
    assert not shown[9]
    ids = w.alike()
    half = w.offsets[1]
    assert (ids[:half] == ids[half : 2 * half]).all()
    assert ids[-1] == ids[1]
    assert w.take([3]).numbers.tolist() == [True]
