"""Short text answers: normalized exact match and token F1, as SQuAD defines them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from phikit.verify.verdict import Verdict

_SAYS = re.compile(r"\banswer\s*(?:is|:)\s*:?\s*", re.IGNORECASE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles (a, an, the), single blanks."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", text).split())


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the normalized prediction equals one of the normalized answers."""
    return normalize(prediction) in {normalize(a) for a in answers}


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The best word-overlap F1 with one of the answers, 0 to 1. Two empty texts agree fully."""
    return max((_f1(normalize(prediction).split(), normalize(a).split()) for a in answers), default=0.0)


def judge(completion: str, answers: Sequence[str]) -> Verdict:
    """The verdict by exact match of what the completion says (`said`); without a word it is `unparsed`."""
    found = said(completion)
    if not normalize(found):
        return Verdict.unparsed
    return Verdict.right if exact_match(found, answers) else Verdict.wrong


def said(completion: str) -> str:
    """The answer of a completion: what its last "the answer is ..." says, up to the end of the sentence; else its
    first line that holds a word. A denied answer ("is not Paris") says nothing."""
    for m in reversed(list(_SAYS.finditer(completion))):
        clause = re.split(r"(?<=\w{2})[.!?](?=\s|$)|\n", completion[m.end() :], maxsplit=1)[0]
        return "" if re.match(r"(?:not|never|n't)\b", clause) else clause
    return next((line for line in completion.splitlines() if normalize(line)), "")


def _f1(a: list[str], b: list[str]) -> float:
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))
