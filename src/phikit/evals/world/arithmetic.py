"""Held-out word problems: exact answers, greedy and sampled, and the form of answers in chat.

Items: {id, question, answer}. Report section 4.3 measures pivotal DPO by sampled accuracy, so `sampled` draws
every problem several times at the settings' temperature; its interval is clustered by problem.
"""

from __future__ import annotations

from collections.abc import Sequence

from phikit.evals.world.plan import Generated, Item, Prompter, Row, Settings, field
from phikit.records.types import Completion
from phikit.verify import math_answer, worked

TASK, FORMAT = "arithmetic", "format"
FORMAT_ITEMS = 250


def greedy(items: Sequence[Item], ask: Prompter, settings: Settings) -> Generated:
    """Metric `greedy`: one answer a problem, temperature 0."""
    requests = [
        ask.question(field(i, "question", TASK), max_tokens=settings.max_tokens, temperature=0.0)
        for i in items
    ]

    def rows(results: Sequence[list[Completion]]) -> list[Row]:
        return [_row("greedy", i, 0, c) for i, answers in zip(items, results) for c in answers]

    return Generated(requests, rows)


def sampled(items: Sequence[Item], ask: Prompter, settings: Settings) -> Generated:
    """Metric `sampled`: the settings' number of answers a problem."""

    def rows(results: Sequence[list[Completion]]) -> list[Row]:
        return [_row("sampled", i, k, c) for i, some in zip(items, results) for k, c in enumerate(some)]

    return Generated(ask.samples(items, settings, settings.samples, TASK), rows)


def form(items: Sequence[Item], ask: Prompter, settings: Settings) -> Generated:
    """Task `format`: sampled answers in chat form, base models included. A model before SFT has never seen the
    template; what SFT teaches is to answer in it and to stop (report section 4.1)."""
    some = items[:FORMAT_ITEMS]

    def rows(results: Sequence[list[Completion]]) -> list[Row]:
        return [_format(i, k, c) for i, answers in zip(some, results) for k, c in enumerate(answers)]

    return Generated(ask.samples(some, settings, settings.samples, FORMAT, chat=True), rows)


def outcome(c: Completion, answer: str) -> str:
    """right, wrong, unparsed or cut. A cut answer is never right: what it would have ended with is
    unknown."""
    return math_answer.judge(c.text, answer).value if c.finish == "stop" else "cut"


def _row(metric: str, item: Item, sample: int, c: Completion) -> Row:
    result = outcome(c, str(field(item, "answer", TASK)))
    return Row(TASK, metric, str(item["id"]), float(result == "right"), result, sample)


def _format(item: Item, sample: int, c: Completion) -> Row:
    """Ends by itself within max_tokens and holds a parseable "The answer is N."."""
    stated = worked.states_answer(c.text)
    result = "cut" if c.finish != "stop" else "right" if stated else "unparsed"
    return Row(FORMAT, "well_formed", str(item["id"]), float(result == "right"), result, sample)
