"""The organic corpus: read -> extract -> quality -> language -> decontamination -> exact duplicates -> near
duplicates -> held-out split (report sections 2.3 and 5, appendix B.1).

A plan of steps over shards (`jobs.plan`): steps that look at one document are maps, steps that compare documents are
barriers that see keys alone (`compare.py`), so memory does not grow with the corpus. Decontamination comes before
duplicates, so that a clean text is never dropped in favour of a contaminated twin. Every document that is left out
becomes a Rejection with its reason.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from phikit.corpus import compare, dedup, heldout, paragraphs, quality
from phikit.corpus.cleaned import batches, keys_of
from phikit.corpus.code import is_code
from phikit.corpus.decontaminate import CONTAMINATED, INFO, NUMBERS, EvalIndex
from phikit.corpus.extract import extract
from phikit.corpus.finish import concatenate, finish, require
from phikit.corpus.folders import Folder
from phikit.corpus.language import language
from phikit.corpus.pieces import Piece, pieces
from phikit.corpus.pieces import documents as piece_documents
from phikit.corpus.rejection import Rejection
from phikit.corpus.sources import Item
from phikit.jobs.plan import Shard, Step, compile
from phikit.jobs.progress import track
from phikit.jobs.run import LOCAL, run_plan
from phikit.records import Document, from_row, to_row
from phikit.records.io import line_writer, read_jsonl, write_json, write_jsonl
from phikit.text import ngrams

SHARD_CHARACTERS = 2_000_000
OUTPUTS = ("documents", "heldout", "rejected")
REASONS = {"13-gram": "contaminated_13gram", "7-gram": "contaminated_7gram", NUMBERS: "contaminated_numbers"}


@dataclass(frozen=True)
class Settings:
    """languages: ISO codes that text may be in (code is exempt). max_code: characters of a code document. quality:
    whether the quality heuristics apply. paragraphs: one that is in more documents is cut from all but the first; 0:
    none is. near: Jaccard similarity of near duplicates. info, contaminated: 7-gram thresholds. numbers:
    whether an evaluation item with other numbers is dropped. heldout: share of bytes."""

    languages: tuple[str, ...] = ("en",)
    max_code: int = 20_000
    quality: bool = True
    paragraphs: int = 0
    near: float = 0.8
    info: float = INFO
    contaminated: float = CONTAMINATED
    numbers: bool = False
    heldout: float = 0.02


def build(
    items: Iterable[Item],
    references: Iterable[tuple[str, str]],
    out: Path,
    work: Path,
    settings: Settings,
    workers: int = 1,
    on: str = LOCAL,
    folders: Sequence[Folder] = (),
) -> dict[str, Any]:
    """Writes documents, heldout and rejected (.jsonl.zst) of `items`, then of the files in `folders`, into `out`;
    shards and their state into `work`.

    Returns counts with in + parts = out + heldout + sum(dropped), where `parts` is what cutting long files
    added. Equal items, references and settings give equal bytes, whatever `workers` and `on` (as `jobs.run.run_plan`).
    Raises ValueError where no document, or none to hold out, is left, with the reasons.
    """
    dedup.check_threshold(settings.near)
    heldout.check_share(settings.heldout)
    write_jsonl(work / "references.jsonl.zst", ({"id": i, "text": t} for i, t in references))
    alone, files = [], []
    for folder in folders:
        some, groups = pieces(folder, SHARD_CHARACTERS)
        alone.append(some)
        files += [(folder, group) for group in groups]
    raw = _write_shards(chain(items, *alone), work / "read")
    if not raw and not files:
        require(0, 0, 0, Counter(), settings.heldout)
    steps = _steps(work / "clean", out, settings, raw, files)
    return run_plan(compile(work / "clean", steps), label="corpus", workers=workers, on=on)[-1]


def _steps(
    here: Path,
    out: Path,
    settings: Settings,
    raw: list[Path],
    files: list[tuple[Folder, list[Piece]]],
) -> list[Step]:
    """Files of part i are named <i>.<what>; paths are relative to `here`."""
    n = len(raw) + len(files)

    def each(what: str) -> tuple[str, ...]:
        return tuple(f"{i:05d}.{what}" for i in range(n))

    def rows(*whats: str) -> list[tuple[str, ...]]:
        return list(zip(*map(each, whats)))

    def flat(*whats: str) -> tuple[str, ...]:
        return tuple(name for row in rows(*whats) for name in row)

    def step(name: str, fn: Any, reads: Iterable[tuple[str, ...]], writes: Iterable[tuple[str, ...]]) -> Step:
        return Step(name, fn, [Shard(options, r, w) for r, w in zip(reads, writes)])

    def barrier(
        name: str, fn: Any, reads: tuple[str, ...], writes: tuple[str, ...], kind: str = "group"
    ) -> Step:
        return Step(name, fn, [Shard(options, reads, writes)], kind)

    options = asdict(settings)
    clean_shards = [Shard(options, ("index.npz", os.path.relpath(p, here))) for p in raw]
    for folder, group in files:
        names = {"files": [p.row() for p in group], "source": folder.source, "text_key": folder.text_key}
        paths = tuple(os.path.relpath(p.input, here) for p in group if p.input)
        clean_shards.append(Shard({**options, **names}, ("index.npz", *paths)))
    cleaned = ("documents.jsonl.zst", "dropped.jsonl.zst", "keys", "counts.json")
    whole = ("whole.jsonl.zst", "refused.jsonl.zst", "whole.keys", "whole.json")
    first = (*whole, "hashes") if settings.paragraphs else cleaned
    texts, keys = each("documents.jsonl.zst"), each("keys")
    finished = ("kept.jsonl.zst", "heldout.jsonl.zst", "rejected.jsonl.zst", "final.json")
    sketches = ("keys", "needed.npy", "shingles", "sizes.npy")
    split = bool(settings.heldout)
    steps = [
        Step("index", index, [Shard({}, ("../references.jsonl.zst",), ("index.npz",))]),
        Step("clean", clean_shard, [replace(s, writes=w) for s, w in zip(clean_shards, rows(*first))]),
        *(
            [
                barrier("repeated", paragraphs.repeated, each("hashes"), each("cut.npy")),
                step("strip", paragraphs.strip, rows(*whole, "cut.npy"), rows(*cleaned)),
            ]
            if settings.paragraphs
            else []
        ),
        barrier("candidates", compare.candidates, keys, ("exact.npy", "pairs", *each("needed.npy"))),
        step("shingles", compare.shingles, zip(texts, each("needed.npy")), rows("shingles", "sizes.npy")),
        barrier(
            "join",
            compare.join,
            ("exact.npy", "pairs", *flat(*sketches)),
            ("near.npy", "asked.npy", *each("left.npy")),
        ),
    ]
    if split:
        shown = rows("documents.jsonl.zst", "keys", "left.npy")
        steps += [
            step("own", compare.own, [(*r, "asked.npy") for r in shown], rows("own.npy")),
            barrier("table", compare.table, each("own.npy"), ("table.npz",)),
            step("elsewhere", compare.elsewhere, [(*r, "table.npz") for r in shown], rows("seen.npy")),
        ]
    fated = ("exact.npy", "near.npy", "asked.npy", *flat("documents.jsonl.zst", "keys", "left.npy"))
    fated += ("table.npz", *each("seen.npy")) if split else ()
    written = tuple(os.path.relpath(out / f"{name}.jsonl.zst", here) for name in OUTPUTS)
    return [
        *steps,
        barrier("fates", compare.fates, fated, each("fate.json")),
        step("finish", finish, rows(*cleaned, "fate.json"), rows(*finished)),
        barrier("write", concatenate, ("index.npz", *flat(*finished)), written, "mix"),
    ]


def index(options: Mapping[str, Any], reads: Sequence[Path], writes: Sequence[Path]) -> None:
    """The n-grams of the evaluation items."""
    EvalIndex((row["id"], row["text"]) for row in read_jsonl(reads[0])).save(writes[0])


def clean_shard(options: Mapping[str, Any], reads: Sequence[Path], writes: Sequence[Path]) -> dict[str, Any]:
    """The document-wise steps on one shard: a file of items, or the files named in `options`. Writes the documents,
    the rejections, the documents' keys, counts, which it returns too, and, where asked, hashes of paragraphs."""
    against = _index(reads[0], reads[0].stat().st_mtime_ns)
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    sources: set[str] = set()
    with ExitStack() as stack:
        keep, reject = (stack.enter_context(line_writer(p)) for p in writes[:2])
        keys = stack.enter_context(writes[2].open("wb"))
        parts = stack.enter_context(writes[4].open("wb")) if options["paragraphs"] else None

        def drop(rejection: Rejection) -> None:
            dropped[rejection.reason] += 1
            reject(dict(rejection.row()))

        def documents() -> Iterator[tuple[int, Document]]:
            for item in _shard_items(options, reads[1:]):
                counts["in"] += 1
                for after in clean(item, options["languages"], options["max_code"], options["quality"]):
                    if isinstance(after, Rejection):
                        drop(after)
                    else:
                        yield 0, after

        for _, some in batches(documents()):
            words = ngrams.words([d.text for d in some])
            kept, places = _drop_contaminated(some, words, against, options, drop)
            keys_of(kept, words.take(places)).tofile(keys)
            for number, d in enumerate(kept, counts["out"]):
                keep(to_row(d))
                sources.add(d.source)
                if parts:
                    found = [(key, number) for key in paragraphs.hashes(d)]
                    np.array(found, np.uint64).tofile(parts)
            counts["out"] += len(kept)
    total = {"in": counts["in"], "out": counts["out"], "dropped": dict(sorted(dropped.items()))}
    write_json(writes[3], {**total, "sources": sorted(sources)})
    return total


