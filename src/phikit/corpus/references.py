"""Evaluation items from JSONL files, as decontamination wants them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phikit.records.io import read_jsonl


def read_references(path: Path) -> Iterator[tuple[str, str]]:
    """(item id, text) of each row: `text` where a row has it, else all its strings (question, options,
    ...), lists included, in the row's order and one a line. The id is the row's `id`, else "<file>:<line>".

    Raises ValueError for a missing file or a row without text.
    """
    if not path.is_file():
        raise ValueError(f"corpus.decontaminate.against: {path} is not a file")
    for number, row in enumerate(read_jsonl(path), 1):
        item = str(row["id"]) if "id" in row else f"{path.name}:{number}"
        text = row["text"] if isinstance(row.get("text"), str) else "\n".join(_strings(row))
        if not text.strip():
            raise ValueError(f"{path}, line {number}: no text in this row")
        yield item, text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("id", "other", "meta", "metadata"):
                yield from _strings(inner)
