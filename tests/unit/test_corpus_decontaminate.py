import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phikit.corpus.decontaminate import EvalIndex, decontaminate
from phikit.text import ngrams

AGIEVAL = Path(__file__).parents[3] / "shared/data/benchmarks/decontamination/agieval.tar.gz"
QUESTION = (
    "A baker sells 24 loaves of bread each morning and half as many each afternoon. If every "
    "loaf costs 3 dollars, "
    "how many dollars does the baker earn in a week of six days?"
)
REFERENCES = [
    ("bread", QUESTION),
    ("rivers", "Name the longest river that flows through exactly four countries."),
]
FILLER = (
    "The morning was cold and nobody in the village had expected the visitors to come before noon that day. "
)


@pytest.mark.parametrize(
    "planted",
    [
        QUESTION,
        QUESTION.replace(" ", "\n"),
        QUESTION.upper(),
        QUESTION.replace(",", " --").replace(" a ", "  a\t"),
    ],
)
def test_a_planted_question_is_found_however_it_is_wrapped(planted):
    text = FILLER * 20 + planted + FILLER * 20
    (match,) = decontaminate([text], REFERENCES)
    assert (match.verdict, match.rule, match.item) == ("contaminated", "13-gram", "bread")
    assert match.ratio == 1.0
    assert text[slice(*match.span)] == planted[: match.span[1] - match.span[0]]
    assert planted.endswith(text[slice(*match.span)][-6:] + "?")


def test_clean_text_is_clean():
    (match,) = decontaminate([FILLER * 50], REFERENCES)
    assert match == type(match)()


def test_ratio_divides_by_the_smaller_side_and_thresholds_decide():
    words = [f"w{i}" for i in range(200)]
    item = " ".join(words[:36])  # 30 7-grams
    shared = " ".join(words[:12])  # 12 words: no 13-gram, 6 7-grams
    text = shared + " " + " ".join(f"x{i}" for i in range(300))
    for info, contaminated, verdict in [
        (0.1, 0.5, "partial"), (0.1, 0.2, "contaminated"), (0.2, 0.5, "clean"), (0.19, 0.2, "contaminated"),
    ]:  # fmt: skip
        (match,) = decontaminate([text], [("a", item)], info=info, contaminated=contaminated)
        assert match.verdict == verdict
        if verdict != "clean":
            assert (match.rule, match.overlap, match.ratio) == ("7-gram", 6, 6 / 30)
            assert text[slice(*match.span)] == shared
    # The text is the smaller side: 14 words, 8 7-grams, 6 of them shared.
    (match,) = decontaminate([shared + " x y"], [("a", item)], info=0.5, contaminated=0.7)
    assert (match.verdict, match.ratio) == ("contaminated", 6 / 8)


def test_allowed_13_grams_do_not_count_but_7_grams_do():
    options = "A. I only B. II only C. III only D. I and II only E. I and III only"
    item = "Which of the laws of thermodynamics hold in an isolated system that exchanges nothing? " + options
    text = FILLER * 3 + options
    (match,) = decontaminate([text], [("thermo", item)], info=0.99, contaminated=1.0)
    assert match.verdict == "clean"
    (match,) = decontaminate([text], [("thermo", item)], allowed=())
    assert (match.verdict, match.rule) == ("contaminated", "13-gram")
    (match,) = decontaminate([text], [("thermo", item)], info=0.1, contaminated=0.9)
    assert (match.verdict, match.rule) == ("partial", "7-gram")


def test_repeating_a_7_gram_does_not_raise_the_ratio():
    item = " ".join(f"w{i}" for i in range(30))
    phrase = " ".join(f"w{i}" for i in range(7))
    text = " ".join(f"{phrase} x{i}" for i in range(40))
    (match,) = decontaminate([text], [("a", item)], info=0.01, contaminated=0.9)
    assert (match.overlap, match.ratio) == (1, 1 / 24)


