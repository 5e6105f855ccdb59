"""Files that `phikit decontaminate` reads and writes: parts of them as tasks, and what is kept, byte for byte.

Local files or URLs; JSONL is cut at byte offsets, Parquet between row groups.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from phikit.corpus.pieces import state
from phikit.corpus.rows import MAX_LINE, parquet_file, row_groups
from phikit.jobs.task import Retryable
from phikit.records.io import RowError, atomic_path, bounded_lines, open_lines, parse_row
from phikit.records.remote import Place, Remote, Stat, Unreachable, files_under, place

PIECE = 16 << 20  # bytes of a plain JSONL file that are one task
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")

Stamp = list[Any]  # [where, bytes, mark of its version]: a benchmark or file that changed is another one


def stamps(paths: Sequence[Place]) -> list[Stamp]:
    """Of files and folders to decontaminate against. Raises ValueError where one is missing."""
    found: list[Stamp] = []
    for p in paths:
        if isinstance(p, Remote):
            marks = [state(file) for _, file in files_under(p)]
            found.append([p.url, sum(size or 0 for size, _ in marks), " ".join(mark for _, mark in marks)])
        elif not p.exists():
            raise ValueError(f"{p}: there is no such file or folder to decontaminate against")
        else:
            about = [q.stat() for q in (p, *(p.rglob("*") if p.is_dir() else ()))]
            found.append([str(p), sum(s.st_size for s in about), max(s.st_mtime_ns for s in about)])
    return found


def pieces(path: Place) -> Iterator[dict[str, Any]]:
    """The parts of a file that are checked on their own. A packed JSONL file is one, and one behind a server without
    ranges. Raises ValueError for a file that is missing or of another kind."""
    remote = isinstance(path, Remote)
    if not path.name.endswith(SUFFIXES) or not (remote or path.is_file()):
        raise ValueError(f"{path}: give files of these kinds: {' '.join(SUFFIXES)}")
    size, mark = state(path)
    stamp = {"path": path.url if remote else str(path), "size": size, "mark": mark}
    if path.suffix == ".parquet":
        yield from ({**stamp, "group": i} for i in range(len(row_groups(path))))
    elif path.suffix == ".jsonl" and size is not None and (not remote or path.ranges):
        ends = _line_ends(path, size)
        yield from ({**stamp, "start": a, "end": b} for a, b in zip([0, *ends[:-1]], ends))
    else:
        yield stamp


def _line_ends(path: Place, size: int) -> list[int]:
    """Offsets after a line feed about every PIECE bytes; the last is the file's size."""
    ends = []
    with path.open("rb", 1 << 16) as f:
        while (ends[-1] if ends else 0) + PIECE < size:
            f.seek((ends[-1] if ends else 0) + PIECE)
            next(bounded_lines(f, PIECE), None)
            ends.append(f.tell())
    return [*ends, size] if not ends or ends[-1] < size else ends


def rows(piece: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """(row, "") or (None, what is wrong with it) of each row of a piece. Raises ValueError where the file is damaged,
    or is another one than when it was cut, Retryable where a URL does not answer."""
    path = place(piece["path"])
    try:
        _require_same(path, piece)
        yield from _group(path, piece["group"]) if "group" in piece else _lines(path, piece)
    except Unreachable as e:
        raise Retryable(str(e)) from e
    except _damage() as e:
        where = f", row group {piece['group'] + 1}" if "group" in piece else ""
        raise ValueError(
            f"{path}{where}: damaged ({type(e).__name__}: {e}); mend the file or leave it out"
        ) from e


def _require_same(path: Place, piece: Mapping[str, Any]) -> None:
    about = path.stat()  # asked again, not as it was remembered
    now = (about.st_size, about.stamp if isinstance(about, Stat) else str(about.st_mtime_ns))
    if now != (piece["size"], piece["mark"]):
        raise ValueError(f"{path} has changed since it was looked at: give the command again")


def _damage() -> tuple[type[Exception], ...]:
    import zstandard

    return (OSError, EOFError, zlib.error, zstandard.ZstdError)


def _group(path: Place, group: int) -> Iterator[tuple[dict[str, Any], str]]:
    with ExitStack() as stack:
        for batch in parquet_file(path, stack).iter_batches(1024, row_groups=[group]):
            yield from ((row, "") for row in batch.to_pylist())


def _lines(path: Place, piece: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any] | None, str]]:
    with open_lines(path) as f:
        if piece.get("start"):
            f.seek(piece["start"])
        for _, line in bounded_lines(f, MAX_LINE):  # blank ones too: a row's number is its line's
            try:
                if line is None:
                    raise RowError(f"a line of more than {MAX_LINE >> 20} MB")
                yield parse_row(line), ""
            except RowError as e:
                yield None, str(e)
            if "end" in piece and f.tell() >= piece["end"]:
                break


def write_kept(path: Place, out: Path, gone: set[int], piece: Mapping[str, Any] | None) -> None:
    """The file without the rows in `gone`. `piece`: one of its pieces, by which it is seen whether it changed."""
    try:
        if piece is not None:
            _require_same(path, piece)
        if path.suffix == ".parquet":
            _write_rows(path, out, gone)
            return
        with atomic_path(out) as tmp, open_lines(path) as f, open_lines(tmp, like=out) as g:
            for number, line in bounded_lines(f, MAX_LINE):
                if line is not None and number - 1 not in gone:
                    g.write(line)
    except Unreachable as e:
        raise ValueError(f"{e}; give the command again") from e


def _write_rows(path: Place, out: Path, gone: set[int]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        file, number = parquet_file(path, stack), 0
        with atomic_path(out) as tmp, pq.ParquetWriter(tmp, file.schema_arrow, compression="zstd") as writer:
            for batch in file.iter_batches(4096):
                keep = pa.array([number + i not in gone for i in range(batch.num_rows)], pa.bool_())
                writer.write_batch(batch.filter(keep))
                number += batch.num_rows


def names(files: Sequence[Place]) -> dict[Place, str]:
    """Names under clean/: the files' own, with their folder where two are called alike."""
    alike = Counter(p.name for p in files)
    found = {p: p.name if alike[p.name] == 1 else "/".join(str(p).split("/")[-2:]) for p in files}
    if len(set(found.values())) < len(found):
        raise ValueError("two of the files have the same name and folder name; check them in separate calls")
    return found
