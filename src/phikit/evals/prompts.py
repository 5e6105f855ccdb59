"""Prompts of a task: its items with their examples, as the exact text that a model reads, each with its hash."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.evals.packs import Loaded
from phikit.evals.task import Choices, Item, Row, Shots, Task
from phikit.records.ids import content_id, file_sha256, seed_of
from phikit.records.types import Turn

Load = Callable[[str, str], Loaded]  # (pack, splits) -> rows
Made = tuple[Item, str, tuple[str, ...]]  # an item, its whole text, the ids of its examples


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked. `text` holds head, examples and question; `sha` is the hash of everything the model is given but
    the choices (form, system turn, text). `examples` are the ids of the rows shown. `run` is -1 where one prompt
    serves all runs."""

    item: Item
    text: str
    examples: tuple[str, ...]
    sha: str
    run: int = -1

    def turns(self) -> list[Turn]:
        """The conversation of a chat task."""
        system = [Turn("system", self.item.system)] if self.item.system else []
        return [*system, Turn("user", self.text)]


class TaskSource:
    """`Source` of one task and run; it remembers which files were read."""

    def __init__(
        self,
        task: Task,
        load: Load,
        *,
        seed: int = 0,
        run: int = 0,
        count: Callable[[str], int] | None = None,
    ) -> None:
        self.task, self.seed, self.run, self.length = task, seed, run, task.length
        self.cutoff = task.cutoff
        self.files: dict[str, dict[str, Any]] = {}
        self._load, self._count = load, count

    def rows(self, split: str, pack: str = "") -> Sequence[Row]:
        loaded = self._load(pack or self.task.pack, split)
        for f in loaded.files:
            self.files[f["sha256"]] = {"pack": pack or self.task.pack, "split": loaded.split, **f}
        return loaded.rows

    def rng(self, *parts: object) -> random.Random:
        return random.Random(seed_of(self.seed, self.task.name, self.run, *parts))

    def count(self, text: str) -> int:
        if self._count is None:
            raise ValueError(
                f"task {self.task.name}: its prompts are made to length and need a model's tokenizer"
            )
        return self._count(text)

    def used(self, path: Path) -> None:
        digest = file_sha256(path)
        self.files[digest] = {"pack": "", "split": "", "file": path.name, "sha256": digest, "known": ""}


def prompts(task: Task, source: TaskSource, limit: int | None = None) -> list[Prompt]:
    """Prompts of one run, in order. Examples are drawn for all items before `limit` is applied, so a limited run asks
    exactly what the full one asks. `limit` takes groups in turn, so that every subject is there. Raises ValueError or
    NoData."""
    made = _generated(task, source) if task.item is None else _rows(task, source)
    if not made:
        raise ValueError(f"task {task.name}: its data hold no item to ask")
    ids = [m[0].id for m in made]
    if len(set(ids)) < len(ids):
        raise ValueError(
            f"task {task.name}: two items have the id {next(i for i in ids if ids.count(i) > 1)!r}"
        )
    run = source.run if task.per_run else -1
    kept = made if limit is None or limit >= len(made) else _limited(made, limit)
    return [Prompt(item, text, shown, prompt_sha(task, item, text), run) for item, text, shown in kept]


def prompt_sha(task: Task, item: Item, text: str) -> str:
    return content_id("prompt", task.kind, item.system, text)


def _generated(task: Task, source: TaskSource) -> list[Made]:
    assert task.items is not None
    return [(_checked(task, i), _head(task, i) + i.prompt, ()) for i in task.items(source)]


def _rows(task: Task, source: TaskSource) -> list[Made]:
    assert task.item is not None
    rows = source.rows(task.split)
    items = [_checked(task, task.item(r)) for r in rows]
    if task.shots is None or task.shots.n == 0:
        return [(i, _head(task, i) + i.prompt, ()) for i in items]
    pool = source.rows(task.shots.split)
    same = pool is rows or pool == rows
    shown = items if same else [task.item(r) for r in pool]
    out: list[Made] = []
    for item, examples in zip(items, _draw(task, task.shots, items, shown, same)):
        if examples is None:
            continue
        told = "".join(_example(task, e) + task.shots.joiner for e in examples)
        out.append((item, _head(task, item) + told + item.prompt, tuple(e.id for e in examples)))
    return out


def _draw(
    task: Task, shots: Shots, items: Sequence[Item], pool: Sequence[Item], same: bool
) -> list[list[Item] | None]:
    """Examples of each item; None for an item that is an example itself and so is not evaluated."""
    need = shots.n + same
    if shots.draw == "random":
        _enough(task, shots, len(pool), need)
        rng = random.Random(shots.seed)
        return [[e for e in rng.sample(pool, need) if e.id != i.id or not same][: shots.n] for i in items]
    if shots.draw == "fixed":
        _enough(task, shots, len(pool), need)
        fixed = random.Random(shots.seed).sample(pool, shots.n)
        ids = {e.id for e in fixed} if same else set()
        return [None if i.id in ids else fixed for i in items]
    by_group: dict[str, list[Item]] = {}
    for e in pool:
        by_group.setdefault(e.group, []).append(e)
    out: list[list[Item] | None] = []
    for i in items:
        mine = [e for e in by_group.get(i.group, []) if not same or e.id != i.id][: shots.n]
        _enough(task, shots, len(mine), shots.n, f" of group {i.group!r}" if i.group else "")
        out.append(mine)
    return out


def _enough(task: Task, shots: Shots, have: int, need: int, where: str = "") -> None:
    if have < need:
        raise ValueError(
            f"task {task.name}: {shots.n} examples need {need} rows{where} in split {shots.split}, there are {have}; "
            f"lower it with --set {task.name}.shots={max(0, have - (need - shots.n))}"
        )


def _example(task: Task, item: Item) -> str:
    if not item.target:
        raise ValueError(f"task {task.name}: row {item.id} has no `target`, which an example needs")
    delimiter = task.output.delimiter if isinstance(task.output, Choices) else ""
    return item.prompt + delimiter + item.target


def _head(task: Task, item: Item) -> str:
    return task.head if isinstance(task.head, str) else task.head(item)


def _checked(task: Task, item: Item) -> Item:
    usable = 0 <= item.gold < len(item.choices) and len(set(item.choices)) > 1
    if isinstance(task.output, Choices) and not usable:
        raise ValueError(
            f"task {task.name}, item {item.id}: needs at least two choices that differ and the index of the right one, "
            f"got {item.choices} and {item.gold}"
        )
    return item


def _limited(made: Sequence[Made], limit: int) -> list[Made]:
    columns: dict[str, list[int]] = {}
    for k, (item, _, _) in enumerate(made):
        columns.setdefault(item.group, []).append(k)
    turns = sorted((place, k) for some in columns.values() for place, k in enumerate(some))
    return [made[k] for k in sorted(k for _, k in turns[:limit])]
