"""From a token of a run's shards back to its document and to the bytes of the source file.

A shard names the document of each token, the document its source (`meta.path`). Where the file is still at hand the
token's own bytes are looked for in it by the text around the token; where extraction changed that text, what is named
is the file, or the row of it (`#bytes=1024-2047`).
"""

from __future__ import annotations

import html
import json
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from phikit.mixture.shards import TokenShard, is_shard
from phikit.recipe.schema import STAGES
from phikit.recipe.trace import Node, lineage
from phikit.records import artifact
from phikit.records.remote import Place, place
from phikit.text.tokenizer import Tokenizer

CONTEXT = (200, 80, 32, 12)  # characters on each side of a token by which it is looked for, the most first
MOST = 256 << 20  # bytes of a source that are read for it
_PACKED = (".gz", ".zst", ".parquet", ".epub", ".docx", ".pdf", ".warc")
_BYTES = re.compile(r"bytes=(\d+)-(\d+)")

Span = tuple[int, int]  # from, to (exclusive)


@dataclass(frozen=True)
class TokenTrace:
    """token: its id. text: what it looks like. document: its row, with those it was made from. number, tokens: it is
    the number-th (from 0) of so many. characters, bytes: its place in the document's text, None where the tokens are
    not those of a text alone (a dialog's, an end of text). around: the text before it, in it and after it. source:
    what the document says it comes from. place: the bytes of that file that are the token (`exact`) or hold its
    document, None where the file is not at hand."""

    token: int
    text: str
    document: Node
    number: int
    tokens: int
    characters: Span | None
    bytes: Span | None
    around: tuple[str, str, str]
    source: str
    place: Span | None
    exact: bool


def trace_token(run: Path, where: str) -> TokenTrace:
    """`where`: SOURCE@INDEX, the index of a token in the shard of a source of the mixture. Raises ValueError where
    there is no such shard or token, or its document is in no file of the run."""
    name, _, digits = where.rpartition("@")
    folder = run / "mixture" / name
    if not digits.isdigit() or not name or not is_shard(folder):
        found = sorted(p.name for p in (run / "mixture").glob("*") if is_shard(p))
        raise ValueError(
            f"{where}: write SOURCE@INDEX with a shard of {run / 'mixture'}: {', '.join(found) or 'none'}"
        )
    shard, at = TokenShard.load(folder), int(digits)
    total = int(shard.offsets[-1])
    if at >= total:
        raise ValueError(f"{where}: {name} has {total:,} tokens, the last one is {name}@{total - 1}")
    d = int(np.searchsorted(shard.offsets, at, side="right")) - 1
    if not (folder / "ids.txt").is_file():
        raise ValueError(f"{where}: this shard lies elsewhere and was not made by this run ({folder})")
    with (folder / "ids.txt").open(encoding="utf-8") as f:
        key = next(islice(f, d, None)).strip()
    document = lineage(run, key, STAGES[: STAGES.index("mixture")])
    tokenizer = Tokenizer.load(run / "tokenizer" / "tokenizer.json")
    first, last = (int(x) for x in shard.offsets[d : d + 2])
    ids = [int(t) for t in shard.tokens[first:last]]
    n = at - first
    characters, span, around = _in_text(tokenizer, ids, n, document.row.get("text"))
    source = str((document.row.get("meta") or {}).get("path", ""))
    found, exact = _in_source(run, source, around) if characters else (None, False)
    return TokenTrace(
        ids[n],
        tokenizer.token_text(ids[n]),
        document,
        n,
        len(ids),
        characters,
        span,
        around,
        source,
        found,
        exact,
    )


def _in_text(
    tokenizer: Tokenizer, ids: list[int], n: int, text: Any
) -> tuple[Span | None, Span | None, tuple[str, str, str]]:
    """(characters, bytes, text around) of token n. Where it is part of a character, that is its characters."""
    data = text.encode() if isinstance(text, str) else None
    if data is None or n == len(ids) - 1 or tokenizer.decode_bytes(ids[:-1]) != data:
        before, after = tokenizer.decode(ids[:n]), tokenizer.decode(ids[n + 1 :])
        return None, None, (before[-CONTEXT[0] :], tokenizer.token_text(ids[n]), after[: CONTEXT[0]])
    first = len(tokenizer.decode_bytes(ids[:n]))
    last = first + len(tokenizer.token_bytes(ids[n]))
    begins = np.flatnonzero(np.frombuffer(data, np.uint8) & 0xC0 != 0x80)
    a = int(np.searchsorted(begins, first, side="right")) - 1
    b = int(np.searchsorted(begins, last))
    return (a, b), (first, last), (text[max(0, a - CONTEXT[0]) : a], text[a:b], text[b : b + CONTEXT[0]])


def _in_source(run: Path, source: str, around: tuple[str, str, str]) -> tuple[Span | None, bool]:
    """(bytes of the source file, whether they are the token's own)."""
    for file, part in _files(run, source):
        try:
            size = file.stat().st_size or 0
            row = _BYTES.fullmatch(part)
            whole = (int(row[1]), int(row[2]) + 1) if row else (0, size)
            if file.name.endswith(_PACKED) or whole[1] - whole[0] > MOST:
                return whole, False
            with file.open("rb") as f:
                f.seek(whole[0])
                data = f.read(whole[1] - whole[0])
        except (OSError, ValueError):  # not there, or behind a URL that does not answer
            continue
        own = _find(data, around)
        return ((whole[0] + own[0], whole[0] + own[1]), True) if own else (whole, False)
    return None, False


def _files(run: Path, source: str) -> Iterator[tuple[Place, str]]:
    """Places where the source may lie, and the part of the file that it names after a `#`."""
    path, _, part = source.rpartition("#") if "#" in source else (source, "", "")
    if "://" in path:
        yield place(path), part
        return
    found = artifact.load(run / "corpus")
    config: Any = found.manifest.config if found else {}
    for folder in config.get("recipe", {}).get("corpus", {}).get("folders", ()):
        base = Path(folder["path"])
        if path == base.name or path.startswith(f"{base.name}/"):
            yield (base / path.removeprefix(base.name).lstrip("/") if path != base.name else base), part
    if path.startswith("stdlib/"):
        yield Path(sysconfig.get_path("stdlib")) / path.removeprefix("stdlib/"), part


def _find(data: bytes, around: tuple[str, str, str]) -> Span | None:
    """Where the token stands in a file: the only place at which the text around it does, in one of the forms that a
    file may have it in."""
    before, middle, after = around
    for form in _FORMS:
        for n in CONTEXT:
            left, own, right = form(before[-n:]), form(middle), form(after[:n])
            needle = left + own + right
            at = data.find(needle)
            if at >= 0:
                if data.find(needle, at + 1) < 0:
                    return at + len(left), at + len(left) + len(own)
                break  # less text around it would stand there as often
    return None


_FORMS: tuple[Callable[[str], bytes], ...] = (
    str.encode,
    lambda s: s.replace("\n", "\r\n").encode(),
    lambda s: json.dumps(s, ensure_ascii=False)[1:-1].encode(),
    lambda s: json.dumps(s)[1:-1].encode(),
    lambda s: html.escape(s, quote=False).encode(),
)
