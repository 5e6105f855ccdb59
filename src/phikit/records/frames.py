"""A packed file in parts: the frames of a .zst file, so that several tasks share it and none reads all of it.

`io.line_writer` ends a frame after every few MB, and packed pieces put one after another are a packed file, so each
frame of a file that phikit wrote holds whole lines.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from phikit.records.io import RowError, open_lines

Part = tuple[int, int]  # bytes of the packed file: from, to (exclusive)

_SKIPPED = range(0x184D2A50, 0x184D2A60)  # magic numbers of frames that hold no data
_CHECKSUM, _RLE = 4, 1  # bytes; the type of a block that is one byte repeated


def parts(path: Path, size: int) -> list[Part] | list[None]:
    """Runs of frames of a .zst file, each of about `size` packed bytes; [None], the whole, for one frame and for other
    files. Raises RowError where the file is damaged."""
    if path.suffix != ".zst":
        return [None]
    found: list[Part] = []
    with path.open("rb") as f:
        for start, end in _frames(f, path):
            if found and end - found[-1][0] <= size:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
    return found if len(found) > 1 else [None]


def lines(path: Path, part: Part | None) -> Iterator[bytes]:
    """The lines of a part. Raises RowError where it does not end with a line."""
    if part is None:
        with open_lines(path) as f:
            yield from f
        return
    import zstandard

    with path.open("rb") as raw:
        raw.seek(part[0])
        packed = io.BytesIO(raw.read(part[1] - part[0]))
    line = b"\n"
    with zstandard.open(packed, "rb") as f:
        for line in io.BufferedReader(f):  # type: ignore[arg-type]
            yield line
    if not line.endswith(b"\n"):
        raise RowError(
            f"{path}: a frame (up to byte {part[1]}) ends inside a line: pack it again in one frame"
        )


def _frames(f: IO[bytes], path: Path) -> Iterator[Part]:
    """(start, end) of each frame; reads heads of frames and blocks alone (RFC 8878, section 3.1)."""
    import zstandard

    start, total = 0, path.stat().st_size
    while start < total:
        f.seek(start)
        head = f.read(18)
        if int.from_bytes(head[:4], "little") in _SKIPPED:
            end = start + 8 + int.from_bytes(head[4:8], "little")
        else:
            try:
                end = start + zstandard.frame_header_size(head)
                checksum = zstandard.get_frame_parameters(head).has_checksum
            except zstandard.ZstdError as e:
                raise RowError(f"{path}: no frame of zstd at byte {start} ({e})") from e
            last = False
            while not last:
                f.seek(end)
                if len(block := f.read(3)) < 3:
                    raise RowError(f"{path}: cut off inside a frame that begins at byte {start}")
                word = int.from_bytes(block, "little")
                last, kind, size = bool(word & 1), word >> 1 & 3, word >> 3
                end += 3 + (1 if kind == _RLE else size)
            end += _CHECKSUM if checksum else 0
        if end > total:
            raise RowError(f"{path}: cut off inside a frame that begins at byte {start}")
        yield start, end
        start = end
