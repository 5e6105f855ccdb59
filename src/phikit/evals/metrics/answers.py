"""Graders of short answers: patterns, exact match, word overlap, mathematics."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

from phikit.evals.task import Answer, Grade, Graded, Item
from phikit.verify import Verdict, check, math_answer, text

_ANSWER = re.compile(r"(?i)Answer\s*:\s*([^\n]+)")
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def verdict(metric: str, found: Verdict, said: str | None = None) -> Graded:
    return Graded({metric: float(found is Verdict.right)}, found.value, said or "")


def letter(letters: str = "ABCD") -> Grade:
    """Metric `acc`: the letter after the first "Answer:", as simple-evals reads it (bold marks are read over)."""
    pattern = re.compile(rf"(?i)Answer[ \t]*:[ \t]*\$?\(?([{letters}])(?![A-Za-z])")

    def grade(item: Item, answer: Answer) -> Graded:
        found = pattern.search(answer.text.replace("**", "").replace("\\boxed{", "").replace("\\text{", ""))
        if found is None:
            return verdict("acc", Verdict.unparsed)
        said = found[1].upper()
        return verdict("acc", Verdict.right if said == item.reference else Verdict.wrong, said)

    return grade


def math_line(item: Item, answer: Answer) -> Graded:
    """Metric `acc`: the first "Answer: ..." line (simple-evals), compared as mathematics by verify/math_answer."""
    found = _ANSWER.search(answer.text)
    if found is None:
        return verdict("acc", Verdict.unparsed)
    said = found[1].strip().rstrip(".").replace("**", "").strip()
    same = math_answer.equal(_bare(said), _bare(str(item.reference)))
    return verdict("acc", Verdict.right if same else Verdict.wrong, said)


def math_final(item: Item, answer: Answer) -> Graded:
    """Metric `acc`: the final answer of a solution in any form (verify/math_answer)."""
    said = math_answer.extract_answer(answer.text)
    if said is None:
        return verdict("acc", Verdict.unparsed)
    return verdict(
        "acc", Verdict.right if math_answer.equal(said, str(item.reference)) else Verdict.wrong, said
    )


def gsm8k(item: Item, answer: Answer) -> Graded:
    """Metrics `strict` (the number after "####") and `flexible` (the last number), compared as text without commas,
    dollar signs and a final point: lm-eval's two filters of gsm8k."""
    strict, numbers = _STRICT.search(answer.text), _NUMBER.findall(answer.text)
    last = next((x for x in numbers[-1] if x), "") if numbers else ""
    gold = _plain_number(str(item.reference))
    scores = {
        "strict": float(strict is not None and _plain_number(strict[1]) == gold),
        "flexible": float(bool(last) and _plain_number(last) == gold),
    }
    said = strict[1] if strict else last
    if scores["strict"]:
        return Graded(scores, "right", said)
    return Graded(scores, "wrong" if strict else "unparsed", said)


def short_answer(item: Item, answer: Answer) -> Graded:
    """Metric `exact`: one of the reference answers, case and punctuation apart (lm-eval's triviaqa)."""
    said = answer.text.strip()
    if not said:
        return verdict("exact", Verdict.unparsed)
    gold = {_folded(a) for a in item.reference}
    return verdict("exact", Verdict.right if _folded(answer.text) in gold else Verdict.wrong, said)


def exact(item: Item, answer: Answer) -> Graded:
    """Metric `exact`: SQuAD's normalized exact match with one of the references."""
    return _texts("exact", item, answer, lambda said, gold: float(text.exact_match(said, gold)))


def contains(item: Item, answer: Answer) -> Graded:
    """Metric `contains`: one of the references occurs in the answer, both normalized."""
    return _texts(
        "contains",
        item,
        answer,
        lambda said, gold: float(any(text.normalize(g) in text.normalize(said) for g in gold)),
    )


def word_f1(item: Item, answer: Answer) -> Graded:
    """Metric `f1`: SQuAD's word overlap with the nearest reference."""
    return _texts("f1", item, answer, text.f1)


def checked(kind: str) -> Grade:
    """Metric `acc`: phikit's own check of kind `math` or `choice` (verify/check.py)."""

    def grade(item: Item, answer: Answer) -> Graded:
        found = check(kind, answer.text, str(item.reference), options=len(item.choices) or 4)
        return verdict("acc", found)

    return grade


def mgsm(prefix: str) -> Grade:
    """Metric `acc`: the last number after the language's own "Answer" (simple-evals), equal to an integer."""

    def grade(item: Item, answer: Answer) -> Graded:
        if prefix not in answer.text:
            return verdict("acc", Verdict.unparsed)
        numbers = re.findall(r"\d+\.?\d*", answer.text.rpartition(prefix)[2].replace(",", ""))
        if not numbers:
            return verdict("acc", Verdict.unparsed)
        said = numbers[-1].rstrip(".")
        said = said.rstrip("0").rstrip(".") if "." in said else said
        return verdict("acc", Verdict.right if said == item.reference else Verdict.wrong, said)

    return grade


def _texts(metric: str, item: Item, answer: Answer, value: Callable[[str, Sequence[str]], float]) -> Graded:
    said = answer.text.strip()
    gold = [item.reference] if isinstance(item.reference, str) else [str(g) for g in item.reference]
    if not text.normalize(said):
        return Graded({metric: 0.0}, "unparsed")
    score = value(said, gold)
    return Graded({metric: score}, "right" if score == 1.0 else "wrong", said)


def _bare(answer: str) -> str:
    """Without the marks of inline mathematics around it."""
    for left, right in (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if answer.startswith(left) and answer.endswith(right) and len(answer) > len(left + right):
            answer = answer[len(left) : -len(right)].strip()
    return answer


def _plain_number(said: str) -> str:
    return re.sub(r"\.$", "", said.replace(",", "").replace("$", "")).lower()


def _folded(said: str) -> str:
    return said.lower().translate(_PUNCTUATION)
