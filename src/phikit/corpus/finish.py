"""What became of each document is carried out: a shard at a time, then the pieces are put together."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from phikit.corpus.cleaned import BYTES, COLUMNS, PARTIAL, SOURCE, documents, lines
from phikit.corpus.heldout import source_key
from phikit.corpus.rejection import Rejection
from phikit.records.io import line_writer, open_lines, read_json, read_jsonl, write_json


def finish(options: Mapping[str, Any], reads: Sequence[Path], writes: Sequence[Path]) -> None:
    """A part's documents, rejections, keys, counts and fates -> kept, held out, rejected, final counts."""
    keys = np.fromfile(reads[2], np.uint64).reshape(-1, COLUMNS)
    counts, fate = read_json(reads[3]), read_json(reads[4])
    held = np.zeros(len(keys), bool)
    held[fate["heldout"]] = True
    twins = {line: (kind, f"of {of} ({path})") for kind in ("exact_duplicate", "near_duplicate")
             for line, of, path in fate[kind]}  # fmt: skip
    with ExitStack() as stack:
        kept, out = (stack.enter_context(open_lines(p, like=p)) for p in writes[:2])
        for number, line in enumerate(lines(reads[0])):
            if number not in twins:
                (out if held[number] else kept).write(line)
        reject = stack.enter_context(line_writer(writes[2]))
        for row in read_jsonl(reads[1]):
            reject(row)
        for number, document in documents(reads[0], twins):
            reject(dict(Rejection.of(document, *twins[number]).row()))
    left = ~held
    left[list(twins)] = False
    number, size = Counter(), Counter()
    for source in counts["sources"]:
        mine = left & (keys[:, SOURCE] == source_key(source))
        number[source], size[source] = int(mine.sum()), int(keys[mine, BYTES].sum())
    dropped = Counter(counts["dropped"]) + Counter(kind for kind, _ in twins.values())
    write_json(writes[3], {
        "in": counts["in"], "cleaned": counts["out"] + sum(counts["dropped"].values()), "dropped": dict(dropped),
        "heldout": int(held.sum()), "heldout_bytes": int(keys[held, BYTES].sum()), "by_source": +number,
        "bytes_by_source": +size, "partial_7gram": int(keys[left | held, PARTIAL].sum()),
    })  # fmt: skip


def concatenate(options: Mapping[str, Any], reads: Sequence[Path], writes: Sequence[Path]) -> dict[str, Any]:
    """The index, then of every part kept, held out, rejected and counts -> the three files; returns the counts of
    `pipeline.build`. Packed pieces one after another are a packed file."""
    total: Counter[str] = Counter()
    nested = {"dropped": Counter(), "by_source": Counter(), "bytes_by_source": Counter()}
    for path in reads[4::4]:
        for name, value in read_json(path).items():
            nested[name].update(value) if name in nested else total.update({name: value})
    out, size = sum(nested["by_source"].values()), sum(nested["bytes_by_source"].values())
    require(out, total["heldout"], total["in"], nested["dropped"], options["heldout"])
    for k, path in enumerate(writes):
        with path.open("wb") as f:
            for piece in reads[1 + k :: 4]:
                with piece.open("rb") as g:
                    shutil.copyfileobj(g, f, 1 << 20)
    with np.load(reads[0]) as index:
        references, too_short = int(index["items"]), int(index["too_short"])
    return {
        "in": total["in"],
        "parts": total["cleaned"] - total["in"],
        "out": out,
        "bytes_out": size,
        "heldout": total["heldout"],
        "heldout_bytes": total["heldout_bytes"],
        **{name: dict(sorted(found.items())) for name, found in nested.items()},
        "partial_7gram": total["partial_7gram"],
        "references": references,
        "references_too_short": too_short,
    }


def require(out: int, held: int, number: int, dropped: Counter[str], share: float) -> None:
    """Raises ValueError where no document, or none to hold out, is left."""
    why = ", ".join(f"{k} {n}" for k, n in dropped.most_common()) or "nothing dropped"
    if not out:
        raise ValueError(
            f"the corpus is empty: {number} files or rows were read ({why}). "
            "Check corpus.folders, corpus.max_bytes and corpus.languages"
        )
    if share and not held:
        raise ValueError(
            f"corpus.heldout is {share}, but nothing can be held out: each source has a single "
            f"file, or the files repeat one another ({why}). Add files, or set it to 0"
        )
