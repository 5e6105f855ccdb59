"""Files of documents and dialogs become token shards, on all cores.

Each task encodes a part of a file (`records.frames`) and writes what it made batch by batch, each batch grouped by
source. What is left for one process is to copy those bytes into the shards, in the order of the files: equal input
gives equal bytes, wherever and with however many workers it is encoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from phikit.jobs.plan import Shard, Step, compile
from phikit.jobs.run import LOCAL, run_plan
from phikit.mixture.shards import ShardWriter, TokenShard, encode_dialog, encode_shard, make_shard
from phikit.records import Dialog, Document, from_row
from phikit.records.frames import Part, lines, parts
from phikit.records.io import RowError, parse_row, read_json, write_json
from phikit.text.tokenizer import Tokenizer

PART = 1 << 20  # packed bytes of a part, about 3 MB of text
BATCH = 1 << 20  # characters encoded in one call
DIALOGS = "dialogs"  # the source of all dialogs

_WRITES = ("tokens", "weights", "sizes", "ids", "sections")  # NAME.json is the state of a task


def encode_files(
    tokenizer: Path,
    documents: Sequence[Path],
    dialogs: Sequence[Path],
    out: Path,
    work: Path,
    *,
    answer: float = 1.0,
    other: Mapping[str, float] | None = None,
    workers: int = 1,
    on: str = LOCAL,
) -> dict[str, Any]:
    """Writes the shard folders out/<source> (`shards.TokenShard`) of JSONL files of documents, then of dialogs; parts
    and their state into `work`. Returns documents and tokens by source.

    answer, other: loss weights, as `shards.encode_documents`; `other` by source, 1 for those not named. workers, on:
    as `jobs.run.run_plan`, whose errors are raised.
    """
    weights = {"answer": answer, "other": dict(other or {})}
    shards = []
    for path, kind in [*((p, "documents") for p in documents), *((p, DIALOGS) for p in dialogs)]:
        # A part enters the plan by size and time of its file: its bytes would be hashed for each part of it.
        about = path.stat()
        named = {"at": str(path.resolve()), "size": about.st_size, "changed": about.st_mtime_ns}
        for part in parts(path, PART):
            writes = tuple(f"{len(shards):05d}.{what}" for what in _WRITES)
            given = os.path.relpath(tokenizer, work)
            shards.append(Shard({**weights, **named, "part": part, "kind": kind}, (given,), writes))
    plan = compile(work, [Step("encode", encode_part, shards)])
    run_plan(plan, label="tokenize", workers=workers, on=on)
    return _merge([[work / w for w in s.writes] for s in shards], out)


def encode_part(options: Mapping[str, Any], reads: Sequence[Path], writes: Sequence[Path]) -> None:
    """A part of a file -> tokens (uint32), weights (uint8), sizes (uint32) and ids of its documents, and the sections
    they lie in: [source, documents, tokens, bytes of the ids]."""
    tokenizer = _tokenizer(reads[0], reads[0].stat().st_mtime_ns)
    path = Path(options["at"])
    about = path.stat()
    if (about.st_size, about.st_mtime_ns) != (options["size"], options["changed"]):
        raise ValueError(f"{path} has changed since the plan was written: give the command again")
    part = options["part"] and tuple(options["part"])
    sections: list[tuple[str, int, int, int]] = []
    with ExitStack() as stack:
        tokens, weights, sizes, ids = (stack.enter_context(p.open("wb")) for p in writes[:4])
        for batch in _batches(path, part, options["kind"]):
            for source, some in batch.items():
                shard = _encoded(tokenizer, source, some, options)
                shard.tokens.astype("<u4", copy=False).tofile(tokens)
                shard.weights.tofile(weights)
                np.diff(shard.offsets).astype("<u4").tofile(sizes)
                named = "".join(f"{record.id}\n" for record in some).encode()
                ids.write(named)
                sections.append((source, len(some), len(shard.tokens), len(named)))
    write_json(writes[4], sections)


def _encoded(
    tokenizer: Tokenizer, source: str, some: Sequence[Any], options: Mapping[str, Any]
) -> TokenShard:
    if options["kind"] == DIALOGS:
        return make_shard(encode_dialog(tokenizer, dialog) for dialog in some)
    pair = options["answer"], options["other"].get(source, 1.0)
    return encode_shard(tokenizer, some, [pair] * len(some))


def _batches(path: Path, part: Part | None, kind: str) -> Iterator[dict[str, list[Any]]]:
    """The documents or dialogs of a part by source, about BATCH characters at a time."""
    found: dict[str, list[Any]] = {}
    size = 0
    for number, line in enumerate(lines(path, part), 1):
        if not line.strip():
            continue
        try:
            record = from_row(Dialog if kind == DIALOGS else Document, parse_row(line))
        except ValueError as e:
            where = f", after byte {part[0]}" if part else ""
            raise RowError(f"{path}, line {number}{where}: {e}") from e
        found.setdefault(DIALOGS if kind == DIALOGS else record.source, []).append(record)
        size += len(line)
        if size >= BATCH:
            yield found
            found, size = {}, 0
    if found:
        yield found


def _merge(pieces: Sequence[Sequence[Path]], out: Path) -> dict[str, Any]:
    shards: dict[str, ShardWriter] = {}
    for *paths, about in pieces:
        with ExitStack() as stack:
            tokens, weights, sizes, ids = (stack.enter_context(p.open("rb")) for p in paths)
            for source, n, size, named in read_json(about):
                if source not in shards:
                    shards[source] = ShardWriter(out / source)
                shards[source].extend(
                    np.frombuffer(sizes.read(4 * n), "<u4"),
                    tokens.read(4 * size),
                    weights.read(size),
                    ids.read(named).decode(),
                )
    for shard in shards.values():
        shard.close()
    return {
        "documents": {s: len(shards[s].offsets) - 1 for s in sorted(shards)},
        "tokens": {s: shards[s].offsets[-1] for s in sorted(shards)},
    }


@lru_cache(maxsize=1)
def _tokenizer(path: Path, _changed: int) -> Tokenizer:
    return Tokenizer.load(path)
