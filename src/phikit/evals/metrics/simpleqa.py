"""SimpleQA: a judge says whether an answer is correct, incorrect or not attempted (report section 4.4, Figure 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from phikit.evals.task import Answer, Graded, Item
from phikit.records.types import Turn

_RULES = """\
You grade an answer to a factual question against the reference answer. Do not answer the question yourself. Choose one
letter.

A (correct): the answer holds everything important in the reference and contradicts none of it. Case, punctuation,
order and wording do not matter; hedging does not matter where the full answer is there.
B (incorrect): something the answer states contradicts the reference, hedged or not, or it names a wrong or an
additional alternative.
C (not attempted): the answer does not hold what the reference says and contradicts nothing, such as "I do not know".

A number must agree to the last significant digit of the reference; "about N" is no attempt. What the question already
says may be left out of the answer. A name's misspelling is forgiven where it is plainly the same name; a last name
that the question makes obvious too. Reply with the letter alone."""

_NAMES = {"A": "correct", "B": "incorrect", "C": "not_attempted"}


def ask(item: Item, answer: Answer) -> Sequence[Turn]:
    told = f"Question: {item.prompt}\nReference: {item.reference}\nAnswer: {answer.text}\n\nLetter:"
    return (Turn("system", _RULES), Turn("user", told))


def read(item: Item, answer: Answer, verdict: str) -> Graded:
    """Metrics correct, incorrect, not_attempted (0 or 1). A verdict without a letter is `unparsed` and counts as none
    of the three."""
    found = re.search(r"\b([ABC])\b", verdict)
    name = _NAMES[found[1]] if found else ""
    scores = {n: float(n == name) for n in _NAMES.values()}
    outcome = {"correct": "right", "incorrect": "wrong", "not_attempted": "not_attempted"}.get(
        name, "unparsed"
    )
    return Graded(scores, outcome, name)  # type: ignore[arg-type]


def given_attempted(means: Mapping[str, float]) -> float:
    """Share of correct answers among those attempted."""
    tried = means["correct"] + means["incorrect"]
    return means["correct"] / tried if tried else 0.0


def f1(means: Mapping[str, float]) -> float:
    """Harmonic mean of `correct` and `given_attempted`."""
    a, b = means["correct"], given_attempted(means)
    return 2 * a * b / (a + b) if a + b else 0.0
