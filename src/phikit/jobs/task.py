"""One task of a plan: run it, give what it wrote its names, and note how it ended.

A task writes under temporary names; they are renamed, and the note is written, when all is whole. So a task may be
killed at any moment, and may run twice at once on two machines: equal tasks write equal bytes.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phikit.jobs import plan as plans
from phikit.jobs.plan import PLAN, Task
from phikit.records.ids import file_sha256
from phikit.records.io import RowError, read_json, write_text

DONE, TRUNCATED, RETRYABLE, FINAL = "done", "truncated", "retryable", "final"
# What another try cannot mend.
_FINAL = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Retryable(Exception):
    """Raised by a task for what may go well next time: a busy service, a file that is being written."""


class Truncated(Exception):
    """Raised by a task that wrote what there is, but knows that more belongs to it: an archive cut short. The plan
    goes on with it, the reason is reported, and `again=True` repeats it."""

    def __init__(self, reason: str, result: Any = None) -> None:
        super().__init__(reason)
        self.result = result


@dataclass(frozen=True)
class Outcome:
    """How a task ended. state: done, truncated (finished, but more belongs to it), retryable (a later try may
    succeed) or final (it fails until something is changed). result: what the function returned. sizes: bytes of
    each file it wrote. number, trace: of what it raised, the errno and the traceback."""

    key: str
    state: str
    result: Any = None
    reason: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    number: int | None = None
    trace: str = ""

    @property
    def ok(self) -> bool:
        return self.state in (DONE, TRUNCATED)


def note(folder: Path, task: Task) -> Path:
    return folder / f"{task.index:05d}.json"


def _write_note(folder: Path, task: Task, outcome: Outcome) -> None:
    write_text(note(folder, task), json.dumps(vars(outcome)) + "\n")


def last(folder: Path, task: Task) -> Outcome | None:
    """How `task` ended when it was last run; None where it was not, where it was another task, or where a file that
    it wrote is gone or of another size."""
    try:
        found = Outcome(**read_json(note(folder, task)))
    except (FileNotFoundError, RowError, TypeError):
        return None
    if found.key != task.key:
        return None
    return found if not found.ok or not _gone(folder, found) else None


def finished(folder: Path, task: Task, again: bool = False) -> Outcome | None:
    """The outcome of a task that need not be run; with `again`, a truncated one is to be run too."""
    found = last(folder, task)
    return found if found and found.ok and not (again and found.state == TRUNCATED) else None


def attempt(folder: Path, task: Task, fn: Callable[..., Any] | None = None, *, far: bool = False) -> Outcome:
    """Runs `task` once and notes the outcome in `folder`. `fn`: the function, where it is at hand. `far`: on another
    machine perhaps, so that folder and code are checked first. Raises nothing that the task raised."""
    token = uuid.uuid4().hex[:8]
    paths = [folder / w for w in task.writes]
    drafts = [p.with_name(f".{token}.{p.name}") for p in paths]  # the suffix tells how it is packed
    try:
        if far:
            _check_place(folder, task)
        for p in paths:
            p.parent.mkdir(parents=True, exist_ok=True)
        fn = fn or plans.resolve(task.call)
        outcome = _call(fn, folder, task, drafts)
        # As it is read back later, order of keys included: a resumed run must not differ.
        outcome = replace(outcome, result=json.loads(json.dumps(outcome.result)))
        for draft, path in zip(drafts, paths):
            if not draft.is_file():
                raise ValueError(f"it wrote no {path.name}")
            draft.replace(path)
        outcome = replace(outcome, sizes={w: p.stat().st_size for w, p in zip(task.writes, paths)})
        _write_note(folder, task, outcome)
        return outcome
    except Exception as e:
        failed = _failure(task, e)
        try:
            if (folder / PLAN).is_file():
                _write_note(folder, task, failed)
        except OSError:  # a full disk must not hide what happened
            pass
        return failed
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def one_core() -> None:
    """What a worker of several sets: a library that would start a thread for each core starts one."""
    os.environ.setdefault("RAYON_NUM_THREADS", "1")


def sweep(folder: Path, task: Task) -> None:
    """Removes what a try that was killed left of the files it wrote; nobody else may run the task meanwhile."""
    for path in (folder / w for w in task.writes):
        for draft in path.parent.glob(f".????????.{path.name}*"):
            draft.unlink(missing_ok=True)
        for draft in path.parent.glob(f"..????????.{path.name}*"):  # of a writer that is atomic itself
            draft.unlink(missing_ok=True)


def _call(fn: Callable[..., Any], folder: Path, task: Task, drafts: list[Path]) -> Outcome:
    given = ([folder / r for r in task.reads], drafts) if task.reads or task.writes else ()
    try:
        return Outcome(task.key, DONE, fn(task.options, *given))
    except Truncated as e:
        return Outcome(task.key, TRUNCATED, e.result, str(e))


def _failure(task: Task, e: Exception) -> Outcome:
    number = e.errno if isinstance(e, OSError) else None
    passing = (
        isinstance(e, Retryable | OSError | MemoryError) and not isinstance(e, _FINAL) and number not in _FULL
    )
    plain = isinstance(e, ValueError | OSError | Retryable)
    text = str(e) if plain and str(e) else f"{type(e).__name__}: {e}"
    trace = "".join(traceback.format_exception(e))
    return Outcome(task.key, RETRYABLE if passing else FINAL, reason=text, number=number, trace=trace)


def _check_place(folder: Path, task: Task) -> None:
    """That this machine sees the plan's folder, and has the code and the inputs that the plan was written for."""
    here = platform.node() or "this machine"
    if not (folder / PLAN).is_file():
        raise FileNotFoundError(
            f"{here} does not see {folder}: keep the run in a folder that all machines share"
        )
    if plans.version_of(task.call) != task.code:
        raise ValueError(
            f"{here} has other code or libraries than the machine that wrote the plan: install the same phikit, "
            "Python and libraries there, or write the plan again"
        )
    for name, sha256 in task.given.items():
        if file_sha256(folder / name) != sha256:
            raise ValueError(f"{folder / name} has changed since the plan was written: write the plan again")


def _gone(folder: Path, outcome: Outcome) -> bool:
    for name, size in outcome.sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return True
    return False
