"""Items with other numbers in them."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phikit.corpus.allow import common_phrases
from phikit.corpus.decontaminate import NUMBERS, EvalIndex, decontaminate
from phikit.corpus.numbers_alike import OTHERS, N
from phikit.text import ngrams

ITEM = (
    "A baker sells 24 loaves of bread in 3 hours and 2 of 5 customers pay 4 dollars for each of 7 loaves they take "
    "home on 6 days; what does the baker earn in 9 weeks of 5 days?"
)
FILLER = (
    "The morning was cold and nobody in the village had expected visitors to come before noon on that day. "
)


def renumbered(text: str, seed: int = 0) -> str:
    rng = random.Random(seed)
    return re.sub(r"\d+", lambda m: str(rng.randint(10, 99)), text)


def test_an_item_with_other_numbers_is_partial_or_where_asked_for_contaminated():
    text = FILLER * 5 + renumbered(ITEM) + FILLER * 5
    (match,) = decontaminate([text], [("bread", ITEM)])
    assert (match.verdict, match.rule, match.item) == ("partial", NUMBERS, "bread")
    assert match.ratio > 0.9
    assert renumbered(ITEM).startswith(text[slice(*match.span)][:60])
    (asked,) = decontaminate([text], [("bread", ITEM)], numbers=True)
    assert asked.verdict == "contaminated"
    assert asked.shown() == f"{match.overlap} 13-grams with numbers alike, ratio {match.ratio:.3f}"
    (far,) = decontaminate([text], [("bread", ITEM)], info=0.99, contaminated=1.0, numbers=True)
    assert far.verdict in ("clean", "contaminated")


def test_the_item_itself_is_found_by_the_reports_rule():
    (match,) = decontaminate([FILLER + ITEM], [("bread", ITEM)], numbers=True)
    assert (match.verdict, match.rule) == ("contaminated", "13-gram")


@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"{i} plus {i + 1} is {2 * i + 1}," for i in range(40)),  # too few other words in each
        "\n".join(f"Table {i}. Page {i * 7} of {i * 9}: {i}" for i in range(40)),
        FILLER * 10,
        "",
        "12",
    ],
)
def test_sums_and_tables_are_no_evidence(text):
    (match,) = decontaminate([renumbered(text, 1)], [("a", renumbered(text, 2)), ("bread", ITEM)])
    assert match.rule != NUMBERS


def test_a_family_of_items_made_from_one_form_is_no_evidence():
    form = "Mia has {} red apples and Tom gives her {} more of them; how many does Mia have in the end?"
    family = [(str(i), form.format(i, i + 3)) for i in range(20)]
    text = FILLER + form.format(77, 99) + FILLER
    (alone,) = decontaminate([text], family[:1], numbers=True)
    (many,) = decontaminate([text], family, numbers=True)
    assert alone.rule == NUMBERS
    assert many.rule != NUMBERS


def test_phrases_of_trusted_texts_are_allowed_with_any_numbers():
    trusted = [renumbered(ITEM, seed) for seed in range(3, 6)]
    index = EvalIndex([("bread", ITEM)], common=common_phrases(trusted))
    (match,) = index.check(ngrams.words([renumbered(ITEM, 9)]), numbers=True)
    assert match.rule != NUMBERS


def test_an_index_on_disk_finds_the_same(tmp_path):
    texts = [FILLER + renumbered(ITEM, i) for i in range(5)] + [FILLER, ITEM]
    index = EvalIndex([("bread", ITEM), ("other", FILLER.replace("cold", "7"))])
    index.save(tmp_path / "index.npz")
    w = ngrams.words(texts)
    assert EvalIndex.load(tmp_path / "index.npz").check(w, numbers=True) == index.check(w, numbers=True)


WORD = st.sampled_from(["a", "b", "c", "d", "1", "2", "33"])
OTHER = {"1": "2", "2": "33", "33": "1"}
PIECE = st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(5, 40), st.booleans())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(WORD, min_size=12, max_size=40), min_size=3, max_size=3), st.lists(PIECE, max_size=3)
)
def test_equals_the_rule_written_with_strings(items, pieces):
    """Texts are made of parts of items, with other numbers in some."""
    text = [
        OTHER.get(w, w) if change else w
        for item, first, size, change in pieces
        for w in [*items[item][first : first + size], "between"]
    ]

    def grams(words, n):
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    def alike(words):
        found = grams(["#" if w.isdigit() else w for w in words], N)
        return {g for g in found if 0 < g.count("#") <= N - OTHERS}

    references = [(str(i), " ".join(item)) for i, item in enumerate(items)]
    (exact,) = decontaminate([" ".join(text)], references, info=0.2, contaminated=0.5, allowed=())
    (match,) = decontaminate(
        [" ".join(text)], references, info=0.2, contaminated=0.5, allowed=(), numbers=True
    )
    if any(grams(text, 13) & grams(item, 13) for item in items):
        assert match.rule == "13-gram"
        return
    share = [len(alike(text) & alike(i)) / max(min(len(alike(text)), len(alike(i))), 1) for i in items]
    seven = [
        len(grams(text, 7) & grams(i, 7)) / max(min(len(grams(text, 7)), len(grams(i, 7))), 1) for i in items
    ]
    best, other = max(share, default=0), max(seven, default=0)
    if other >= 0.5 or best <= max(0.2, other if other > 0.2 else 0):
        assert match.rule in ("", "7-gram")
    else:
        assert (match.rule, match.ratio, match.item) == (NUMBERS, best, str(share.index(best)))
        assert match.verdict == ("contaminated" if best >= 0.5 else "partial")
        assert exact.verdict == "partial"
