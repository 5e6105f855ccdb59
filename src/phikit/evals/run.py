"""`phikit eval`: tasks on a model, resumable, every prompt and answer kept.

1. prompts of every task (data found, examples drawn, hashed); 2. answers, from the journal or the engine; 3. grades,
programs in the sandbox, then the judge; 4. records, scores with intervals, run.json, the page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from phikit.ask.teacher import Teacher
from phikit.engine.base import Engine
from phikit.evals import packs, records
from phikit.evals.agreement import agreement, told
from phikit.evals.asking import Asked, answer, requests
from phikit.evals.grading import Record, grade, judged, record
from phikit.evals.journal import Journal
from phikit.evals.packs import NoData
from phikit.evals.prompts import Prompt, TaskSource, prompts
from phikit.evals.select import Chosen, described
from phikit.evals.summary import summarize
from phikit.evals.talk import converse
from phikit.evals.task import Task
from phikit.jobs.progress import bar
from phikit.records.ids import content_id
from phikit.verify import attacks, sandbox

LIBRARIES = ("phikit", "torch", "math-verify", "sympy")


@dataclass(frozen=True, slots=True)
class Settings:
    """`limit`: at most so many items a task (None: all). `data`: folders of benchmark packs. `seed` decides samples and
    permutations. `threads`: programs graded at once."""

    limit: int | None = None
    seed: int = 0
    data: tuple[Path, ...] = ()
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Planned:
    """A task with its prompts and the files they came from."""

    task: Task
    prompts: tuple[Prompt, ...]
    files: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class NotRun:
    task: str
    title: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` wrote: run.json, scores.json and the records by task."""

    run: dict[str, Any]
    scores: list[dict[str, Any]]
    records: dict[str, list[Record]]


def evaluate(
    engine: Engine,
    model: str,
    chosen: Sequence[Chosen],
    out: Path,
    settings: Settings,
    *,
    identity: str = "",
    judge: Teacher | None = None,
    clean: Callable[[Sequence[Planned]], dict[str, set[str]]] | None = None,
    training: str = "",
) -> Evaluation:
    """Runs tasks and writes DIR's files (see records.py); a second call with the same settings asks nothing anew.

    `model` is the name shown; `identity` tells weights apart in the journal (without it the engine's name). `judge`
    grades the tasks that need one. `clean` gives the contaminated item ids by task (contamination.py); `training` names
    the text it looked at. A task that cannot be run (no data, no sandbox, no judge) is in run.json under `not_run` with
    its reason, unless it was named: then its missing data raise NoData. Raises ValueError, and what the engine does."""
    begin = time.monotonic()
    planned, not_run = plan(chosen, settings, engine)
    planned, more, attested = _possible(planned, judge)
    not_run += more
    if not planned:
        raise ValueError("nothing can be run: " + "; ".join(f"{n.task}: {n.reason}" for n in not_run))
    key = identity or f"{engine.info.name} {engine.info.numerics}"
    asked = [a for p in planned for a in requests(p.task, p.prompts, engine, key, settings.seed)]
    total = sum(len(a.keys) for a in asked)
    with Journal(out / records.JOURNAL) as journal, bar(f"eval {model}", total, unit="requests") as b:
        answers = answer(engine, asked, journal, b)
    if judge is not None and any(p.task.talk for p in planned):
        with Journal(out / records.JOURNAL) as journal, bar("talk", 0, unit="answers") as b:
            answers = converse(engine, asked, answers, judge, journal, b, model=key, seed=settings.seed)
    with bar("grade", len(asked), unit="answers") as b:
        graded = grade(asked, answers, b, threads=settings.threads or os.cpu_count() or 1)
    trusted: dict[str, Any] | None = None
    if judge is not None and any(p.task.judge for p in planned):
        with bar("judge", sum(a.task.judge is not None for a in asked), unit="answers") as b:
            graded = judged(asked, answers, graded, judge, b)
        trusted = _trusted(judge, settings)
    rows: dict[str, list[Record]] = {p.task.name: [] for p in planned}
    for a, x, g in zip(asked, answers, graded, strict=True):
        rows[a.task.name].append(record(a, x, g))
    if clean is not None:
        _mark(rows, clean(planned))
    scores = [s for p in planned for s in summarize(p.task, rows[p.task.name])]
    used = engine.usage
    run = {
        "model": model, "identity": key, "numerics": engine.info.numerics, "context": engine.info.context,
        "seed": settings.seed, "limit": settings.limit, "training": training,
        "tasks": [_told(p, asked) for p in planned], "not_run": [asdict(n) for n in not_run], "sandbox": attested,
        "judge": judge.model if judge is not None else "", "judge_agreement": trusted,
        "versions": _versions(),
        "tokens": {"prefilled": used.prefilled, "generated": used.generated},
        "seconds": round(time.monotonic() - begin, 2),
    }  # fmt: skip
    records.write(out, run, scores, rows)
    return Evaluation(run, scores, rows)


