"""What one task reads of a folder: some whole files, or a part of one that is large.

An unpacked JSONL file is cut at byte offsets, a Parquet file between row groups; a line belongs to the part in which it
begins. Which parts there are changes neither documents nor their names nor their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from phikit.corpus.folders import File, Folder, file_documents, files_of, is_latex, latex_documents
from phikit.corpus.rows import Part, row_groups
from phikit.corpus.sources import Item
from phikit.jobs.progress import note
from phikit.jobs.task import Retryable
from phikit.records.remote import Place, Remote, Unreachable, place

MANY = 8192  # groups of a folder from which they grow: a plan of a million tasks helps nobody
LARGE = 64 << 20  # bytes of a file that cannot be cut from which that is said


@dataclass(frozen=True)
class Piece:
    """`part`: None for the whole file. `size`, `stamp`: the file as it was when the plan was made."""

    file: File
    size: int | None
    part: Part | None = None
    stamp: str = ""

    @property
    def input(self) -> Path | None:
        """The file, where it enters the plan by its bytes: a whole local one. Parts and URLs enter by size and time or
        tag; hashing them would read all of a large file before the first task."""
        path = self.file.place
        return path if isinstance(path, Path) and self.part is None else None

    def row(self) -> dict[str, Any]:
        """For the options of a task."""
        if self.input is not None:
            return {"name": self.file.name}
        at = self.file.place.url if isinstance(self.file.place, Remote) else str(self.file.place.resolve())
        return {
            "name": self.file.name,
            "where": at,
            "part": self.part,
            "size": self.size,
            "stamp": self.stamp,
        }


def pieces(folder: Folder, size: int) -> tuple[Iterator[Item], list[list[Piece]]]:
    """(documents of LaTeX files, which need one another; all else as groups of pieces, each for a task and of about
    `size` bytes, more where there would be more than MANY groups). Raises ValueError as `folders.folder_documents`."""
    _asked.cache_clear()  # a plan shows files as they are now
    files = files_of(folder)
    size = max(size, sum(state(f.place)[0] or 0 for f in files) // MANY)
    groups: list[list[Piece]] = []
    room = 0
    for file in files:
        if is_latex(file):
            continue
        for piece in _cut(file, size):
            alone = piece.part is not None
            if alone or room <= 0:
                groups.append([])
                room = size
            groups[-1].append(piece)
            room = 0 if alone else room - (piece.size or size)
    return latex_documents([f for f in files if is_latex(f)], folder), groups


def documents(row: Mapping[str, Any], inputs: Iterator[Path], source: str, text_key: str) -> Iterator[Item]:
    """The documents of a piece that `row` was made of; `inputs` gives the files that the task reads. Raises Retryable
    where a URL does not answer, ValueError where the file is another one than when the plan was made."""
    if "where" not in row:
        path = next(inputs)
        yield from file_documents(path, row["name"], Folder(path.parent, source, text_key))
        return
    at = place(row["where"])
    try:
        size, stamp = state(at)
        if size != row["size"] or (row["part"] and stamp != row["stamp"]):
            raise ValueError(f"{at} has changed since the plan was written: give the command again")
        folder = Folder(at if isinstance(at, Remote) else at.parent, source, text_key)
        yield from file_documents(at, row["name"], folder, tuple(row["part"]) if row["part"] else None)
    except Unreachable as e:
        raise Retryable(str(e)) from e


def _cut(file: File, size: int) -> Iterator[Piece]:
    length, stamp = state(file.place)
    parts: list[Part] = []
    if length is not None and length > size and file.place.name.endswith((".jsonl", ".parquet")):
        if isinstance(file.place, Remote) and not file.place.ranges:
            note(f"{file.name}: its server gives no parts of files, so one task reads it whole")
        elif file.place.suffix == ".jsonl":
            parts = [(a, min(a + size, length)) for a in range(0, length, size)]
        else:
            parts = _grouped(file.place, size)
    elif (length or 0) > LARGE:
        why = "packed" if file.place.suffix in (".gz", ".zst") else f"a {file.place.suffix} file"
        size_mb = f"{(length or 0) >> 20:,} MB"
        note(
            f"{file.name} ({size_mb}) is {why} and one task reads it; unpacked JSONL and Parquet are shared out"
        )
    if len(parts) < 2:
        yield Piece(file, length, None, stamp)
        return
    if isinstance(
        file.place, Remote
    ):  # as its tasks will see it: a listing may show other marks of a version
        stamp = state(Remote(file.place.url))[1]
    yield from (Piece(file, length, part, stamp) for part in parts)


def _grouped(path: Place, size: int) -> list[Part]:
    """Row groups that follow one another, of about `size` unpacked bytes together."""
    try:
        sizes = [n for _, n in row_groups(path)]
    except ValueError:
        return []  # its task says what is wrong
    parts: list[Part] = []
    room = 0
    for i, n in enumerate(sizes):
        if room <= 0:
            parts.append((i, i))
            room = size
        parts[-1] = (parts[-1][0], i + 1)
        room -= n
    return parts


def state(at: Place) -> tuple[int | None, str]:
    """(bytes, mark of the version: a time or tag) of a file."""
    if isinstance(at, Remote):
        found = at.stat() if at.listed else _asked(at)
        return found.st_size, found.stamp
    about = at.stat()
    return about.st_size, str(about.st_mtime_ns)


@lru_cache(maxsize=4096)
def _asked(at: Remote) -> Any:
    """Once a process: a file of many parts is not asked for its state at each."""
    return at.stat()
