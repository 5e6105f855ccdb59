"""AMC 10 and 12: 6 points for a right answer, 1.5 for none, 0 for a wrong one; 25 questions, 0 to 150 points
(report, figure 1 and appendix C)."""

from __future__ import annotations

import re

from phikit.evals.task import Answer, Graded, Item

QUESTIONS = 25
POINTS = {"right": 6.0, "blank": 1.5, "wrong": 0.0}
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\s*\(?\s*([A-Ea-e]|blank)\b")
_SAID = re.compile(r"(?i)\banswer\s*(?:is|:)\s*\$?\(?\s*([A-E]|blank)\b")


def grade(item: Item, answer: Answer) -> Graded:
    """Metrics `score` (points of a contest in which all 25 answers are like this one, so that a mean is a contest's
    score), `correct` and `blank`. The last box counts, else the last "answer is"; an answer in which no letter is found
    earns nothing and is `unparsed`."""
    said = extract(answer.text)
    kind = "wrong" if said is None else "blank" if said == "blank" else _compare(said, item)
    scores = {
        "score": QUESTIONS * POINTS[kind],
        "correct": float(kind == "right"),
        "blank": float(kind == "blank"),
    }
    if said is None:
        return Graded(scores, "unparsed")
    return Graded(scores, "not_attempted" if kind == "blank" else kind, said)  # type: ignore[arg-type]


def extract(text: str) -> str | None:
    """A letter A to E, "blank", or None."""
    found = _BOXED.findall(text) or _SAID.findall(text)
    if not found:
        return None
    return found[-1].lower() if len(found[-1]) > 1 else found[-1].upper()


def _compare(said: str, item: Item) -> str:
    return "right" if said == item.reference else "wrong"