def clean(item: Item, languages: Sequence[str], max_code: int, heuristics: bool = True) -> Iterator[Item]:
    """extract, then quality, then language: the documents made of one item, or why there is none."""
    if isinstance(item, Rejection):
        yield item
        return
    for document in extract(item, max_code=max_code):
        if isinstance(document, Rejection):
            yield document
            continue
        code = is_code(document)
        ranges = quality.CODE if code else quality.TEXT
        if heuristics and (bad := quality.reason(document.text, ranges)):
            yield Rejection.of(document, *bad)
        elif code:
            yield document
        else:
            name, probability = language(document.text)
            if name in languages:
                yield replace(document, meta={**document.meta, "language": name})
            else:
                yield Rejection.of(
                    document, "language", f"{name} ({probability:.2f}), kept are {', '.join(languages)}"
                )


def _shard_items(options: Mapping[str, Any], paths: Sequence[Path]) -> Iterator[Item]:
    if "files" not in options:
        for row in read_jsonl(paths[0]):
            rejected = "rejected" in row
            yield Rejection(**row["rejected"]) if rejected else from_row(Document, row["document"])
        return
    inputs = iter(paths)
    for row in options["files"]:
        yield from piece_documents(row, inputs, options["source"], options["text_key"])


@lru_cache(maxsize=1)
def _index(path: Path, _changed: int) -> EvalIndex:
    return EvalIndex.load(path)


