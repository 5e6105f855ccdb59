"""Somebody's own questions with their solutions: split by a hash, cleaned of what is held out, turned into dialogs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from phikit.corpus.decontaminate import decontaminate
from phikit.preference.questions import read_rows
from phikit.preference.rollouts import Question
from phikit.records.ids import content_id
from phikit.records.types import Dialog, turns

T = TypeVar("T")
_CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's notes for a calculator: 48/2 = <<48/2=24>>24


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and how its row solves it ("" where it does not)."""

    question: Question
    solution: str

    @property
    def text(self) -> str:
        return f"{self.question.question}\n{self.solution}"

    def row(self) -> dict[str, Any]:
        return asdict(self.question) | ({"solution": self.solution} if self.solution else {})


def read_asked(path: Path, *, kind: str = "") -> Iterator[Asked]:
    """The questions of a file (`questions.read_questions`) with their solutions."""
    for question, row in read_rows(path, kind=kind):
        yield Asked(question, solution_of(row))


def solution_of(row: Mapping[str, Any]) -> str:
    """The text under `solution` or MBPP's `code`; of GSM8K's answers the steps, with "#### 72" as a sentence that
    states the answer."""
    if isinstance(row.get("solution"), str):
        return row["solution"].strip()
    answer = row.get("answer")
    if isinstance(answer, str) and "####" in answer:
        steps, _, last = answer.rpartition("####")
        return f"{_CALCULATOR.sub('', steps).strip()}\nThe answer is {last.strip()}."
    code = row.get("code") if "test_list" in row else None
    return f"```python\n{code.strip()}\n```" if isinstance(code, str) else ""


def split(asked: Sequence[Asked], heldout: float) -> tuple[list[Asked], list[Asked]]:
    """(train, held out), by a hash of the question alone: a question keeps its side when others come or go, and the
    same text is never on both."""
    sides: tuple[list[Asked], list[Asked]] = ([], [])
    for a in asked:
        sides[int(_key(a.question.question)[:8], 16) < heldout * 2**32].append(a)
    return sides


def clean(
    items: Sequence[T],
    texts: Sequence[str],
    held: Sequence[Asked],
    *,
    info: float,
    contaminated: float,
    numbers: bool = False,
) -> tuple[list[T], list[dict[str, Any]]]:
    """The items whose text holds no held-out question, and a row for each of the others (report appendix B.1;
    `numbers` as `corpus.decontaminate`)."""
    references = [(a.question.id, a.question.question) for a in held]
    known = {_key(a.question.question): a.question.id for a in held}
    matches = decontaminate(texts, references, info=info, contaminated=contaminated, numbers=numbers)
    kept: list[T] = []
    rejected: list[dict[str, Any]] = []
    for item, text, match in zip(items, texts, matches):
        same = known.get(_key(item.question.question)) if isinstance(item, Asked) else None
        if same is None and match.verdict != "contaminated":
            kept.append(item)
            continue
        reason = "contaminated" if same is None else "duplicate"
        rejected.append({"reason": reason, "text": text, "item": same or match.item, "rule": match.rule})
    return kept, rejected


def dialog_of(asked: Asked) -> Dialog:
    q = asked.question
    meta = {"answer": q.answer, "kind": q.kind}
    return Dialog(turns(("user", q.question), ("assistant", asked.solution)), "own", meta, (q.id,))


def _key(text: str) -> str:
    return content_id("question text", " ".join(text.lower().split()))
