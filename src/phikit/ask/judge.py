"""The judge of the report (section 4.2, appendix A.2): all replies of one conversation graded side by side.

The judge sees the conversation and the replies as "Assistant 1..k" and returns one JSON object: faults first,
then their discussion, then accuracy, style and detail as integers 1 to 5. Wording is ours; the report's is
not copied."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phikit.ask.structured import ReadCounts, read_json
from phikit.ask.teacher import Teacher
from phikit.records.ids import seed_of
from phikit.records.types import Turn

MARKS = ("accuracy", "style", "detail")


@dataclass(frozen=True, slots=True)
class Grade:
    """Marks 1 to 5; `overall` is their mean. `faults` as the judge wrote them, empty when it named none."""

    accuracy: int
    style: int
    detail: int
    faults: tuple[str, ...] = ()

    @property
    def overall(self) -> float:
        return (self.accuracy + self.style + self.detail) / 3


@dataclass(frozen=True, slots=True)
class Judgement:
    """Grades in the order of the answers given; `key` is the judge's request in the log."""

    grades: tuple[Grade, ...]
    discussion: str
    key: str


def judge_schema(k: int) -> dict[str, Any]:
    """The JSON schema of a judgement of k replies; faults come before marks."""
    names = [f"Assistant {i}" for i in range(1, k + 1)]

    def each(item: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": dict.fromkeys(names, item), "required": names}

    faults = {"type": "array", "items": {"type": "string", "maxLength": 160}, "maxItems": 4}
    mark = {"type": "integer", "minimum": 1, "maximum": 5}
    properties: dict[str, Any] = {
        "faults": each(faults),
        "faults_discussion": {"type": "string", "maxLength": 600},
    }
    properties |= {name: each(mark) for name in MARKS}
    return {"type": "object", "properties": properties, "required": list(MARKS)}


def judge_turns(conversation: Sequence[Turn], answers: Sequence[str]) -> tuple[Turn, ...]:
    """The judge's prompt for replies to a conversation that ends with a user turn."""
    names = ", ".join(f'"Assistant {i}"' for i in range(1, len(answers) + 1))
    system = (
        "You grade replies of assistants to a conversation. Work in this order.\n"
        "1. faults: for every assistant list each problem of its reply and say in brackets whether it is a "
        "comprehension, logical, factual or stylistic one. Use an empty list for a perfect reply. Length or "
        "missing detail is no fault unless the user asked for it.\n"
        "2. faults_discussion: strengths and weaknesses of the replies and how they mainly differ.\n"
        "3. accuracy, style, detail: for every assistant an integer from 1 (poor) to 5 (excellent).\n"
        f"Answer with one JSON object of the keys faults, faults_discussion, accuracy, style, detail; every "
        f"value but faults_discussion is an object with the keys {names}."
    )
    talk = "\n\n".join(f"[{t.role}]\n{t.content}" for t in conversation)
    replies = "\n\n".join(f"[Assistant {i}]\n{a}" for i, a in enumerate(answers, 1))
    return (Turn("system", system), Turn("user", f"# Conversation\n\n{talk}\n\n# Replies\n\n{replies}"))


def parse_judgement(text: str, k: int, counts: ReadCounts) -> tuple[tuple[Grade, ...], str] | None:
    """(grades of Assistant 1..k, discussion), or None with the reason counted."""
    value = read_json(text, _lenient(k), counts)
    if value is None:
        return None
    names = [f"Assistant {i}" for i in range(1, k + 1)]
    faults = value.get("faults") if isinstance(value.get("faults"), dict) else {}
    grades = tuple(
        Grade(*(value[m][name] for m in MARKS), faults=_faults(faults.get(name))) for name in names
    )
    return grades, str(value.get("faults_discussion", ""))


async def judge(
    teacher: Teacher,
    conversation: Sequence[Turn],
    answers: Sequence[str],
    *,
    counts: ReadCounts,
    seed: int = 0,
    backwards: bool = False,
    max_tokens: int = 768,
    temperature: float = 0.0,
) -> Judgement | None:
    """Grades of at least two answers, or None when the judge's text cannot be read (counted). The labels are
    dealt by `seed`; `backwards` deals the same ones in the opposite order, so that of every two answers the other
    one comes first."""
    if len(answers) < 2:
        raise ValueError(f"a judge compares at least two answers, got {len(answers)}")
    order = list(range(len(answers)))
    random.Random(seed_of(seed, *answers)).shuffle(order)
    if backwards:
        order.reverse()
    prompt = judge_turns(conversation, [answers[i] for i in order])
    schema = judge_schema(len(answers))
    (answer,) = await teacher.chat(
        prompt, max_tokens=max_tokens, temperature=temperature, seed=seed, schema=schema
    )
    if answer.finish in ("error", "refused"):
        counts.drop(answer.finish)
        return None
    read = parse_judgement(answer.text, len(answers), counts)
    if read is None:
        return None
    placed = dict(zip(order, read[0]))
    return Judgement(tuple(placed[i] for i in range(len(answers))), read[1], answer.key)


async def judge_both_ways(
    teacher: Teacher,
    conversation: Sequence[Turn],
    answers: Sequence[str],
    *,
    counts: ReadCounts,
    seed: int = 0,
    max_tokens: int = 768,
) -> tuple[Judgement, Judgement] | None:
    """Two judgements, the answers in one order and in the opposite one; None unless both can be read. A preference
    that only one of them holds is a liking for a position."""
    asked = [
        judge(teacher, conversation, answers, counts=counts, seed=seed, backwards=b, max_tokens=max_tokens)
        for b in (False, True)
    ]
    first, second = await asyncio.gather(*asked)
    return (first, second) if first and second else None


def _lenient(k: int) -> dict[str, Any]:
    """Only the marks are needed to label a pair: faults and their discussion may be of any form."""
    schema = judge_schema(k)
    properties = {name: schema["properties"][name] for name in MARKS}
    return {**schema, "properties": {**properties, "faults": {}, "faults_discussion": {}}}


def _faults(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value] if value else []
    return tuple(str(v) for v in items if str(v).strip().lower() not in ("", "none"))
