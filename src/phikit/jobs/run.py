"""Works through a plan: what is ready goes to workers, failures are tried again or reported, rows are counted."""

from __future__ import annotations

import heapq
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from phikit.jobs.plan import PLAN, Plan, Task
from phikit.jobs.progress import Bar, bar
from phikit.jobs.task import RETRYABLE, TRUNCATED, Outcome, attempt, finished, sweep

LOCAL, PLAN_ONLY = "local", "plan"
TRIES = 3
PAUSE = 0.5  # seconds before the second try, doubled for each further one


class ShardError(ValueError):
    """A task failed for good, or too often; the message names it and what was raised."""


class Planned(Exception):
    """The plan was written and nothing was run, as `--on plan` asks; the message says what to do with it."""


class Workers(Protocol):
    """Where tasks run: here, in a pool of processes, on Ray."""

    def free(self) -> bool:
        """Whether one more task may be given."""
        ...

    def give(self, task: Task) -> None: ...

    def take(self, timeout: float | None) -> list[tuple[Task, Outcome]]:
        """Tasks that ended since; waits for at least one, or for `timeout` seconds. A worker that died gives a
        retryable outcome."""
        ...

    def close(self) -> None:
        """Ends the workers at once, whatever they do."""
        ...


def check_on(on: str) -> None:
    """Raises ValueError where `on` says no place to run tasks on."""
    if on not in (LOCAL, PLAN_ONLY, "ray", "auto") and not re.fullmatch(r"(ray://)?[^\s/]+:\d+", on):
        raise ValueError(
            f"--on {on}: give local, plan, ray, ray://host:10001 (a client's port) or host:6379 (the head node's)"
        )


def run_plan(
    plan: Plan,
    *,
    label: str,
    workers: int = 1,
    on: str = LOCAL,
    fn: Callable[..., Any] | None = None,
    tries: int = TRIES,
    again: bool = False,
) -> list[Any]:
    """What each task returned, in the order of the plan; finished tasks are not run again.

    on: `local` (`workers` processes; one: here), `ray` (a cluster of this machine's, or the one of RAY_ADDRESS), an
    address of a Ray cluster, or `plan`: nothing is run. fn: the function of every task, where other processes cannot
    find it by name. again: run truncated tasks again. Bytes do not depend on where tasks run.

    Raises ShardError at the first task that fails for good or `tries` times, and for a step into which rows go and of
    which none come out; what was finished by then is kept. Raises Planned for `plan`, ValueError where Ray is
    absent or does not answer.
    """
    check_on(on)
    outcomes = {t.index: o for t in plan.tasks if (o := finished(plan.folder, t, again))}
    todo = len(plan.tasks) - len(outcomes)
    if on == PLAN_ONLY and todo:
        file = plan.folder / PLAN
        raise Planned(
            f"{todo} of {len(plan.tasks)} tasks are to be run: {file}\n"
            f"`phikit run-task {file} --list` lists them, `phikit run-task {file} --index i` runs one; "
            "then give this command again without --on plan"
        )
    scheduler = _Scheduler(plan, outcomes, label, tries)
    if todo:
        crew = open_workers(plan, on, min(workers, todo), fn)
        try:
            with bar(label, total=len(plan.tasks), unit="shards", done=len(outcomes)) as b:
                scheduler.work(crew, b)
        finally:
            crew.close()
    return [outcomes[t.index].result for t in plan.tasks]


def open_workers(plan: Plan, on: str, workers: int, fn: Callable[..., Any] | None) -> Workers:
    if on == LOCAL and workers <= 1:
        return Here(plan, fn)
    if nameless := next((t for t in plan.tasks if not t.call), None):
        raise ValueError(f"{nameless.name}: other processes cannot find its function: put it into a module")
    if on == LOCAL:
        from phikit.jobs.local import Pool

        return Pool(plan.folder, workers)
    from phikit.jobs.on_ray import OnRay

    return OnRay(plan.folder, on, workers)


class Here:
    """In this process, one at a time."""

    def __init__(self, plan: Plan, fn: Callable[..., Any] | None) -> None:
        self.folder, self.fn = plan.folder, fn
        self.task: Task | None = None

    def free(self) -> bool:
        return self.task is None

    def give(self, task: Task) -> None:
        self.task = task

    def take(self, timeout: float | None) -> list[tuple[Task, Outcome]]:
        assert self.task is not None
        task, self.task = self.task, None
        return [(task, attempt(self.folder, task, self.fn))]

    def close(self) -> None: ...


