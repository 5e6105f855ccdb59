"""Multiple choice answered in words: the letter that a completion settles on."""

from __future__ import annotations

import re

from phikit.verify.verdict import Verdict

# The words in any case, the letter only as a capital: "the answer is a number" names no option.
_SAYS = re.compile(r"(?i:(?:answer|option|choice)\s*(?:is|:)?\s*:?\s*\**[\(\[\"'`]*)([A-Z])(?![A-Za-z'])")


def extract_choice(text: str, options: int = 4) -> str | None:
    """The letter (A, B, ...) of a completion, or None.

    In this order: `\\boxed{B}`; the last "answer is B" / "Answer: (B)"; a letter at the start, alone or
    before `.`, `)` or `:`; the only letter in brackets. "A" as an article never counts.
    """
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:options]
    if found := [x for x in re.findall(r"\\boxed\{\(?([A-Z])\)?\}", text) if x in letters]:
        return found[-1]
    if found := [x for x in _SAYS.findall(text) if x in letters]:
        return found[-1]
    bracketed = {x for x in re.findall(r"\(([A-Z])\)", text) if x in letters}
    start = re.match(r"\s*\**\(?([A-Z])\)?\**(?:[.):]|\s*$)", text)
    if start and start[1] in letters and bracketed <= {start[1]}:
        return start[1]
    return bracketed.pop() if len(bracketed) == 1 else None


def judge(completion: str, answer: str, options: int = 4) -> Verdict:
    """The verdict on a completion whose right letter is `answer`."""
    found = extract_choice(completion, options)
    if found is None:
        return Verdict.unparsed
    return Verdict.right if found == answer.strip().upper() else Verdict.wrong
