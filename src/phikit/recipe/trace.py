"""From a preference pair back to its question, rollouts and sources, by ids in the rows of a run's stages.

A row names what it was made from in `parents`, and in `meta` or top-level values that are ids. The walk goes
from stage to stage backwards, and stops at rows that name nothing more (a source file, a world problem).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phikit.recipe.schema import STAGES
from phikit.records.io import read_jsonl, read_parquet

PAIR_STAGES = ("pivotal", "judged")
ROWS = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet")
DEPTH = 8
_ID = re.compile(r"[0-9a-f]{16,64}")


@dataclass
class Node:
    """A row with the rows it was made from. `others` counts rollouts of its question beyond `parents`."""

    id: str
    file: str
    row: dict[str, Any]
    parents: list[Node] = field(default_factory=list)
    others: int = 0
    missing: list[str] = field(default_factory=list)  # parents that no file of the run holds


def trace(run: Path, pair: str) -> Node:
    """The pair with an id (or its first digits), or the pair at an index (`3`: pivotal, `judged:3`: judged).

    Raises ValueError where the run has no such pair.
    """
    if not run.is_dir():
        raise ValueError(f"{run}: no such run folder")
    stage, row, file = _find_pair(run, pair)
    node = Node(row["id"], file, row)
    _walk(run, node, STAGES[: STAGES.index(stage) + 1])
    rollouts = _rows_of(run / stage, "rollouts")
    named = {i for p in node.parents for i in (p.id, *references(p.row))} | set(references(row))
    node.others = sum(1 for _, r in rollouts if r.get("id") not in named and named & set(references(r)))
    return node


def lineage(run: Path, id: str, stages: tuple[str, ...]) -> Node:
    """The row with this id in the files of the stages, with the rows it was made from. Raises ValueError where there is
    none."""
    root = Node("", "", {"parents": [id]})
    _walk(run, root, stages)
    if not root.parents:
        raise ValueError(f"{run}: no file of {', '.join(stages)} has a row with the id {id}")
    return root.parents[0]


def references(row: dict[str, Any]) -> list[str]:
    """Ids of other rows that a row names: its parents, and id-like values of `meta` and of other keys."""
    found = [str(p) for p in row.get("parents", ())]
    for key, value in row.items():
        if key not in ("id", "parents", "text"):
            found += _ids(value)
    return [i for i in dict.fromkeys(found) if i != row.get("id")]


def _ids(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if _ID.fullmatch(value):
            yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from _ids(v)
    elif isinstance(value, list):
        for v in value:
            yield from _ids(v)


def _find_pair(run: Path, pair: str) -> tuple[str, dict[str, Any], str]:
    stage, colon, rest = pair.rpartition(":")
    index = rest if colon else pair
    if colon and stage not in PAIR_STAGES:
        raise ValueError(
            f"{pair}: write an id, an index, or one of {', '.join(s + ':INDEX' for s in PAIR_STAGES)}"
        )
    # A short run of digits is an index; ids are 32 hex digits and may be cut, but not below 6.
    by_index = index.isdigit() and len(index) < 6
    seen = 0
    for name in (stage,) if colon else PAIR_STAGES[:1] if by_index else PAIR_STAGES:
        for seen, (file, row) in enumerate(_rows_of(run / name, "pairs"), 1):
            if (by_index and seen - 1 == int(index)) or (not by_index and row["id"].startswith(index)):
                return name, row, file
    if by_index:
        raise ValueError(f"{run}: there are {seen} {stage or PAIR_STAGES[0]} pairs, none has index {index}")
    raise ValueError(f"{run}: no pair of {' or '.join(PAIR_STAGES)} has an id that begins with {index!r}")


def _walk(run: Path, root: Node, stages: tuple[str, ...]) -> None:
    """Breadth first: one pass over the files for each generation, however many rows it has."""
    generation, done = [root], {root.id}
    for _ in range(DEPTH):
        wanted = {i for n in generation for i in references(n.row)} - done
        if not wanted:
            return
        found: dict[str, Node] = {}
        for stage in reversed(stages):
            if len(found) == len(wanted):
                break
            for file, row in _rows_of(run / stage):
                if (key := row.get("id")) in wanted and key not in found:
                    found[key] = Node(key, file, row)
        for node in generation:
            names = references(node.row)
            node.parents = [found[i] for i in names if i in found]
            parents = {str(p) for p in node.row.get("parents", ())}
            node.missing = [i for i in names if i in parents and i not in found and i not in done]
        done |= wanted
        generation = list(found.values())


def _rows_of(folder: Path, stem: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name relative to the run, row) of the row files of a stage folder."""
    files = sorted(p for p in folder.rglob("*") if p.name.endswith(ROWS)) if folder.is_dir() else []
    for path in files:
        parts = path.relative_to(folder).parts
        if any(p.startswith(".") for p in parts) or not parts[0].startswith(stem):
            continue
        name = path.relative_to(folder.parent).as_posix()
        for row in read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path):
            yield name, row
