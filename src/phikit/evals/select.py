"""Which tasks are run and with what: `--tasks base,gsm8k,mine.yaml --set gsm8k.shots=4`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from phikit.evals import kit
from phikit.evals.task import Generate, Task
from phikit.evals.tasks import all_tasks
from phikit.evals.user import user_task

USER = (".yaml", ".yml", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".csv")
KEYS = (
    "shots",
    "shots_split",
    "split",
    "runs",
    "temperature",
    "top_p",
    "max_tokens",
    "length",
    "cutoff",
    "limit",
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A task as it will be run. `named`: the person named it, so that missing data is an error and not a line in the
    report. `limit` overrides the run's."""

    task: Task
    named: bool
    limit: int | None = None


def choose(names: str, settings: Sequence[str] = ()) -> list[Chosen]:
    """Tasks of a list of suites, task names and files of the user's, in the order given, each once."""
    known = all_tasks()
    suites = {t.suite for t in known.values()}
    found: dict[str, Chosen] = {}
    for name in filter(None, (n.strip() for n in names.split(","))):
        if name in known:
            found[name] = Chosen(known[name], True)
        elif name in suites:
            for t in known.values():
                if t.suite == name:
                    found.setdefault(t.name, Chosen(t, False))
        elif name.endswith(USER) or kit.is_kit(Path(name)):
            task = kit.task(Path(name)) if kit.is_kit(Path(name)) else user_task(Path(name))
            if task.name in known or task.name in found:
                raise ValueError(f"{name}: there is another task named {task.name!r}; give it another `name`")
            found[task.name] = Chosen(task, True)
        else:
            raise ValueError(
                f"no task or suite is named {name!r}; suites are {', '.join(sorted(suites))}; tasks are "
                f"{', '.join(known)}; a task of your own is a .yaml, .jsonl, .csv or .parquet file, or a folder of "
                "`phikit eval new`"
            )
    if not found:
        raise ValueError("name at least one task or suite with --tasks")
    for text in sorted(settings, key=lambda s: ".temperature=" not in s):  # runs above 1 need one
        name, key, value = _setting(text)
        some = [name] if name in found else [n for n, c in found.items() if c.task.suite == name]
        if not some:
            raise ValueError(f"--set {text}: task {name!r} is not among those that run ({', '.join(found)})")
        for each in some:
            found[each] = _with(found[each], key, value, text)
    return list(found.values())


def described(task: Task) -> dict[str, Any]:
    """What of a task decides its numbers, for run.json."""
    out: dict[str, Any] = {
        "name": task.name, "title": task.title, "suite": task.suite, "version": task.version, "kind": task.kind,
        "split": task.split, "metrics": [*task.metrics, *task.by_item, *task.derived], "runs": task.runs,
        "length": task.length, "note": task.note, "judged": task.judge is not None, "cutoff": task.cutoff,
        "turns": task.talk.turns if task.talk else 1,
    }  # fmt: skip
    if task.shots is not None:
        out["shots"] = {
            "n": task.shots.n,
            "split": task.shots.split,
            "draw": task.shots.draw,
            "seed": task.shots.seed,
        }
    if isinstance(task.output, Generate):
        g = task.output
        out |= {
            "max_tokens": g.max_tokens,
            "temperature": g.temperature,
            "top_p": g.top_p,
            "stop": list(g.stop),
        }
    return out


def _setting(text: str) -> tuple[str, str, str]:
    left, equals, value = text.partition("=")
    name, dot, key = left.rpartition(".")
    if not equals or not dot or key not in KEYS:
        raise ValueError(f"--set {text}: expected TASK.KEY=VALUE with a key of {', '.join(KEYS)}")
    return name, key, value


def _with(chosen: Chosen, key: str, value: str, text: str) -> Chosen:
    task = chosen.task
    try:
        if key == "limit":
            return replace(chosen, limit=_positive(value))
        if key in ("shots", "shots_split"):
            if task.shots is None:
                raise ValueError(f"task {task.name} has no examples")
            part: Mapping[str, Any] = {"n": int(value)} if key == "shots" else {"split": value}
            return replace(chosen, task=replace(task, shots=replace(task.shots, **part)))
        if key == "split":
            return replace(chosen, task=replace(task, split=value))
        if key == "cutoff":
            return replace(chosen, task=replace(task, cutoff=date.fromisoformat(value).isoformat()))
        if key == "length":
            return replace(chosen, task=replace(task, length=_positive(value)))
        if not isinstance(task.output, Generate):
            raise ValueError(f"task {task.name} generates nothing")
        made: Any = float(value) if key in ("temperature", "top_p") else _positive(value)
        return replace(chosen, task=replace(task, output=replace(task.output, **{key: made})))
    except ValueError as e:
        raise ValueError(f"--set {text}: {e}") from e


def _positive(value: str) -> int:
    if int(value) < 1:
        raise ValueError(f"{value} is not a positive number")
    return int(value)
