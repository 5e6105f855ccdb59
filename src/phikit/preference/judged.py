"""Judged pairs (report section 4.2): several whole answers per prompt, ranked; the better becomes `chosen`.

Two sets as in the report: `accuracy` (the more accurate answer) and `overall` (the mean of accuracy, style and
detail decides). Ties are dropped. Where a judge gave marks in two orders of the answers, both must agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from phikit.ask.teacher import Teacher
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
    """An answer of a responder: text, ids of the model to be trained (end of turn included), whether it ended by
    itself."""

    text: str
    tokens: tuple[int, ...]
    stopped: bool
    responder: str


@dataclass
class PairCounts:
    """What became of all pairs of answers to one prompt. `position`: the judge changed its mind with the order of
    the answers, which counts as a tie."""

    made: dict[str, int] = field(default_factory=lambda: {"accuracy": 0, "overall": 0})
    same_text: int = 0
    ties: int = 0
    position: int = 0
    cut_chosen: int = 0
    beyond_most: int = 0


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


def teacher_answers(
    teacher: Teacher,
    questions: Sequence[Question],
    encode: Callable[[str], Sequence[int]],
    end: int,
    *,
    responder: str,
    n: int,
    temperature: float,
    max_tokens: int,
    seed: int,
) -> dict[str, list[Reply]]:
    """As `answers`, of any teacher (another engine or an endpoint), logged by it. Its text becomes ids of the model to
    be trained: `encode`, and the id `end` of the end of turn. Refused, failed and empty answers are left out."""

    async def ask_all():
        return await asyncio.gather(
            *(
                teacher.chat(q.turns, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed)
                for q in questions
            )
        )

    out: dict[str, list[Reply]] = {}
    for q, given in zip(questions, teacher.run(ask_all())):
        out[q.id] = []
        for a in given:
            text, stopped = a.text.strip(), a.finish == "stop"
            if text and a.finish in ("stop", "length"):
                ids = (*encode(text), *((end,) if stopped else ()))
                out[q.id].append(Reply(text, ids, stopped, responder))
    return out


def pairs(
    question: Question,
    replies: Sequence[Reply],
    marks: Sequence[Marks],
    *,
    most: int,
    again: Sequence[Marks] = (),
    overall: int | None = None,
    counts: PairCounts | None = None,
    kind: str = "judged",
) -> list[Preference]:
    """The pairs of a question, widest margin first. `again`: marks of the same replies given in the opposite order.

    At most `most` pairs. One whose accuracies differ belongs to the accuracy set; one that only the overall mark
    tells apart to the overall set. With `overall` a number the two sets are the report's: at most `most` pairs
    labelled by accuracy and, beside them, at most `overall` labelled by the overall mark alone. Answers cut by the
    token limit are never chosen, and no two pairs of a set are made of the same two texts."""
    counts = counts or PairCounts()
    rounds = [marks, again] if again else [marks]
    ranked: list[tuple[float, Preference]] = []
    by_overall: list[tuple[float, Preference]] = []
    for i, j in combinations(range(len(replies)), 2):
        if replies[i].tokens == replies[j].tokens:
            counts.same_text += 1
            continue
        accuracy = [r[i].accuracy - r[j].accuracy for r in rounds]
        mean = [r[i].overall - r[j].overall for r in rounds]
        if overall is None:
            by = "accuracy" if any(accuracy) else "overall"
            _rank(
                ranked,
                question,
                replies,
                rounds,
                (i, j),
                by,
                accuracy if any(accuracy) else mean,
                counts,
                kind,
            )
        else:
            _rank(ranked, question, replies, rounds, (i, j), "accuracy", accuracy, counts, kind)
            _rank(by_overall, question, replies, rounds, (i, j), "overall", mean, counts, kind)
    made = _take(ranked, most, counts)
    return made if overall is None else made + _take(by_overall, overall, counts, made)


def _rank(
    ranked, question, replies, rounds, pair, by: str, gaps: Sequence[float], counts: PairCounts, kind
) -> None:
    """Adds the pair of replies to `ranked` where all rounds prefer the same one."""
    signs = {(g > _TIE) - (g < -_TIE) for g in gaps}
    if signs == {0}:
        counts.ties += 1
    elif len(signs) > 1:
        counts.position += 1
    else:
        better, worse = pair if signs == {1} else pair[::-1]
        if not replies[better].stopped:
            counts.cut_chosen += 1
            return
        gap = sum(abs(g) for g in gaps) / len(gaps)
        mb, mw = (_mean([r[k] for r in rounds]) for k in (better, worse))
        made = _pair(question, replies[better], replies[worse], by, mb, mw, kind)
        ranked.append((gap, made))


_TIE = 1e-9  # marks are means of integers: a smaller difference is rounding


def _take(ranked, most: int, counts: PairCounts, before: Sequence[Preference] = ()) -> list[Preference]:
    out: list[Preference] = []
    used: set[tuple[int, ...]] = set()
    taken = {(p.chosen_ids, p.rejected_ids) for p in before}
    for _, pair in sorted(ranked, key=lambda x: (-x[0], x[1].id)):
        sides = {pair.chosen_ids, pair.rejected_ids}
        if len(out) >= most or sides <= used or (pair.chosen_ids, pair.rejected_ids) in taken:
            counts.beyond_most += 1
            continue
        out.append(pair)
        used |= sides
        counts.made[pair.meta["by"]] += 1
    return out


def _mean(marks: Sequence[Marks]) -> Marks:
    n = len(marks)
    return Marks(
        sum(m.accuracy for m in marks) / n, sum(m.style for m in marks) / n, sum(m.detail for m in marks) / n
    )


def _pair(q: Question, better: Reply, worse: Reply, by: str, mb: Marks, mw: Marks, kind) -> Preference:
    meta = {
        "question": q.id, "kind": q.kind, "by": by, "responders": [better.responder, worse.responder],
        "marks_chosen": [mb.accuracy, mb.style, mb.detail], "marks_rejected": [mw.accuracy, mw.style, mw.detail],
    }  # fmt: skip
    return Preference(
        q.turns, (), better.tokens, worse.tokens, better.text, worse.text, kind, meta, parents=(q.id,)
    )
