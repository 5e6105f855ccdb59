"""Runs flows over their seeds with one teacher, writes what came out, and counts it.

Files in `out`: documents.jsonl.zst and dialogs.jsonl.zst (accepted rows), rejected.jsonl.zst (flow, seed,
reason, detail), steps.jsonl.zst (every prompt and answer, for the data card). Rows are in the order of flows
and seeds, whatever finished first. The teacher's request log makes a second run free, so nothing else is kept
for resuming.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from phikit.ask.budget import BudgetExhausted
from phikit.jobs.progress import Bar, bar
from phikit.records import Dialog, Document, to_row
from phikit.records.io import write_jsonl
from phikit.synth.flows import Flow
from phikit.synth.flows.base import Ask, Outcome, TeacherFailed

T = TypeVar("T")
NOT_RUN = "not run: token budget spent"


class Teacher(Ask, Protocol):
    """The part of `ask.Teacher` that the runner needs beside `chat`."""

    def run(self, flow: Coroutine[Any, Any, T]) -> T: ...
    def counts(self) -> Mapping[str, float]: ...


def run_flows(
    flows: Mapping[str, Flow],
    seeds: Mapping[str, Sequence[Document]],
    teacher: Teacher,
    *,
    out: Path,
    concurrency: int = 4,
    progress: Bar | None = None,
) -> dict[str, dict[str, Any]]:
    """{flow: {seeds, accepted, rejected: {reason: n}, requests, replayed, tokens}}; one seed can give several
    rejections. `requests` counts samples asked or replayed; `tokens` are those spent, prompts included.

    When the token budget is spent, the flow under way keeps what is finished, its other seeds and the flows
    after it are counted as not run, and the run goes on. Raises ValueError for flows without seeds, and what
    stops the teacher as a whole (see `ask.Teacher`). `progress`: a bar of the caller's, which moves by one a seed.
    """
    if missing := sorted(set(flows) - set(seeds)):
        raise ValueError(f"synth: no seeds given for {missing}")
    outcomes: dict[str, list[Outcome]] = {}
    counts: dict[str, dict[str, Any]] = {}
    total = sum(len(seeds[name]) for name in flows)
    with nullcontext(progress) if progress else bar("synth flows", total=total, unit="seeds") as b:
        for name, flow in flows.items():
            before = teacher.counts()
            outcomes[name] = teacher.run(_run(flow, seeds[name], teacher, concurrency, b))
            spent = {k: v - before.get(k, 0) for k, v in teacher.counts().items()}
            counts[name] = {
                "seeds": len(seeds[name]), "accepted": 0, "rejected": {},
                "requests": int(spent.get("asked", 0) + spent.get("replayed", 0)),
                "replayed": int(spent.get("replayed", 0)), "tokens": int(spent.get("tokens", 0)),
            }  # fmt: skip
    _write(out, outcomes, seeds, counts)
    return counts


async def _run(
    flow: Flow, seeds: Sequence[Document], teacher: Ask, concurrency: int, progress: Bar
) -> list[Outcome]:
    """One outcome for each seed, in order."""
    outcomes = [Outcome(rejected=((NOT_RUN, ""),))] * len(seeds)
    todo = iter(range(len(seeds)))
    spent = False

    async def worker() -> None:
        nonlocal spent
        for i in todo:  # shared: each seed is taken once
            if not spent:
                try:
                    outcomes[i] = await flow(seeds[i], teacher)
                except BudgetExhausted:
                    spent = True
                except TeacherFailed as e:
                    outcomes[i] = Outcome(rejected=((f"teacher: {e.args[0]}", f"prompt {e.args[1]}"),))
            progress.advance()

    tasks = [asyncio.ensure_future(worker()) for _ in range(max(1, concurrency))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return outcomes


def _write(
    out: Path,
    outcomes: Mapping[str, Sequence[Outcome]],
    seeds: Mapping[str, Sequence[Document]],
    counts: dict[str, dict[str, Any]],
) -> None:
    rows: dict[str, list[dict[str, Any]]] = {k: [] for k in ("documents", "dialogs", "rejected", "steps")}
    have: set[str] = set()
    for name, results in outcomes.items():
        reasons: Counter[str] = Counter()
        for seed, outcome in zip(seeds[name], results):
            rejected = list(outcome.rejected)
            for record in outcome.accepted:
                if record.id in have:
                    rejected.append(("duplicate", record.id))
                    continue
                have.add(record.id)
                counts[name]["accepted"] += 1
                rows["dialogs" if isinstance(record, Dialog) else "documents"].append(to_row(record))
            reasons.update(reason for reason, _ in rejected)
            key = {"flow": name, "seed": seed.id}
            rows["rejected"] += [{**key, "reason": r, "detail": d} for r, d in rejected]
            rows["steps"] += [{**key, "prompt": p, "answer": a} for p, a in outcome.steps]
        counts[name]["rejected"] = dict(sorted(reasons.items()))
    for kind, written in rows.items():
        write_jsonl(out / f"{kind}.jsonl.zst", written)