def plan(
    chosen: Sequence[Chosen], settings: Settings, engine: Engine | None
) -> tuple[list[Planned], list[NotRun]]:
    """Prompts of every task, and the tasks whose data are not there. Without an engine, tasks whose prompts are made to
    length raise ValueError."""
    folders = packs.roots(settings.data)
    loaded: dict[tuple[str, str], packs.Loaded] = {}

    def load(pack: str, split: str) -> packs.Loaded:
        if (pack, split) not in loaded:
            if pack not in packs.PACKS:
                raise ValueError(f"no data pack is named {pack!r}; packs are {', '.join(packs.PACKS)}")
            loaded[pack, split] = packs.load(packs.PACKS[pack], split, folders)
        return loaded[pack, split]

    planned, not_run = [], []
    for c in chosen:
        count = None if engine is None else lambda text: len(engine.encode(text))
        limit = c.limit if c.limit is not None else settings.limit
        made: list[Prompt] = []
        files: dict[str, dict[str, Any]] = {}
        try:
            for k in range(c.task.runs if c.task.per_run else 1):
                source = TaskSource(c.task, load, seed=settings.seed, run=k, count=count)
                made += prompts(c.task, source, limit)
                files |= source.files
        except NoData as e:
            if c.named:
                raise
            not_run.append(NotRun(c.task.name, c.task.title, f"no data: {e}"))
            continue
        planned.append(Planned(c.task, tuple(made), tuple(files.values())))
    return planned, not_run


def _possible(
    planned: Sequence[Planned], judge: Teacher | None
) -> tuple[list[Planned], list[NotRun], list[dict[str, Any]]]:
    """Those that a sandbox and a judge are there for; the sandbox's self-test, done where one of them runs programs."""
    attested: list[dict[str, Any]] = []
    refused = ""
    if any(p.task.tests for p in planned):
        refused = sandbox.available() or ""
        if not refused:
            tested = attacks.selftest()
            attested = [asdict(a) for a in tested]
            out = [a.name for a in tested if not a.contained]
            refused = f"the sandbox does not contain: {', '.join(out)}" if out else ""
    kept, not_run = [], []
    for p in planned:
        reason = ""
        if p.task.tests and refused:
            reason = f"no sandbox: {refused}"
        elif p.task.judge is not None and judge is None:
            reason = "no judge: name one with --judge"
        if reason:
            not_run.append(NotRun(p.task.name, p.task.title, reason))
        else:
            kept.append(p)
    return kept, not_run, attested


def _trusted(judge: Teacher, settings: Settings) -> dict[str, Any]:
    """The judge's agreement with human labels, or why it is not known; in words too."""
    pack = packs.PACKS["llmbar"]
    try:
        labels = packs.load(pack, "test", packs.roots(settings.data))
    except NoData as e:
        found: dict[str, Any] = {"reason": str(e)}
    else:
        rows = labels.rows[: settings.limit]
        with bar("judge against people", len(rows), unit="pairs") as b:
            found = {"labels": pack.title, "files": list(labels.files), **agreement(judge, rows, b)}
    return {**found, "told": told(found), "short": told(found, short=True)}


def _mark(rows: dict[str, list[Record]], contaminated: dict[str, set[str]]) -> None:
    for task, some in rows.items():
        if task in contaminated:
            for r in some:
                r["clean"] = r["id"] not in contaminated[task]


def _told(p: Planned, asked: Sequence[Asked]) -> dict[str, Any]:
    mine = [a for a in asked if a.task is p.task]
    return {
        **described(p.task),
        "items": len({x.item.id for x in p.prompts}),
        "prompts_sha": content_id(*(x.sha for x in p.prompts)),
        "prompt_tokens": {"least": min(a.tokens for a in mine), "most": max(a.tokens for a in mine)},
        "files": list(p.files),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except ImportError:
            continue
    return found
