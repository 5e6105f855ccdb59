"""`phikit run-task`: one task of a plan, for the job arrays of Slurm and for whatever else starts processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from phikit.jobs.plan import Task, load
from phikit.jobs.task import DONE, RETRYABLE, attempt, finished, last

# Exit codes. 2 is a wrong call: no such plan, no such task.
OK, FAILED, WAITING, TRY_AGAIN = 0, 1, 3, 75


def run_task(path: Path, index: int, say: Callable[[str], None], again: bool = False) -> int:
    """Runs task `index` of the plan in `path`; what is finished is not run again (with `again`, truncated tasks are).

    Returns 0: finished, truncated tasks too; 1: it failed and will fail again until something is changed; 3: its
    inputs are missing, and what must run before is said; 75: another try may succeed (EX_TEMPFAIL, for a requeue).
    Raises ValueError where there is no such plan or task.
    """
    plan = load(path)
    if not 0 <= index < len(plan.tasks):
        raise ValueError(f"--index {index}: the tasks of {path} are 0 to {len(plan.tasks) - 1}")
    task = plan.tasks[index]
    if found := finished(plan.folder, task, again):
        say(f"{task.name}: {_state(found.state, found.reason)} before")
        return OK
    missing = [plan.tasks[n] for n in task.needs if not finished(plan.folder, plan.tasks[n])]
    if missing:
        say(f"{task.name} waits for {_listed(missing)}: run them first")
        for other in missing[:5]:
            if (outcome := last(plan.folder, other)) and not outcome.ok:
                say(f"  {other.index} failed ({outcome.state}): {outcome.reason}")
        return WAITING
    outcome = attempt(plan.folder, task, far=True)
    say(f"{task.name}: {_state(outcome.state, outcome.reason)}")
    return OK if outcome.ok else TRY_AGAIN if outcome.state == RETRYABLE else FAILED


def list_tasks(path: Path, say: Callable[[str], None]) -> None:
    """The steps of a plan, how their tasks stand, and the job arrays that run them."""
    plan = load(path)
    width = max((len(s) for s in plan.steps()), default=4)
    failed = []
    for step, tasks in plan.steps().items():
        states: Counter[str] = Counter()
        for task in tasks:
            outcome = last(plan.folder, task)
            states[outcome.state if outcome else "to do"] += 1
            if outcome and outcome.state != DONE:
                failed.append(f"  {task.index} {_state(outcome.state, outcome.reason)}")
        shown = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        say(
            f"{step:<{width}}  {tasks[0].kind:<5}  {_range(range(tasks[0].index, tasks[-1].index + 1))}: {shown}"
        )
    for line in failed:
        say(line)
    say(f"job arrays, each after the one before: {' '.join(_range(w) for w in plan.waves())}")


def count(path: Path) -> int:
    return len(load(path).tasks)


def _state(state: str, reason: str) -> str:
    return f"{state} ({reason})" if reason else state


def _range(numbers: range) -> str:
    return f"{numbers.start}-{numbers.stop - 1}" if len(numbers) > 1 else str(numbers.start)


def _listed(tasks: list[Task]) -> str:
    shown = ", ".join(str(t.index) for t in tasks[:10]) + (", ..." if len(tasks) > 10 else "")
    return f"{len(tasks)} {'task' if len(tasks) == 1 else 'tasks'} ({shown})"
