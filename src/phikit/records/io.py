"""Reading and writing rows: JSONL (plain, .gz, .zst) and Parquet; every write is atomic.

A file is written beside its final name and renamed when it is whole, so a killed run never leaves half a file
under a name that somebody reads.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from phikit.records.remote import Place

FRAME = (
    4 << 20
)  # characters after which a .zst file begins a new frame, so that tasks can share it (`frames.py`)


class RowError(ValueError):
    """A row that cannot be read; the message names the file and the row."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield tmp
        with tmp.open("rb+") as f:
            os.fsync(f.fileno())
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise RowError(f"{path}: not valid JSON ({e})") from e


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes rows, one JSON object a line; returns how many."""
    n = 0
    with atomic_path(path) as tmp, line_writer(tmp, like=path) as write:
        for row in rows:
            write(row)
            n += 1
    return n


@contextlib.contextmanager
def line_writer(path: Path, like: Path | None = None) -> Iterator[Callable[[Mapping[str, Any]], Any]]:
    """A function that writes a row to a JSONL file, packed as `like` (or `path`) says; the caller sees to its being
    atomic."""
    like = like or path
    room = FRAME
    with open_lines(path, like=like) as raw, io.TextIOWrapper(raw, encoding="utf-8") as f:

        def write(row: Mapping[str, Any]) -> None:
            nonlocal room
            room -= f.write(json.dumps(row, ensure_ascii=False) + "\n")
            if room <= 0 and like.suffix == ".zst":
                import zstandard

                f.flush()
                raw.flush(zstandard.FLUSH_FRAME)  # type: ignore[call-arg]
                room = FRAME

        yield write


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; a bad line raises RowError with its number."""
    number = 0
    try:
        with open_lines(path) as raw, io.TextIOWrapper(raw, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                if not line.strip():
                    continue
                try:
                    row = parse_row(line)
                except RowError as e:
                    raise RowError(f"{path}, line {number}: {e}") from e
                yield row
    except UnicodeDecodeError as e:
        raise RowError(f"{path}, after line {number}: not UTF-8 ({e})") from e
    except EOFError as e:  # a torn .gz
        raise RowError(f"{path}, after line {number}: the file is cut off ({e})") from e


def write_parquet(path: Path, rows: list[dict[str, Any]], schema: Any = None) -> int:
    """Writes rows as one Parquet file (zstd). Columns come from the pyarrow `schema`, or from the first row; nested
    values stay nested."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_path(path) as tmp:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp, compression="zstd")
    return len(rows)


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(batch_size=4096):
            yield from batch.to_pylist()
    except (OSError, ValueError) as e:  # Arrow raises one or the other, depending on the fault
        raise RowError(f"{path}: not a readable Parquet file ({e})") from e


@contextlib.contextmanager
def open_lines(path: Place, like: Path | None = None) -> Iterator[IO[bytes]]:
    """The bytes of a plain, .gz or .zst file for reading lines; with `like`, `path` is written, packed as that is."""
    mode, suffix = ("wb", like.suffix) if like else ("rb", path.suffix)
    if suffix == ".gz":
        with path.open(mode) as raw, gzip.GzipFile("", mode, fileobj=raw, mtime=0) as z:  # type: ignore[arg-type]
            yield z  # type: ignore[misc]
    elif suffix == ".zst":
        import zstandard

        with path.open(mode) as raw, zstandard.open(raw, mode) as f:  # type: ignore[arg-type]
            yield io.BufferedReader(f) if mode == "rb" else f  # type: ignore[arg-type]
    else:
        with path.open(mode) as f:
            yield f


def bounded_lines(f: IO[bytes], limit: int) -> Iterator[tuple[int, bytes | None]]:
    """(number, line), or (number, None) for a line of more than `limit` bytes: it is skipped, never held."""
    number = 0
    while line := f.readline(limit + 1):
        number += 1
        if len(line) <= limit:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = f.readline(1 << 20)
        yield number, None


def parse_row(line: str | bytes) -> dict[str, Any]:
    """The object that one line of JSONL holds. Raises RowError saying what is wrong with it."""
    try:
        row = json.loads(line if isinstance(line, str) else line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as e:
        raise RowError(f"not valid JSON ({e})") from e
    if not isinstance(row, dict):
        raise RowError(f"expected an object, got {type(row).__name__}")
    return row
