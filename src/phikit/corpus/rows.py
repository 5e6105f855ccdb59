"""Rows of JSONL, Parquet, JSON and CSV files, with bounds on what one line may hold."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phikit.records.io import RowError, bounded_lines, open_lines, parse_row

MAX_LINE = 64 << 20  # bytes of one line, and of a .json file

Row = dict[str, Any]


def rows(path: Path) -> Iterator[tuple[int, Row | str]]:
    """(number, row), or (number, what is wrong) for a row that is passed over. Raises ValueError, EOFError or the
    packer's error where nothing after it can be read."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix == ".json":
        yield from _json(path)
    elif path.suffix in (".csv", ".tsv"):
        yield from _csv(path)
    else:
        yield from _jsonl(path)


def _parquet(path: Path) -> Iterator[tuple[int, Row | str]]:
    """A damaged row group costs its own rows: those after it are read."""
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, ValueError) as e:  # Arrow raises one or the other, depending on the fault
        raise RowError(f"{path}: not a readable Parquet file ({e})") from e
    first = 0
    for group in range(file.num_row_groups):
        size, number = file.metadata.row_group(group).num_rows, 0
        try:
            for batch in file.iter_batches(batch_size=4096, row_groups=[group]):
                for row in batch.to_pylist():
                    number += 1
                    yield first + number, row
        except (OSError, ValueError) as e:
            yield (
                first + number + 1,
                f"row group {group + 1} is damaged after {number} of its {size} rows ({e})",
            )
        first += size


def _jsonl(path: Path) -> Iterator[tuple[int, Row | str]]:
    row_number = 0
    with open_lines(path) as f:
        for number, line in bounded_lines(f, MAX_LINE):
            if line is None:
                row_number += 1
                yield row_number, f"line {number} is longer than {MAX_LINE >> 20} MB"
            elif line.strip():
                row_number += 1
                try:
                    row = parse_row(line)
                except RowError as e:
                    raise ValueError(f"line {number}: {e}") from e
                yield row_number, row


def _json(path: Path) -> Iterator[tuple[int, Row | str]]:
    if path.stat().st_size > MAX_LINE:
        raise ValueError(f"larger than {MAX_LINE >> 20} MB; write it as JSONL")
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError as e:
        raise ValueError("nested too deep") from e
    lists = [v for v in value.values() if isinstance(v, list)] if isinstance(value, dict) else []
    found = value if isinstance(value, list) else lists[0] if len(lists) == 1 else [value]
    for number, row in enumerate(found, 1):
        yield number, row if isinstance(row, dict) else f"row {number} is no object but {type(row).__name__}"


def _csv(path: Path) -> Iterator[tuple[int, Row | str]]:
    def text() -> Iterator[str]:
        with path.open("rb") as f:
            for number, line in bounded_lines(f, MAX_LINE):
                if line is None:
                    raise ValueError(f"line {number} is longer than {MAX_LINE >> 20} MB")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")

    before = csv.field_size_limit(MAX_LINE)
    try:
        reader = csv.DictReader(
            text(), dialect="excel-tab" if path.suffix == ".tsv" else "excel", strict=True
        )
        for number, row in enumerate(reader, 1):
            yield number, {str(k): v for k, v in row.items() if isinstance(v, str)}
    except csv.Error as e:
        raise ValueError(f"not valid CSV ({e})") from e
    finally:
        csv.field_size_limit(before)
