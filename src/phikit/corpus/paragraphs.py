"""Paragraphs that many documents repeat: headers, footers, licences, cookie notices.

A paragraph (what stands between blank lines; in a text without blank lines, a line) of at least WORDS words that occurs
in more than a given number of documents is kept in the first of them and cut out of all others. Code is left alone.
`repeated` and `strip` are tasks of the plan that `pipeline.build` makes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from phikit.corpus.cleaned import COLUMNS, keys_of, lines
from phikit.corpus.code import is_code
from phikit.corpus.rejection import Rejection
from phikit.corpus.spill import Spill
from phikit.records import Document, from_row, to_row
from phikit.records.io import line_writer, open_lines, parse_row, read_json, read_jsonl, write_json
from phikit.text import ngrams

WORDS = 8  # shorter ones ("See also", a number) repeat in texts that have nothing else in common
LEAST = 200  # characters that must be left of a document, as quality asks of any text
_BLANK = re.compile(r"\n[ \t]*\n\s*")


def hashes(document: Document) -> Iterator[int]:
    """64-bit hashes of the paragraphs that may be cut, in order."""
    if not is_code(document):
        for part in _parts(document.text)[0]:
            if (key := _key(part)) is not None:
                yield key


def repeated(options: Mapping[str, Any], reads: Sequence[Path], writes: Sequence[Path]) -> None:
    """The hashes of every part (uint64 [P, 2]: hash, line of the document; raw) -> for each part the (hash, line) of
    paragraphs that are cut there (uint64 [C, 2])."""
    sizes = [p.stat().st_size // 16 for p in reads]
    spill = Spill(writes[0].with_suffix(".spill"), sum(sizes), 3)
    for part, path in enumerate(reads):
        rows = np.fromfile(path, np.uint64).reshape(-1, 2)
        spill.by_hash(rows[:, 0], np.column_stack([rows, np.full(len(rows), part, np.uint64)]))
    cut = Spill(writes[0].with_suffix(".cut"), sum(sizes), 3)
    for rows in spill.read():
        rows = rows[np.lexsort((rows[:, 1], rows[:, 2], rows[:, 0]))]
        new = np.append(True, (rows[1:] != rows[:-1]).any(1)) if len(rows) else np.zeros(0, bool)
        rows = rows[new]  # once a document
        _, first, counts = np.unique(rows[:, 0], return_index=True, return_counts=True)
        often = np.repeat(counts > options["paragraphs"], counts)
        often[first] = False
        cut.by_place(rows[often, 2].astype(np.int64), len(reads), rows[often])
    found: dict[int, list[np.ndarray]] = {}
    for rows in cut.read():
        for part in np.unique(rows[:, 2]).tolist():
            found.setdefault(part, []).append(rows[rows[:, 2] == part][:, :2])
    for part, path in enumerate(writes):
        np.save(path, np.concatenate(found.get(part, [np.zeros((0, 2), np.uint64)])))


def without(document: Document, cut: set[int]) -> Document:
    """The document without the paragraphs whose hashes are in `cut`; `meta["paragraphs_cut"]` counts them."""
    parts, between = _parts(document.text)
    left = [p for p in parts if (key := _key(p)) is None or key not in cut]
    meta = {**document.meta, "paragraphs_cut": len(parts) - len(left)}
    return replace(document, text=between.join(left), meta=meta, id="")


def strip(options: Mapping[str, Any], reads: Sequence[Path], writes: Sequence[Path]) -> dict[str, Any]:
    """A part's documents, rejections, keys, counts and what `repeated` cuts there -> the same four without it."""
    cut: dict[int, set[int]] = {}
    for key, line in np.load(reads[4]).tolist():
        cut.setdefault(line, set()).add(key)
    keys = np.fromfile(reads[2], np.uint64).reshape(-1, COLUMNS)
    counts = read_json(reads[3])
    dropped: Counter[str] = Counter(counts["dropped"])
    kept = np.ones(len(keys), bool)
    with ExitStack() as stack:
        out = stack.enter_context(open_lines(writes[0], like=writes[0]))
        reject = stack.enter_context(line_writer(writes[1]))
        for row in read_jsonl(reads[1]):
            reject(row)
        for number, line in enumerate(lines(reads[0])):
            if number not in cut:
                out.write(line)
                continue
            document = from_row(Document, parse_row(line))
            left = without(document, cut[number])
            if len(left.text) < LEAST:
                what = f"{left.meta['paragraphs_cut']} are in others, {len(left.text)} characters are left"
                reject(dict(Rejection.of(document, "repeated_paragraphs", what).row()))
                dropped["repeated_paragraphs"] += 1
                kept[number] = False
                continue
            keys[number] = keys_of([left], ngrams.words([left.text]))[0]
            out.write(json.dumps(to_row(left), ensure_ascii=False).encode() + b"\n")
    keys[kept].tofile(writes[2])
    found = {"in": counts["in"], "out": int(kept.sum()), "dropped": dict(sorted(dropped.items()))}
    write_json(writes[3], {**counts, **found})
    return found


def _parts(text: str) -> tuple[list[str], str]:
    """The paragraphs, and what to put between them."""
    parts = _BLANK.split(text)
    return (parts, "\n\n") if len(parts) > 1 else (text.split("\n"), "\n")


def _key(part: str) -> int | None:
    words = part.split()
    if len(words) < WORDS:
        return None
    return xxhash.xxh3_64_intdigest(" ".join(words).lower().encode("utf-8", "surrogatepass"))
