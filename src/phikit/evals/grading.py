"""Answers to records: graded by the task's grader or a judge, one row for each answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from phikit.ask.teacher import Teacher
from phikit.evals.asking import Asked
from phikit.evals.task import Answer, Choices, Graded, Item, Judge, Task
from phikit.jobs.progress import Bar
from phikit.verify import refusal

Record = dict[str, Any]


def choice_scores(asked: Asked, answer: Answer) -> Graded:
    """`acc`: the highest sum of log-probabilities; `acc_norm`: the highest per character of the choice. Equal sums are
    decided for the first, as arg-max does in lm-eval; the detail says so."""
    item = asked.prompt.item
    sums = list(answer.logprobs)
    per_character = [x / max(1, len(c)) for x, c in zip(sums, item.choices)]
    best, normed = sums.index(max(sums)), per_character.index(max(per_character))
    detail = "tie" if sums.count(max(sums)) > 1 else ""
    scores = {"acc": float(best == item.gold), "acc_norm": float(normed == item.gold)}
    return Graded(scores, "right" if best == item.gold else "wrong", item.choices[best], detail)


def grade(asked: Sequence[Asked], answers: Sequence[Answer], bar: Bar, *, threads: int) -> list[Graded]:
    """One of each. Graders that run programs take turns in `threads` threads; the others are done in this one meanwhile
    (they are pure Python, and some keep a child process)."""

    def one(pair: tuple[Asked, Answer]) -> Graded:
        found = _grade(*pair)
        bar.advance()
        return found

    pairs = list(zip(asked, answers, strict=True))
    with ThreadPoolExecutor(threads) as pool:
        programs = pool.map(one, [p for p in pairs if p[0].task.tests])
        return [next(programs) if p[0].task.tests else one(p) for p in pairs]


def ungraded(task: Task, outcome: str, detail: str = "") -> Graded:
    """What an answer counts that no grader has seen."""
    scores = {**dict.fromkeys(task.metrics, 0.0), **task.ungraded.get(outcome, {})}
    return Graded(scores, outcome, detail=detail)  # type: ignore[arg-type]


def _grade(asked: Asked, answer: Answer) -> Graded:
    task = asked.task
    if not asked.fits:
        return ungraded(task, "too_long", f"{asked.tokens} tokens")
    if isinstance(task.output, Choices):
        found = choice_scores(asked, answer)
        return replace(found, scores={m: found.scores[m] for m in task.metrics})
    if answer.finish in ("error", "refused"):
        return ungraded(task, answer.finish)
    if task.judge is not None:
        return ungraded(task, "scored")
    found = task.output.grade(asked.prompt.item, answer)
    return replace(found, outcome=_apart(found, answer, task.output.chat))  # type: ignore[arg-type]


def _apart(found: Graded, answer: Answer, chat: bool) -> str:
    """Why an answer is not right, where it is not the answer itself: it was cut, or the model declined."""
    if found.outcome not in ("wrong", "unparsed"):
        return found.outcome
    if answer.finish == "length":
        return "cut"
    return "refused" if chat and refusal.declines(answer.text) else found.outcome


def judged(
    asked: Sequence[Asked], answers: Sequence[Answer], graded: Sequence[Graded], judge: Teacher, bar: Bar
) -> list[Graded]:
    """`graded`, with the judge's verdicts where a task has a judge and the answer could be judged. Verdicts are in the
    judge's request log and cost nothing a second time."""
    import asyncio

    async def one(a: Asked, answer: Answer, g: Graded) -> Graded:
        rule = a.task.judge
        if rule is None or g.outcome in ("too_long", "error", "refused"):
            return g
        orders = [rule, rule.swapped] if rule.swapped else [rule]
        read = await asyncio.gather(*(_votes(r, a.prompt.item, answer, judge) for r in orders))
        bar.advance()
        return vote(a.task, read, answer)

    async def every() -> list[Graded]:
        return await asyncio.gather(*(one(*x) for x in zip(asked, answers, graded, strict=True)))

    return judge.run(every())


async def _votes(rule: Judge, item: Item, answer: Answer, judge: Teacher) -> list[Graded]:
    said = await judge.chat(
        tuple(rule.ask(item, answer)), max_tokens=rule.max_tokens, n=rule.votes, temperature=rule.temperature,
        schema=rule.schema,
    )  # fmt: skip
    return [rule.read(item, answer, v.text) for v in said if v.finish not in ("error", "refused")]


def vote(task: Task, orders: Sequence[Sequence[Graded]], answer: Answer) -> Graded:
    """The mean of the votes' values, each order of the compared answers counting alike, and their most frequent
    outcome. Votes that cannot be read are left out; where an order has none that can, the outcome is `unparsed` (the
    judge's fault: the counts tell it). The detail says where the orders disagree."""
    readable = [[r for r in some if r.outcome != "unparsed"] for some in orders]
    if not all(readable):
        return ungraded(task, "unparsed", "no readable verdict")
    means = [{m: sum(r.scores[m] for r in some) / len(some) for m in task.metrics} for some in readable]
    scores = {m: sum(x[m] for x in means) / len(means) for m in task.metrics}
    usable = [r for some in readable for r in some]
    most = Counter(r.outcome for r in usable).most_common(1)[0][0]
    first = next(r for r in usable if r.outcome == most)
    cut = most == "wrong" and answer.finish == "length"
    detail = first.detail if all(x == means[0] for x in means) else "orders disagree"
    return replace(first, scores=scores, outcome="cut" if cut else first.outcome, detail=detail)


def record(asked: Asked, answer: Answer, graded: Graded) -> Record:
    """A row of records/TASK.parquet (see SCHEMA in records.py)."""
    item, p = asked.prompt.item, asked.prompt
    return {
        "task": asked.task.name,
        "id": item.id,
        "run": asked.run,
        "group": item.group,
        "cluster": item.cluster or item.id,
        "system": item.system,
        "prompt": p.text,
        "prompt_sha": p.sha,
        "prompt_tokens": asked.tokens,
        "examples": list(p.examples),
        "choices": list(item.choices),
        "gold": item.gold,
        "reference": "" if item.reference is None else _json(item.reference),
        "answer": answer.text,
        "finish": answer.finish,
        "tokens": answer.tokens,
        "logprobs": list(answer.logprobs),
        "greedy": list(answer.greedy),
        "outcome": graded.outcome,
        "said": graded.said,
        "detail": graded.detail,
        "scores": [{"metric": m, "value": float(v)} for m, v in graded.scores.items()],
        "clean": None,
    }


def values(row: Mapping[str, Any]) -> dict[str, float]:
    return {s["metric"]: s["value"] for s in row["scores"]}


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
