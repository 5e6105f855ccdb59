"""A model as the judge of many prompts: both orders of the answers, a budget, every verdict counted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from phikit.ask.budget import BudgetExhausted
from phikit.ask.judge import Judgement, judge, judge_both_ways
from phikit.ask.structured import ReadCounts
from phikit.ask.teacher import Teacher
from phikit.preference.judged import Marks, PairCounts, Reply, pairs
from phikit.preference.rollouts import Question
from phikit.records.types import Preference

ANSWER_TOKENS = 768  # of a judgement; the report's form needs about 300 for two replies


@dataclass
class JudgingCounts:
    """`judged` prompts have marks; `unreadable` ones a verdict that could not be repaired (why, is in `json`);
    `budget` ones were not asked, or not in both orders; `too_few` had fewer than two different answers."""

    judged: int = 0
    unreadable: int = 0
    budget: int = 0
    too_few: int = 0
    json: ReadCounts = field(default_factory=ReadCounts)
    pairs: PairCounts = field(default_factory=PairCounts)

    def row(self) -> dict[str, Any]:
        return asdict(self)


def judge_prompts(
    teacher: Teacher,
    questions: Sequence[Question],
    replies: Mapping[str, Sequence[Reply]],
    *,
    swap: bool = True,
    seed: int = 0,
    max_tokens: int = ANSWER_TOKENS,
    counts: JudgingCounts,
) -> dict[str, list[list[Marks]]]:
    """Marks by question id: one list a round, two rounds with `swap`. All verdicts go through the teacher's request
    log, so that a second run asks nothing. A spent budget ends the asking, not the run: what was judged is used."""

    async def one(q: Question) -> list[list[Marks]] | None:
        texts = [r.text for r in replies[q.id]]
        if len(set(texts)) < 2:
            counts.too_few += 1
            return None
        try:
            found: Sequence[Judgement | None]
            if swap:
                both = await judge_both_ways(
                    teacher, q.turns, texts, counts=counts.json, seed=seed, max_tokens=max_tokens
                )
                found = both or [None]
            else:
                found = [
                    await judge(teacher, q.turns, texts, counts=counts.json, seed=seed, max_tokens=max_tokens)
                ]
        except BudgetExhausted:
            counts.budget += 1
            return None
        if None in found:
            counts.unreadable += 1
            return None
        counts.judged += 1
        return [[Marks(g.accuracy, g.style, g.detail) for g in j.grades] for j in found if j]

    async def everything():
        return await asyncio.gather(*(one(q) for q in questions))

    marks = teacher.run(everything())
    return {q.id: m for q, m in zip(questions, marks) if m}


def judged_pairs(
    questions: Sequence[Question],
    replies: Mapping[str, Sequence[Reply]],
    marks: Mapping[str, Sequence[Sequence[Marks]]],
    *,
    most: int,
    overall: int | None = None,
    counts: PairCounts,
) -> list[Preference]:
    """The pairs of all prompts that have marks, in the order of the questions."""
    out: list[Preference] = []
    for q in questions:
        if q.id in marks:
            first, *more = marks[q.id]
            again = more[0] if more else ()
            out += pairs(q, replies[q.id], first, again=again, most=most, overall=overall, counts=counts)
    return out
