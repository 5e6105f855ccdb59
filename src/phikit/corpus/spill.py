"""Rows that are grouped on disk: memory holds one part at a time, however many rows there are.

Rows of 64-bit numbers are appended to one of several files by a number that the caller gives (a hash, so that equal
keys meet in one file, or a position, so that the files follow one another); each file is then loaded alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PART_ROWS = 1 << 19  # rows of a part that are sorted in memory: 8 MB with two columns


class Spill:
    """Files for about `expected` rows of `columns` uint64 numbers, in `folder`, which is emptied first."""

    def __init__(self, folder: Path, expected: int, columns: int) -> None:
        self.folder, self.columns = folder, columns
        self.parts = 1 + expected // PART_ROWS
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def by_hash(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Adds rows uint64 [N, columns]; those of equal `keys` (uint64 [N], evenly spread) come into one part."""
        self._add((keys >> np.uint64(32)) * np.uint64(self.parts) >> np.uint64(32), rows)

    def by_place(self, places: np.ndarray, total: int, rows: np.ndarray) -> None:
        """Adds rows; those of smaller `places` (int [N], below `total`) come into earlier parts."""
        self._add(places * self.parts // total, rows)

    def _add(self, part: np.ndarray, rows: np.ndarray) -> None:
        part = part.astype(np.int64)
        order = np.argsort(part, kind="stable")
        part, rows = part[order], np.ascontiguousarray(rows[order], np.uint64)
        edges = np.flatnonzero(np.diff(part, prepend=-1)) if len(part) else []
        for first, last in zip(edges, [*edges[1:], len(part)]):
            with self._file(int(part[first])).open("ab") as f:
                f.write(rows[first:last].tobytes())

    def read(self) -> Iterator[np.ndarray]:
        """The rows of each part in turn, in the order in which they were added; the files are removed behind it."""
        for part in range(self.parts):
            path = self._file(part)
            if path.exists():
                yield np.fromfile(path, np.uint64).reshape(-1, self.columns)
                path.unlink()
        self.folder.rmdir()

    def _file(self, part: int) -> Path:
        return self.folder / f"{part:06d}"