def test_largest_ratio_wins_and_short_items_are_counted():
    words = [f"w{i}" for i in range(40)]
    references = [("long", " ".join(words)), ("short", " ".join(words[:9])), ("tiny", "w1 w2")]
    index = EvalIndex(references)
    (match,) = index.check(ngrams.words([" ".join(words[:9]) + " x y z" * 30]))
    assert (match.item, match.ratio, match.verdict) == ("short", 1.0, "contaminated")
    assert index.too_short == 1


def test_nothing_crosses_from_one_text_to_the_next():
    half = len(QUESTION.split()) // 2
    texts = [
        " ".join(QUESTION.split()[:12]),
        " ".join(QUESTION.split()[12:24]),
        " ".join(QUESTION.split()[half:]),
    ]
    matches = decontaminate([FILLER + t for t in texts], REFERENCES, info=0.99, contaminated=1.0)
    assert [m.rule for m in matches] == ["", "", "13-gram"]


def test_small_pair_batches_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(2)]
    items = [(str(i), " ".join(rng.choice(vocabulary, 20))) for i in range(60)]
    texts = [" ".join(rng.choice(vocabulary, rng.integers(0, 40))) for _ in range(80)]
    whole = decontaminate(texts, items, info=0.0, contaminated=0.1)
    monkeypatch.setattr("phikit.corpus.decontaminate._PAIRS", 3)
    assert decontaminate(texts, items, info=0.0, contaminated=0.1) == whole
    assert sum(m.verdict == "contaminated" for m in whole) > 5


WORD = st.sampled_from([f"w{i}" for i in range(5)])


@settings(max_examples=60)
@given(st.lists(WORD, max_size=40), st.lists(st.lists(WORD, max_size=30), max_size=4))
def test_equals_the_rule_written_with_strings(text, items):
    def grams(words, n):
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    references = [(str(i), " ".join(item)) for i, item in enumerate(items)]
    (match,) = decontaminate([" ".join(text)], references, info=0.2, contaminated=0.5)
    if any(grams(text, 13) & grams(item, 13) for item in items):
        expected = "contaminated", "13-gram"
    else:
        ratios = [
            len(grams(text, 7) & grams(i, 7)) / max(min(len(grams(text, 7)), len(grams(i, 7))), 1)
            for i in items
        ]
        best = max(ratios, default=0)
        expected = ("contaminated" if best >= 0.5 else "partial", "7-gram") if best > 0.2 else ("clean", "")
        if expected[1]:
            assert match.ratio == best
            assert int(match.item) == ratios.index(best)
    assert (match.verdict, match.rule) == expected


def test_thresholds_out_of_order_are_an_error():
    with pytest.raises(ValueError, match=r"info 0\.6, contaminated 0\.5"):
        decontaminate(["a"], [], info=0.6, contaminated=0.5)


@pytest.mark.skipif(not AGIEVAL.exists(), reason="AGIEval archive not present")
def test_the_reports_worked_example():
    """Report appendix B.1 gives the 13-gram, 15 shared 7-grams and the ratio; the training text is worded
    here so that it agrees with the published figures (43 words, of which our split gives 37 7-grams)."""
    train = (
        "The average weight of 10 oarsmen in a boat is increased by some amount when one of the "
        "crew, who weighs 53 kg, "
        "is replaced by a new man who weighs 71 kg. What is the value of unknown variable X in kilograms?"
    )
    assert "one of the crew who weighs 53 kg is replaced by a new" in train.replace(",", "")
    references = []
    with tarfile.open(AGIEVAL) as archive:
        file = archive.extractfile("agieval/aqua-rat.jsonl")
        assert file
        with file:
            for number, line in enumerate(file):
                row = json.loads(line)
                references.append((str(number), "\n".join([row["question"], *row["options"]])))
    (match,) = decontaminate([train], references)
    assert (match.verdict, match.rule, match.overlap) == ("contaminated", "13-gram", 15)
    assert 0.39 <= match.ratio <= 0.41
    assert "oarsmen" in dict(references)[match.item]
    assert "one of the crew, who weighs 53 kg, is replaced by a new" in train[slice(*match.span)]
