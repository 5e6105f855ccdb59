"""Packing: documents of a source into rows of at most `context` tokens, boundaries kept.

Best-fit over a bounded set of open rows: a document goes to the fullest row it fits in. Longer documents are cut
into windows of `context` tokens. Rows are lists of (document, start, end) pieces; tokens are copied only when a
batch is made, and a document never attends to its neighbour (segments).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

OPEN_ROWS = 64  # more open rows fill better and cost a longer scan; 64 leaves < 2 % padding on nano's sources


def pack(lengths: np.ndarray, context: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows for documents taken in `order`: (pieces [P, 3] of document, start, end; row_offsets [R + 1])."""
    return pack_pieces(windows(lengths, context, order), context)


def windows(lengths: np.ndarray, size: int, order: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Documents in `order` as (document, start, end), cut at `size` tokens; one token alone has no target and is left
    out."""
    for d in order.tolist():
        n = int(lengths[d])
        for start in range(0, n, size):
            end = min(start + size, n)
            if end - start >= 2:
                yield d, start, end


def pack_pieces(listed: Iterable[tuple[int, int, int]], context: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for pieces taken in order, none longer than `context`."""
    open_rows: list[tuple[int, list[tuple[int, int, int]]]] = []  # (room left, pieces)
    done: list[list[tuple[int, int, int]]] = []
    for piece in listed:
        _place(open_rows, done, piece, context)
    done.extend(pieces for _, pieces in open_rows)
    offsets = np.cumsum([0] + [len(r) for r in done])
    pieces = np.asarray([p for r in done for p in r], dtype=np.int64).reshape(-1, 3)
    return pieces, offsets.astype(np.int64)


def _place(open_rows, done, piece, context: int) -> None:
    size = piece[2] - piece[1]
    best = min(
        (i for i, (room, _) in enumerate(open_rows) if room >= size),
        key=lambda i: open_rows[i][0],
        default=-1,
    )
    if best >= 0:
        room, pieces = open_rows[best]
        pieces.append(piece)
        if room - size < 2:
            done.append(open_rows.pop(best)[1])
        else:
            open_rows[best] = (room - size, pieces)
        return
    if context - size < 2:
        done.append([piece])
        return
    if len(open_rows) == OPEN_ROWS:
        fullest = min(range(OPEN_ROWS), key=lambda i: open_rows[i][0])
        done.append(open_rows.pop(fullest)[1])
    open_rows.append((context - size, [piece]))
