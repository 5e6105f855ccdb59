"""Plans: a stage as pure shard tasks and barriers, in a file that any machine can work through.

A stage compiles to steps. A `map` step has a task for each shard. `group` (compare all documents), `train` (fit
something on all of them) and `mix` (put all in order) are barriers: they wait for every task before them, and what
comes after waits for them. A task knows the files it reads and writes, relative to the plan's folder, and is
identified by content: what it reads, its code, its options. So a plan moves with its folder, and equal tasks are
never computed twice.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phikit.records import code
from phikit.records.ids import file_sha256, fingerprint
from phikit.records.io import RowError, read_json, write_json

PLAN = "plan.json"
MAP, BARRIERS = "map", ("group", "train", "mix")
# Modules that carry tasks about and shape none of their bytes.
_UNSHAPING = {"phikit", *(f"phikit.jobs.{n}" for n in ("local", "on_ray", "pool", "progress", "run"))}


@dataclass(frozen=True)
class Shard:
    """One call of a step's function: `fn(options, reads, writes)` with JSON-able options and paths relative to the
    plan's folder. Without files it is `fn(options)`."""

    options: Any
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """name: unique in its plan. fn: a function of a module, so that other processes find it. kind: `map` or one of
    the barriers."""

    name: str
    fn: Callable[..., Any]
    shards: Sequence[Shard]
    kind: str = MAP


@dataclass(frozen=True)
class Task:
    """One shard of one step. `call` is `module:function`; `code` a hash of its sources and libraries, "" where they
    are not ours; `given` the sha256 of each file it reads that no task writes; `needs` the tasks that must be done
    before it; `key` identifies it by content."""

    index: int
    step: str
    kind: str
    call: str
    code: str
    options: Any
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    given: Mapping[str, str]
    needs: tuple[int, ...]
    key: str

    @property
    def name(self) -> str:
        return f"{self.step}, shard {self.index} ({_short(self.options)})" if self.kind == MAP else self.step


@dataclass(frozen=True)
class Plan:
    """`folder` holds the plan, what its tasks write, and a note on the outcome of each."""

    folder: Path
    tasks: tuple[Task, ...]

    def steps(self) -> dict[str, list[Task]]:
        found: dict[str, list[Task]] = {}
        for task in self.tasks:
            found.setdefault(task.step, []).append(task)
        return found

    def waves(self) -> list[range]:
        """Ranges of tasks, each to be run when the one before is done, and inside which no task needs another."""
        found: list[range] = []
        for tasks in self.steps().values():
            first, end = tasks[0].index, tasks[-1].index + 1
            if found and all(n < found[-1].start for t in tasks for n in t.needs):
                found[-1] = range(found[-1].start, end)
            else:
                found.append(range(first, end))
        return found


def compile(folder: Path, steps: Sequence[Step]) -> Plan:
    """The plan of `steps` in their order, written to `folder`/plan.json. Files that no earlier task writes must be
    there and enter by their bytes.

    Raises ValueError for an unknown kind, a step named twice, a file written twice, or an input that is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)  # names with .. go through it
    tasks: list[Task] = []
    maker: dict[str, tuple[int, str]] = {}  # a file -> the task that writes it, its identity
    hashed: dict[str, str] = {}
    barrier: int | None = None
    since = 0  # the first task after the last barrier
    for step in steps:
        if step.kind not in (MAP, *BARRIERS):
            raise ValueError(f"step {step.name}: kind {step.kind!r} is none of map, {', '.join(BARRIERS)}")
        if any(t.step == step.name for t in tasks):
            raise ValueError(f"two steps are named {step.name}: rename one")
        if step.kind != MAP and len(step.shards) != 1:
            raise ValueError(f"step {step.name}: a barrier is one task, it has {len(step.shards)}")
        call, version = call_of(step.fn), code_of(step.fn)
        for shard in step.shards:
            index = len(tasks)
            needs = {maker[r][0] for r in shard.reads if r in maker}
            needs |= set(range(since, index)) if step.kind != MAP else set()
            needs |= {barrier} if barrier is not None else set()
            given = {r: _hash(folder, r, step, hashed) for r in shard.reads if r not in maker}
            identity = {
                "code": version, "options": shard.options, "writes": shard.writes,
                "reads": [maker[r][1] if r in maker else given[r] for r in shard.reads],
                "after": [tasks[n].key for n in sorted(needs)],
            }  # fmt: skip
            task = Task(
                index, step.name, step.kind, call, version, shard.options, tuple(shard.reads), tuple(shard.writes),
                given, tuple(sorted(needs)), fingerprint(identity),
            )  # fmt: skip
            for place, name in enumerate(shard.writes):
                if name in maker:
                    raise ValueError(f"{task.name} writes {name}, which task {maker[name][0]} writes too")
                maker[name] = (index, f"{task.key}:{place}")
            tasks.append(task)
        if step.kind != MAP:
            barrier, since = len(tasks) - 1, len(tasks)
    plan = Plan(folder, tuple(tasks))
    write_json(folder / PLAN, {"tasks": [asdict(t) for t in tasks]})
    return plan


def load(path: Path) -> Plan:
    """The plan in a file. Raises ValueError where it is none."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no plan here; --on plan writes one")
    try:
        tasks = tuple(
            Task(**{**row, **{k: tuple(row[k]) for k in ("reads", "writes", "needs")}})
            for row in read_json(path)["tasks"]
        )
    except (KeyError, TypeError, AttributeError, RowError) as e:
        raise ValueError(
            f"{path}: not a plan of this version of phikit ({e}); write it again with --on plan"
        ) from e
    if [t.index for t in tasks] != list(range(len(tasks))):
        raise ValueError(f"{path}: its tasks are not numbered 0, 1, 2, ...; write it again with --on plan")
    return Plan(path.parent, tasks)


def call_of(fn: Callable[..., Any]) -> str:
    """`module:function`, by which another process finds `fn`; "" where it cannot be found by name."""
    call = f"{getattr(fn, '__module__', '')}:{getattr(fn, '__qualname__', '')}"
    try:
        return call if resolve(call) is fn else ""
    except (ImportError, AttributeError, ValueError):
        return ""


def resolve(call: str) -> Callable[..., Any]:
    """The function that `call` names."""
    module, _, name = call.partition(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))  # type: ignore[arg-type]


def code_of(fn: Callable[..., Any]) -> str:
    """A hash of the sources that `fn` reaches and of the versions of the libraries they import; "" where `fn` is no
    function of a package of ours: then its caller must keep the folder apart."""
    call = call_of(fn)
    return version_of(call) if call else ""


def version_of(call: str) -> str:
    """`code_of` the function that `call` names, on this machine."""
    version = _version_of(call.partition(":")[0])
    return fingerprint([call, version]) if version else ""


@functools.cache
def _version_of(module: str) -> str:
    modules = code.closure(module, _UNSHAPING)
    if not modules:
        return ""
    libraries = code.library_versions(modules, {"phikit", "ray", "rich"})
    return fingerprint([code.files_fingerprint(module, modules), libraries])


def _hash(folder: Path, name: str, step: Step, hashed: dict[str, str]) -> str:
    if name not in hashed:
        path = folder / name
        if not path.is_file():
            raise ValueError(
                f"step {step.name} reads {path}: there is no such file, and no task before it writes it"
            )
        hashed[name] = file_sha256(path)
    return hashed[name]


def _short(options: Any) -> str:
    text = str(options)
    return text if len(text) <= 80 else text[:77] + "..."
