"""Short text answers: normalized exact match and token F1, as SQuAD defines them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from phikit.verify.verdict import Verdict

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
    """The verdict by exact match; a completion with no word is `unparsed`."""
    if not normalize(completion):
        return Verdict.unparsed
    return Verdict.right if exact_match(completion, answers) else Verdict.wrong


def _f1(a: list[str], b: list[str]) -> float:
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))
