"""How far a judge agrees with people: it compares pairs of answers that people have labelled (LLMBar), each pair in
both orders, in the form that every comparison here has (ask/judge.py). The figure stands beside every judged score."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from phikit import stats
from phikit.ask.judge import judge_both_ways
from phikit.ask.structured import ReadCounts
from phikit.ask.teacher import Teacher
from phikit.evals.task import Row
from phikit.jobs.progress import Bar
from phikit.records.types import Turn


def told(found: dict[str, Any], *, short: bool = False) -> str:
    """The agreement in words, for the table and the page. `found` may hold a `reason` why it is not known."""
    if "reason" in found or not found["n"]:
        why = found.get("reason") or f"none of {found['pairs']} verdicts could be read"
        return "agreement with people unknown" if short else f"agreement with people unknown: {why}"
    value = f"agrees with people on {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
    if short:
        return value
    unread = f"; {found['unreadable']} verdicts unreadable" if found["unreadable"] else ""
    return (
        f"{value} of {found['n']} pairs of {found['labels']}; the order of the answers decides "
        f"{found['swayed']:.2f}{unread}"
    )


def agreement(judge: Teacher, rows: Sequence[Row], bar: Bar) -> dict[str, Any]:
    """{value, low, high, n, method, pairs, unreadable, swayed} of rows {id, prompt, answers, better}. A pair counts 1
    where the marks of both orders together prefer the answer that people prefer, 1/2 where they are equal. `swayed`:
    share of readable pairs whose two orders prefer different answers, which is a liking for a position. Verdicts are in
    the judge's log."""
    counts = ReadCounts()

    async def one(row: Row) -> tuple[float, bool] | None:
        both = await judge_both_ways(judge, (Turn("user", row["prompt"]),), row["answers"], counts=counts)
        bar.advance()
        if both is None:
            return None
        sign = 1 if row["better"] == 0 else -1
        gaps = [sign * (j.grades[0].overall - j.grades[1].overall) for j in both]
        total = sum(gaps)
        return (1.0 if total > 1e-9 else 0.0 if total < -1e-9 else 0.5), gaps[0] * gaps[1] < 0

    async def every() -> list[tuple[float, bool] | None]:
        return await asyncio.gather(*(one(r) for r in rows))

    found = [f for f in judge.run(every()) if f is not None]
    e = stats.clustered_share([v for v, _ in found], range(len(found)))
    return {
        **asdict(e),
        "pairs": len(rows),
        "unreadable": len(rows) - len(found),
        "swayed": sum(s for _, s in found) / len(found) if found else None,
    }
