"""Judged pairs (report section 4.2): several whole answers per prompt, ranked; the better becomes `chosen`.

Two sets as in the report: `accuracy` (the right answer over the wrong one) and `overall` (the mean of accuracy,
style and detail decides). Ties are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from phikit.engine.base import Engine, GenRequest
from phikit.jobs.progress import bar
from phikit.preference.rollouts import Question
from phikit.records.ids import seed_of
from phikit.records.types import Preference


@dataclass(frozen=True, slots=True)
class Marks:
    """What the judge says of one answer; each from 1 to 5 (facts section 5.3)."""

    accuracy: float
    style: float
    detail: float

    @property
    def overall(self) -> float:
        return (self.accuracy + self.style + self.detail) / 3


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of a responder: text, ids (end of turn included), whether it ended by itself."""

    text: str
    tokens: tuple[int, ...]
    stopped: bool
    responder: str


Judge = Callable[[Question, Sequence[Reply]], list[Marks]]


def answers(
    engine: Engine,
    questions: Sequence[Question],
    *,
    responder: str,
    n: int,
    temperature: float,
    max_tokens: int,
    seed: int,
) -> dict[str, list[Reply]]:
    """`n` distinct-seeded answers of one responder to each question, by question id."""
    requests = [
        GenRequest(
            tuple(engine.render(q.turns)), max_tokens, n=n, temperature=temperature, stop_ids=engine.stop_ids,
            seed=seed_of(seed, responder, q.id),
        )
        for q in questions
    ]  # fmt: skip
    out: dict[str, list[Reply]] = {}
    with bar(f"answers of {responder}", total=len(questions) * n, unit="answers") as b:
        for i, completions in engine.generate(requests):
            out[questions[i].id] = [
                Reply(c.text, c.tokens, c.finish == "stop", responder) for c in completions
            ]
            b.advance(len(completions))
    return out


def pairs(
    question: Question, replies: Sequence[Reply], marks: Sequence[Marks], *, most: int, margin: float = 1e-9
) -> list[Preference]:
    """At most `most` pairs of a question, widest margin first. A pair whose accuracies differ belongs to the
    accuracy set, one that only `overall` tells apart to the overall set. Cut answers are never chosen."""
    ranked = []
    for (r1, m1), (r2, m2) in combinations(zip(replies, marks), 2):
        if r1.tokens == r2.tokens:
            continue
        (better, mb), (worse, mw) = ((r1, m1), (r2, m2)) if _key(m1) > _key(m2) else ((r2, m2), (r1, m1))
        by = "accuracy" if mb.accuracy > mw.accuracy else "overall"
        gap = mb.accuracy - mw.accuracy if by == "accuracy" else mb.overall - mw.overall
        if gap <= margin or not better.stopped:
            continue
        ranked.append((gap, _pair(question, better, worse, by, mb, mw)))
    ranked.sort(key=lambda x: (-x[0], x[1].id))
    out: list[Preference] = []
    used: set[tuple[int, ...]] = set()
    for _, pair in ranked:
        if len(out) < most and not {pair.chosen_ids, pair.rejected_ids} <= used:
            out.append(pair)
            used |= {pair.chosen_ids, pair.rejected_ids}
    return out


def _key(m: Marks) -> tuple[float, float]:
    return m.accuracy, m.overall


def _pair(q: Question, better: Reply, worse: Reply, by: str, mb: Marks, mw: Marks) -> Preference:
    meta = {
        "question": q.id, "kind": q.kind, "by": by, "responders": [better.responder, worse.responder],
        "marks_chosen": [mb.accuracy, mb.style, mb.detail], "marks_rejected": [mw.accuracy, mw.style, mw.detail],
    }  # fmt: skip
    return Preference(
        q.turns, (), better.tokens, worse.tokens, better.text, worse.text, "judged", meta, parents=(q.id,)
    )