def _drop_contaminated(
    documents: list[Document],
    words: ngrams.Words,
    against: EvalIndex,
    options: Mapping[str, Any],
    drop: Any,
) -> tuple[list[Document], list[int]]:
    """The clean documents and their places; a partial match is kept and noted in `meta["contamination"]`."""
    kept, places = [], []
    thresholds = {k: options[k] for k in ("info", "contaminated", "numbers")}
    matches = against.check(words, **thresholds)
    for i, (d, match) in enumerate(zip(documents, matches)):
        if match.verdict == "contaminated":
            start, end = match.span
            detail = (
                f"{match.rule}, item {match.item}, {match.shown()}: "
                f"{' '.join(d.text[start:end].split())[:200]!r}"
            )
            drop(Rejection.of(d, REASONS[match.rule], detail))
            continue
        if match.verdict == "partial":
            d = replace(
                d, meta={**d.meta, "contamination": {k: v for k, v in asdict(match).items() if k != "span"}}
            )
        kept.append(d)
        places.append(i)
    return kept, places


def _write_shards(items: Iterable[Item], folder: Path) -> list[Path]:
    """The items as shard files of about 2 MB in `folder`."""
    shards: list[Path] = []
    rows: list[dict[str, Any]] = []
    size = 0

    def flush() -> None:
        shards.append(folder / f"{len(shards):05d}.jsonl.zst")
        write_jsonl(shards[-1], rows)
        rows.clear()

    for item in track(items, "corpus: read", unit="files"):
        size += len(item.text)
        rejected = isinstance(item, Rejection)
        rows.append({"rejected": dict(item.row())} if rejected else {"document": to_row(item)})
        if size >= SHARD_CHARACTERS:
            flush()
            size = 0
    if rows:
        flush()
    return shards