class _Scheduler:
    """`outcomes` holds what is finished and grows."""

    def __init__(self, plan: Plan, outcomes: dict[int, Outcome], label: str, tries: int) -> None:
        self.plan, self.outcomes, self.label, self.tries = plan, outcomes, label, tries
        self.tried: Counter[int] = Counter()
        self.later: list[tuple[float, int]] = []  # (when, task) to be tried again
        self.failed: list[tuple[Task, Outcome]] = []
        self.blocks: dict[int, list[int]] = {}  # a task -> those that wait for it
        self.waits: dict[int, int] = {}  # a task -> how many it waits for
        self.ready: deque[int] = deque()
        for task in plan.tasks:
            if task.index in outcomes:
                continue
            open_needs = [n for n in task.needs if n not in outcomes]
            self.waits[task.index] = len(open_needs)
            for n in open_needs:
                self.blocks.setdefault(n, []).append(task.index)
            if not open_needs:
                self.ready.append(task.index)
        self.steps = plan.steps()
        self.left = {s: sum(t.index not in outcomes for t in tasks) for s, tasks in self.steps.items()}
        for step in self.steps:
            if not self.left[step]:
                self._check_rows(step)

    def work(self, crew: Workers, b: Bar) -> None:
        """Until all is done, or something has failed and what runs has ended."""
        running = 0
        while running or (not self.failed and (self.ready or self.later)):
            while self.later and self.later[0][0] <= time.monotonic():
                self.ready.appendleft(heapq.heappop(self.later)[1])
            while self.ready and not self.failed and crew.free():
                crew.give(self.plan.tasks[self.ready.popleft()])
                running += 1
            pause = max(self.later[0][0] - time.monotonic(), 0) if self.later else None
            if not running:
                time.sleep(pause or 0)
                continue
            for task, outcome in crew.take(pause):
                running -= 1
                self._ended(task, outcome, b)
        if self.failed:
            task, outcome = min(self.failed, key=lambda f: f[0].index)
            error = ShardError(f"{_named(self.label, task)}: {outcome.reason}")
            error.add_note(outcome.trace)
            raise error from (OSError(outcome.number, outcome.reason) if outcome.number else None)

    def _ended(self, task: Task, outcome: Outcome, b: Bar) -> None:
        if outcome.ok:
            self.outcomes[task.index] = outcome
            self.left[task.step] -= 1
            if not self.left[task.step]:
                self._check_rows(task.step)
            for other in self.blocks.get(task.index, ()):
                self.waits[other] -= 1
                if not self.waits[other]:
                    self.ready.append(other)
            cut = {"truncated": sum(o.state == TRUNCATED for o in self.outcomes.values())}
            b.advance(1, **(cut if cut["truncated"] else {}))
            return
        sweep(self.plan.folder, task)
        self.tried[task.index] += 1
        n = self.tried[task.index]
        if outcome.state == RETRYABLE and n < self.tries:
            heapq.heappush(self.later, (time.monotonic() + PAUSE * 2 ** (n - 1), task.index))
            b.advance(0, tried_again=sum(self.tried.values()))
            return
        if outcome.state == RETRYABLE:
            outcome = replace(outcome, reason=f"given up after {n} tries: {outcome.reason}")
        self.failed.append((task, outcome))

    def _check_rows(self, step: str) -> None:
        found = totals([self.outcomes[t.index].result for t in self.steps[step]])
        if found and found["in"] and not found["out"]:
            most = sorted(found["dropped"].items(), key=lambda kv: (-kv[1], kv[0]))
            why = ", ".join(f"{k} {n}" for k, n in most) or "no reason was counted"
            what = f"{found['in']} files or rows were read ({why}), none was kept"
            raise ShardError(f"{self.label}, {step}: the result is empty: {what}")


def totals(results: list[Any]) -> dict[str, Any] | None:
    """{in, out, dropped: {reason: n}} of a step whose tasks return such counts; None for other results."""
    if not results or not all(isinstance(r, Mapping) and {"in", "out"} <= r.keys() for r in results):
        return None
    dropped: Counter[str] = Counter()
    for r in results:
        dropped.update(r.get("dropped", {}))
    return {
        "in": sum(r["in"] for r in results),
        "out": sum(r["out"] for r in results),
        "dropped": dict(dropped),
    }


def _named(label: str, task: Task) -> str:
    return task.name if label == task.step else f"{label}: {task.name}"
