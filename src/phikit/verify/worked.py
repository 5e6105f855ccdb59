"""The judge of the closed world: is a worked answer right, and how well is it worked? Deterministic, no
model.

Judged preference data and the `preference_wins` evaluation use this one rubric (in the place of the report's
GPT-4o judge, section 4.2), so a win means the same in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from phikit.verify import math_answer
from phikit.verify.verdict import Verdict

_NUMBER = r"\d{1,15}(?:\.\d{1,15})?"
_LEFT = re.compile(rf"(?<![\d.])-?{_NUMBER}(?:\s*[-+*/]\s*-?{_NUMBER})+\s*$")
_RESULT = re.compile(rf"\s*(-?{_NUMBER})(?!\d)")
_TERM = re.compile(rf"(^|[-+*/])\s*(-?{_NUMBER})")
_STATES = re.compile(r"\bthe answer is -?\d[\d,]*(?:\.\d+)?\.(?!\d)", re.IGNORECASE)
_REACH = 200  # characters before a "=" that can belong to its sum


@dataclass(frozen=True, slots=True)
class Worked:
    """`right`: None where no answer can be read. `stated`: ends with "The answer is N.". `points`: how well
    it is worked, whether right or not; higher is better."""

    right: bool | None
    sums_total: int
    sums_true: int
    stated: bool
    points: float


def points(text: str, answer: str) -> Worked:
    """The rubric on one completion (without its prompt) whose reference answer is `answer`.

    +2 where sums are written, all are true and one of them gives the answer; +1 where all are true but none
    gives it (a step was left out). +1 for ending with the stated form. +1 for no repetition. At most 1/2 for
    brevity, which so decides between answers that are equal in all else.
    """
    verdict = math_answer.judge(text, answer)
    found = sums(text)
    true = [holds for holds, _ in found]
    score = 0.0
    if found and all(true):
        reference = math_answer.parse_number(answer)
        reached = reference is not None and any(result == reference[0] for _, result in found)
        score += 2.0 if reached else 1.0
    ends = list(_STATES.finditer(text))
    stated = bool(ends) and not text[ends[-1].end() :].strip()
    score += stated
    score += not repeats(text)
    score += 0.5 / (1 + len(text) / 50)
    right = None if verdict is Verdict.unparsed else verdict is Verdict.right
    return Worked(right, len(found), sum(true), stated, score)


def prefer(a: Worked, b: Worked) -> float:
    """1 where a is the better answer, 0 where b is, 0.5 where neither: right beats wrong; of two right ones
    the better worked one wins; two wrong ones are equal, however they look."""
    if not (a.right and b.right):
        return 0.5 + 0.5 * (bool(a.right) - bool(b.right))
    return 0.5 if a.points == b.points else float(a.points > b.points)


def states_answer(text: str) -> bool:
    """Whether a completion holds a parseable "The answer is N."."""
    return _STATES.search(text) is not None


def sums(text: str) -> list[tuple[bool, Fraction | None]]:
    """(is it true, its written result or None) of every sum such as "12-3=9.".

    In a chain, "12-3=9+5=14", each "=" is one sum. An "=" without an operation before it is none; a sum
    without a result is not true.
    """
    found: list[tuple[bool, Fraction | None]] = []
    for equals in re.finditer("=", text):
        left = _LEFT.search(text[max(0, equals.start() - _REACH) : equals.start()])
        if left is None:
            continue
        match = _RESULT.match(text, equals.end())
        result = Fraction(match[1]) if match else None
        found.append((result is not None and _value(left[0]) == result, result))
    return found


def repeats(text: str) -> bool:
    """A sentence twice in a row or three times in all, or more than one stated answer. (A sum may come twice:
    a change can be undone and done again.)"""
    sentences = [s for s in (part.strip().lower() for part in re.split(r"[.\n]", text)) if s]
    twice = any(a == b for a, b in pairwise(sentences))
    return twice or any(sentences.count(s) > 2 for s in set(sentences)) or len(_STATES.findall(text)) > 1


def _value(expression: str) -> Fraction | None:
    """Products before sums, left to right; None for a division by zero."""
    total, product = Fraction(0), Fraction(0)
    for operation, number in _TERM.findall(expression):
        x = Fraction(number)
        if operation in ("", "+", "-"):
            total, product = total + product, -x if operation == "-" else x
        elif operation == "*":
            product *= x
        elif x == 0:
            return None
        else:
            product /= x
    return total + product
