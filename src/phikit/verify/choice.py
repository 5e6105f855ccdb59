"""Multiple choice: the option that a completion settles on, by its letter or by its text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from phikit.verify.text import normalize
from phikit.verify.verdict import Verdict

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# The words in any case, the letter only as a capital: "the answer is a number" names no option.
_SAYS = re.compile(
    r"(?i:(?:answer|option|choice)\s*(?:is|:)?\s*:?\s*\**[\(\[\"'`]*)((?i:not\s+)?)\(?([A-Z])(?![A-Za-z'])(?:\)?\s+(?i:or|and)\s+\(?([A-Z])(?![A-Za-z']))?"
)


def extract_choice(text: str, options: int | Sequence[str] = 4) -> str | None:
    """The letter (A, B, ...) of a completion, or None where it names none or several.

    In this order: the last `\\boxed{B}`; the last "answer is B" / "Answer: (B)" that is not denied and names one
    letter; a letter at the start, alone or before `.`, `)` or `:`; the only letter in brackets; with option texts
    the one that the completion states word for word. "A" as an article never counts.
    """
    texts = [] if isinstance(options, int) else list(options)
    letters = LETTERS[: options if isinstance(options, int) else len(texts)]
    if found := [x for x in re.findall(r"\\boxed\{(?:\\text\{)?\(?([A-Z])\)?\}", text) if x in letters]:
        return found[-1]
    said = [(no, x, y) for no, x, y in _SAYS.findall(text) if x in letters]
    if any(not no for no, _, _ in said):
        _, letter, other = [s for s in said if not s[0]][-1]
        return None if other in letters and other and other != letter else letter
    denied = {x for _, x, _ in said}
    bracketed = {x for x in re.findall(r"\(([A-Z])\)", text) if x in letters} - denied
    start = re.match(r"\s*\**\(?([A-Z])\)?\**(?:[.):]|\s*$)", text)
    if start and start[1] in letters and bracketed <= {start[1]}:
        return start[1]
    if len(bracketed) == 1:
        return bracketed.pop()
    return _by_text(text, texts) if not bracketed and not denied else None


def judge(completion: str, answer: str, options: int | Sequence[str] = 4) -> Verdict:
    """The verdict on a completion whose right letter is `answer`. Raises ValueError where that is none."""
    letter = answer.strip().strip("().").upper()
    if len(letter) != 1 or letter not in LETTERS:
        raise ValueError(f"the reference of a choice is a letter, got {answer!r}")
    found = extract_choice(completion, options)
    if found is None:
        return Verdict.unparsed
    return Verdict.right if found == letter else Verdict.wrong


def _by_text(completion: str, texts: Sequence[str]) -> str | None:
    """The only option whose whole text is what the completion says, or ends its last "the answer is"."""
    said = re.split(r"(?i)\banswer\s*(?:is|:)\s*", completion)[-1]
    same = [i for i, t in enumerate(texts) if normalize(t) and normalize(t) == normalize(said)]
    return LETTERS[same[0]] if len(same) == 1 else None
