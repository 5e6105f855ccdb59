"""Rows of JSONL, Parquet, JSON and CSV files, with bounds on what one line may hold.

A row of an unpacked JSONL file is called by its bytes (`bytes=120-239`, as in HTTP's Range, without its line end),
every other row by its number. So a row has one name whether its file is read whole or in parts.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any

from phikit.records.io import RowError, bounded_lines, open_lines, parse_row
from phikit.records.remote import Place, Remote

MAX_LINE = 64 << 20  # bytes of one line, and of a .json file

Row = dict[str, Any]


# Bytes of an unpacked JSONL file, or row groups of a Parquet file: from, to (exclusive).
Part = tuple[int, int]


def rows(place: Place, part: Part | None = None, column: str = "") -> Iterator[tuple[str, Row | str]]:
    """(name, row), or (name, what is wrong) for a row that is passed over. `part`: the lines that begin in it, or the
    row groups. `column`: the only one that is wanted; a Parquet file that has it is asked for no other. Raises
    ValueError, EOFError or the packer's error where nothing after it can be read, and Unreachable."""
    if place.suffix == ".parquet":
        yield from _parquet(place, part, column)
    elif place.suffix == ".json":
        yield from _json(place)
    elif place.suffix in (".csv", ".tsv"):
        yield from _csv(place)
    elif place.suffix == ".jsonl":
        yield from _lines(place, part)
    else:
        yield from _packed_lines(place)


def row_groups(place: Place) -> list[tuple[int, int]]:
    """(rows, bytes unpacked) of each row group of a Parquet file. Raises ValueError where it is none."""
    with ExitStack() as stack:
        about = parquet_file(place, stack).metadata
        groups = [about.row_group(i) for i in range(about.num_row_groups)]
        return [(g.num_rows, g.total_byte_size) for g in groups]


def parquet_file(place: Place, stack: ExitStack) -> Any:
    """The pyarrow ParquetFile, open until the stack is closed. Raises RowError where it is none."""
    import pyarrow.parquet as pq

    source: Any = place
    if isinstance(place, Remote):
        # A column of a row group is one request; the buffer is for what lies between.
        source = stack.enter_context(place.open("rb", 1 << 16) if place.ranges else place.copy())
    try:
        return pq.ParquetFile(source)
    except (OSError, ValueError) as e:  # Arrow raises one or the other, depending on the fault
        raise RowError(f"{place}: not a readable Parquet file ({e})") from e


def _parquet(place: Place, part: Part | None, column: str) -> Iterator[tuple[str, Row | str]]:
    """A damaged row group costs its own rows: those after it are read."""
    with ExitStack() as stack:
        file = parquet_file(place, stack)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        low, high = part or (0, len(sizes))
        only = [column] if column in file.schema_arrow.names else None
        first = sum(sizes[:low])
        for group in range(low, high):
            number = 0
            try:
                for batch in file.iter_batches(batch_size=4096, row_groups=[group], columns=only):
                    for row in batch.to_pylist():
                        number += 1
                        yield str(first + number), row
            except (OSError, ValueError) as e:
                damaged = f"row group {group + 1} is damaged after {number} of its {sizes[group]} rows ({e})"
                yield str(first + number + 1), damaged
            first += sizes[group]


def _lines(place: Place, part: Part | None) -> Iterator[tuple[str, Row | str]]:
    """A line belongs to the part in which its first byte lies, however far it runs."""
    start, end = part or (0, None)
    with open_lines(place) as f:
        at = _line_start(f, start, end)
        if at is None:
            return
        for _, line in bounded_lines(f, MAX_LINE):
            after = f.tell()
            if line is None:
                yield f"bytes={at}-{after - 1}", f"a line of more than {MAX_LINE >> 20} MB"
            elif line.strip():
                last = at + len(line.rstrip(b"\r\n")) - 1
                yield f"bytes={at}-{last}", _parsed(line)
            at = after
            if end is not None and at >= end:
                return


def _line_start(f: IO[bytes], start: int, end: int | None) -> int | None:
    """Where the first line at or after `start` begins; None where that is not before `end`, which is as far as is
    read."""
    if not start:
        return None if end == 0 else 0
    f.seek(start - 1)
    at = start - 1
    while end is None or at < end:
        piece = f.readline(1 << 20)
        at += len(piece)
        if piece.endswith(b"\n"):
            return at if end is None or at < end else None
        if not piece:
            return None
    return None


def _packed_lines(place: Place) -> Iterator[tuple[str, Row | str]]:
    row_number = 0
    with open_lines(place) as f:
        for number, line in bounded_lines(f, MAX_LINE):
            if line is None:
                row_number += 1
                yield str(row_number), f"line {number} is longer than {MAX_LINE >> 20} MB"
            elif line.strip():
                row_number += 1
                row = _parsed(line)
                yield str(row_number), f"line {number}: {row}" if isinstance(row, str) else row


def _parsed(line: bytes) -> Row | str:
    try:
        return parse_row(line)
    except RowError as e:
        return str(e)


def _json(path: Place) -> Iterator[tuple[str, Row | str]]:
    if (path.stat().st_size or 0) > MAX_LINE:
        raise ValueError(f"larger than {MAX_LINE >> 20} MB; write it as JSONL")
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError as e:
        raise ValueError("nested too deep") from e
    lists = [v for v in value.values() if isinstance(v, list)] if isinstance(value, dict) else []
    found = value if isinstance(value, list) else lists[0] if len(lists) == 1 else [value]
    for number, row in enumerate(found, 1):
        yield (
            str(number),
            row if isinstance(row, dict) else f"row {number} is no object but {type(row).__name__}",
        )


def _csv(path: Place) -> Iterator[tuple[str, Row | str]]:
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
            yield str(number), {str(k): v for k, v in row.items() if isinstance(v, str)}
    except csv.Error as e:
        raise ValueError(f"not valid CSV ({e})") from e
    finally:
        csv.field_size_limit(before)
