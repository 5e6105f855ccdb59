"""DROP's exact match and F1 of one answer against one reference: words as a set, numbers by value.

The official metric aligns several predicted spans; a model's answer is one span here, as in simple-evals."""

from __future__ import annotations

import re
import string

from phikit.evals.task import Answer, Graded, Item

_ANSWER = re.compile(r"(?i)Answer\s*:\s*([^\n]+)")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def grade(item: Item, answer: Answer) -> Graded:
    """Metrics `f1` and `em`, each the best over the references. Without an "Answer:" line the whole text counts, and
    the outcome is `unparsed` unless it is exactly right."""
    found = _ANSWER.search(answer.text)
    said = found[1] if found else answer.text
    pairs = [scores(said, gold) for gold in item.reference if gold.strip()]
    em, f1 = max(p[0] for p in pairs), max(p[1] for p in pairs)
    outcome = "right" if em == 1.0 else "wrong" if found else "unparsed"
    return Graded({"f1": f1, "em": em}, outcome, said.strip()[:200])


def scores(said: str, gold: str) -> tuple[float, float]:
    """(exact match, F1), 0 to 1; the F1 is rounded to four places as the official script does to per cents."""
    a, b = normalize(said), normalize(gold)
    bag, wanted = set(a.split()), set(b.split())
    numbers = {w for w in wanted if _number(w)}
    if numbers and not numbers & {w for w in bag if _number(w)}:
        return float(a == b), 0.0
    common = len(bag & wanted)
    precision = common / len(bag) if bag else 1.0
    recall = common / len(wanted) if wanted else 1.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return float(a == b), round(100 * f1, 2) / 100


def normalize(answer: str) -> str:
    """Lower case, split at blanks and hyphens; numbers by value; no punctuation, no articles."""
    words = (_word(w) for w in re.split(" |-", answer))
    return " ".join(w for w in words if w)


def _word(word: str) -> str:
    word = word.lower()
    if not _number(word):
        word = word.translate(_PUNCTUATION)
    if _number(word):
        word = str(float(word))
    return " ".join(_ARTICLES.sub(" ", word).split())


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
