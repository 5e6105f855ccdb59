"""Constraints on the form of an answer, and refusals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from phikit.verify.constraints import KINDS, keeps, sentences
from phikit.verify.refusal import admits_ignorance, declines, refuses

IFEVAL = Path(__file__).parents[3] / "shared" / "data" / "benchmarks" / "ifeval" / "input_data-half.jsonl.gz"

CASES = {  # kind -> (arguments, a text that keeps it, one that does not)
    "keywords:existence": ({"keywords": ["Oak", "a+b"]}, "an oak and a+b", "an oak and aab"),
    "keywords:frequency": ({"keyword": "tree", "frequency": 2, "relation": "at least"}, "tree, Tree", "tree"),
    "keywords:forbidden_words": ({"forbidden_words": ["art"]}, "a part of it", "Art is long"),
    "keywords:letter_frequency": (
        {"letter": "q", "let_frequency": 2, "let_relation": "less than"},
        "Quiet",
        "q Q",
    ),
    "language:response_language": (
        {"language": "de"},
        "Das ist ein ganz gewoehnlicher Satz in deutscher Sprache.",
        "This is a plain sentence in English.",
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": 2, "relation": "exactly"},
        "Dr. Lee paid 3.50 for it. She left.",
        "She left.",
    ),
    "length_constraints:number_words": (
        {"num_words": 3, "relation": "less than"},
        "two words",
        "now three words",
    ),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "one\n***\ntwo", "one\n***\n***\ntwo"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        'First.\n\n"Then" it ended.',
        "First.\n\nIt ended then.",
    ),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "[name] at [place]", "[name]"),
    "detectable_content:postscript": (
        {"postscript_marker": "P.S."},
        "Yes. P. S. Call me",
        "Yes. PS: call me",
    ),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* a\n- b", "* a\n**b** is bold"),
    "detectable_format:constrained_response": ({}, "My answer is maybe.", "Maybe."),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, "*a* and **b**", "* a\n* b"),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1\nx\nPart 2\ny",
        "Part one, Part two",
    ),
    "detectable_format:json_format": ({}, '```json\n{"a": [1]}\n```', '{"a": 1} done'),
    "detectable_format:title": ({}, "<<On trees>>\ntext", "<< >>\ntext"),
    "combination:two_responses": ({}, "yes******no", "yes******yes"),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi! Say hi."),
    "startend:end_checker": ({"end_phrase": "The end."}, 'It was. "The end."', "The end. Or not."),
    "startend:start_checker": ({"start_phrase": "Well,"}, "well, yes", "Oh well, yes"),
    "startend:quotation": ({}, ' "quoted" ', '"quoted" not'),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        "I like NASA",
        "nothing LOUD",
    ),
    "change_case:english_capital": ({}, "ALL OF IT 3", "ALL OF iT"),
    "change_case:english_lowercase": ({}, "all of it 3", "all of It"),
    "punctuation:no_comma": ({}, "no such sign; really", "one, two"),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_tells_kept_from_broken(kind):
    args, kept, broken = CASES[kind]
    assert keeps(kind, kept, **args) is True
    assert keeps(kind, broken, **args) is False
    assert keeps(kind, "  ", **args) is False


ADVERSARIAL = [  # what IFEval's own checkers decide
    ("keywords:existence", {"keywords": ["cat"]}, "concatenate", True),  # a part of a word counts
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate", True),  # here it does not
    ("keywords:frequency", {"keyword": "an", "frequency": 2, "relation": "at least"}, "banana", True),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": "at least"}, "no. #1", True),
    ("length_constraints:number_words", {"num_words": 4, "relation": "at least"}, "it's well-known", True),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One\ntwo\nthree", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***a***b***", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n\nb", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a ****** b", False),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "it"}, "x\n\nIt's so", True),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "it"}, "\n\nx\n\nit is", False),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "it"}, "it", False),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "[two\nlines]", False),
    ("detectable_content:number_placeholders", {"num_placeholders": 1}, "[]", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "x p. p. s: y", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "the U.S.P.S. is", True),  # anywhere
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "---", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "1. a\n2. b\n  * c", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "*\n* b", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "**a**", False),  # once
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "* *", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "2*3*4", True),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
     "Section1 Section  2", False),  # one blank at most
    ("detectable_format:json_format", {}, "```JSON\n[1]```", True),
    ("detectable_format:json_format", {}, "{'a': 1}", False),
    ("detectable_format:json_format", {}, "[" * 100_000, False),
    ("detectable_format:title", {}, "<<a>> <<b>>", True),
    ("detectable_format:title", {}, "<<two\nlines>>", False),
    ("detectable_format:title", {}, "<<<>>>", False),
    ("combination:two_responses", {}, "a******b******", True),
    ("combination:two_responses", {}, "a************b", False),
    ("combination:two_responses", {}, "a****** a ", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": " Do IT. "}, "\ndo it. done", True),
    ("startend:end_checker", {"end_phrase": "Bye"}, 'x "bye"', True),
    ("startend:end_checker", {"end_phrase": "Bye"}, "x bye.", False),
    ("startend:quotation", {}, '"', False),
    ("startend:quotation", {}, "\u201cquoted\u201d", False),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "at least"}, "U.S.A. x", True),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 2, "capital_relation": "at least"}, "WELL-KNOWN", False),
    ("change_case:english_lowercase", {}, "123", False),  # no letter at all
    ("punctuation:no_comma", {}, "1\uff0c000", True),  # another script's comma
]  # fmt: skip


@pytest.mark.parametrize(("kind", "args", "text", "kept"), ADVERSARIAL)
def test_odd_answers_are_decided_as_in_ifeval(kind, args, text, kept):
    assert keeps(kind, text, **args) is kept


def test_unknown_kinds_and_arguments_are_errors():
    with pytest.raises(ValueError, match="no constraint 'size'"):
        keeps("size", "x")
    with pytest.raises(ValueError, match="number_words"):
        keeps("length_constraints:number_words", "x", words=3)
    with pytest.raises(ValueError, match="relation"):
        keeps("length_constraints:number_words", "x", num_words=3, relation="about")


def test_sentences():
    assert sentences("One. Two! Three?") == ["One.", "Two!", "Three?"]
    assert len(sentences("Mr. Smith pays 3.5 (e.g. today). Really.")) == 2
    assert len(sentences("a line\nthat goes on. Another")) == 2
    assert len(sentences('He said "Go." J. R. Smith went.')) == 2
    assert sentences("...") == []


def test_all_kinds_and_arguments_of_ifeval_are_known():
    if not IFEVAL.exists():
        pytest.skip("IFEval is not here")
    seen = set()
    with gzip.open(IFEVAL, "rt") as f:
        for line in f:
            row = json.loads(line)
            for kind, args in zip(row["instruction_id_list"], row["kwargs"]):
                assert keeps(kind, "some text", **args) in (True, False)
                seen.add(kind)
    assert len(seen) == 25
    assert set(KINDS) - seen == {"startend:start_checker"}


@pytest.mark.parametrize(
    ("text", "ignorant", "declined"),
    [
        ("I do not know.", True, False),
        ("I\u2019m not sure who that is.", True, False),
        ("I am not familiar with Nora Fend.", True, False),
        ("I have no information about her.", True, False),
        ("I couldn't find anything on that name.", True, False),
        ("I cannot help with that.", False, True),
        ("I'm sorry, but I can't assist with this request.", False, True),
        ("I must decline.", False, True),
        ("Paris.", False, False),
        ("You do not know him? He is a painter.", False, False),
        ("Nobody can help it: the answer is 5.", False, False),
        ("She was born in 1900. She wrote two novels. I am not sure of their titles.", False, False),
    ],
)
def test_refusals(text, ignorant, declined):
    assert admits_ignorance(text) is ignorant
    assert declines(text) is declined
    assert refuses(text) is (ignorant or declined)
