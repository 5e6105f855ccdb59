"""The organic corpus: read -> extract -> quality -> language -> exact duplicates -> decontamination -> near
duplicates -> held-out split (report sections 2.3 and 5, appendix B.1).

Steps that look at one document run shard by shard on the job pool and resume; steps that compare documents
follow on the whole. Decontamination comes before near duplicates, so that a clean text is never dropped in
favour of a contaminated twin. Every document that is left out becomes a Rejection with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from phikit.corpus import dedup, quality
from phikit.corpus.decontaminate import CONTAMINATED, INFO, EvalIndex
from phikit.corpus.extract import extract
from phikit.corpus.heldout import hold_out
from phikit.corpus.language import language
from phikit.corpus.rejection import Rejection
from phikit.corpus.sources import Item
from phikit.jobs.pool import run_shards
from phikit.jobs.progress import bar, track
from phikit.records import Document, from_row, to_row
from phikit.records.ids import file_sha256
from phikit.records.io import read_jsonl, write_jsonl
from phikit.text import ngrams

SHARD_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Settings:
    """languages: ISO codes that text may be in (code is exempt). max_code: characters of a code document.
    near: Jaccard similarity of near duplicates. info, contaminated: 7-gram thresholds. heldout: share of
    bytes."""

    languages: tuple[str, ...] = ("en",)
    max_code: int = 20_000
    near: float = 0.8
    info: float = INFO
    contaminated: float = CONTAMINATED
    heldout: float = 0.02


def build(
    items: Iterable[Item],
    references: Iterable[tuple[str, str]],
    out: Path,
    work: Path,
    settings: Settings,
    workers: int = 1,
) -> dict[str, Any]:
    """Writes documents, heldout and rejected (.jsonl.zst) into `out`; shards and their state into `work`.

    Returns counts with in + parts = out + heldout + sum(dropped), where `parts` is what cutting long files
    added. Equal items, references and settings give equal bytes, whatever `workers`.
    Raises ValueError where no document, or none to hold out, is left, with the reasons.
    """
    index = EvalIndex(references)
    number, raw = _write_shards(items, work, settings)
    run_shards(clean_shard, raw, work=work / "clean", label="corpus: clean", workers=workers)
    documents: list[Document] = []
    rejected: list[Rejection] = []
    for shard in raw:
        for item in _read_items(Path(shard["out"])):
            (documents if isinstance(item, Document) else rejected).append(item)  # type: ignore[arg-type]
    parts = len(documents) + len(rejected) - number
    with bar("corpus: compare", total=4, unit="steps") as b:
        documents = _drop_exact(documents, rejected)
        b.advance()
        words = ngrams.words([d.text for d in documents])
        documents, words = _drop_contaminated(documents, words, index, settings, rejected)
        b.advance()
        documents, words = _drop_near(documents, words, settings.near, rejected)
        b.advance()
        train, held = hold_out(documents, words, settings.heldout)
        b.advance()
    _require(train, held, number, rejected, settings)
    write_jsonl(out / "documents.jsonl.zst", map(to_row, train))
    write_jsonl(out / "heldout.jsonl.zst", map(to_row, held))
    write_jsonl(out / "rejected.jsonl.zst", (r.row() for r in rejected))
    size: Counter[str] = Counter()
    for d in train:
        size[d.source] += len(d.text.encode("utf-8", "surrogatepass"))
    return {
        "in": number,
        "parts": parts,
        "out": len(train),
        "bytes_out": sum(size.values()),
        "heldout": len(held),
        "heldout_bytes": sum(len(d.text.encode("utf-8", "surrogatepass")) for d in held),
        "dropped": dict(sorted(Counter(r.reason for r in rejected).items())),
        "by_source": dict(sorted(Counter(d.source for d in train).items())),
        "bytes_by_source": dict(sorted(size.items())),
        "partial_7gram": sum("contamination" in d.meta for d in documents),
        "references": len(index.ids),
        "references_too_short": index.too_short,
    }


def clean_shard(shard: dict[str, Any]) -> int:
    """The document-wise steps on one shard file; writes shard["out"], returns the number of items in it."""
    items = _read_items(Path(shard["path"]))
    kept = (after for item in items for after in clean(item, tuple(shard["languages"]), shard["max_code"]))
    return write_jsonl(Path(shard["out"]), map(_item_row, kept))


def clean(item: Item, languages: Sequence[str], max_code: int) -> Iterator[Item]:
    """extract, then quality, then language: the documents made of one item, or why there is none."""
    if isinstance(item, Rejection):
        yield item
        return
    for document in extract(item, max_code=max_code):
        if isinstance(document, Rejection):
            yield document
            continue
        code = document.source == "code" or document.meta.get("format") == "python"
        if bad := quality.reason(document.text, quality.CODE if code else quality.TEXT):
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


def _write_shards(items: Iterable[Item], work: Path, settings: Settings) -> tuple[int, list[dict[str, Any]]]:
    """(items read, shards): the items as shard files of about 4 MB under `work`."""
    shards: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    number = size = 0

    def flush() -> None:
        path = work / "read" / f"{len(shards):05d}.jsonl.zst"
        write_jsonl(path, rows)
        out = work / "clean" / f"{len(shards):05d}.jsonl.zst"
        shards.append(
            {"path": str(path), "sha256": file_sha256(path), "out": str(out)}
            | {"languages": list(settings.languages), "max_code": settings.max_code}
        )
        rows.clear()

    for item in track(items, "corpus: read", unit="files"):
        number += 1
        size += len(item.text)
        rows.append(_item_row(item))
        if size >= SHARD_CHARACTERS:
            flush()
            size = 0
    if rows:
        flush()
    return number, shards


def _item_row(item: Item) -> dict[str, Any]:
    return {"rejected": dict(item.row())} if isinstance(item, Rejection) else {"document": to_row(item)}


def _read_items(path: Path) -> Iterator[Item]:
    for row in read_jsonl(path):
        yield Rejection(**row["rejected"]) if "rejected" in row else from_row(Document, row["document"])


def _drop_exact(documents: list[Document], rejected: list[Rejection]) -> list[Document]:
    twins = dedup.exact_twins([d.text for d in documents])
    return _drop_twins(documents, twins, "exact_duplicate", rejected)


def _drop_near(
    documents: list[Document], words: ngrams.Words, threshold: float, rejected: list[Rejection]
) -> tuple[list[Document], ngrams.Words]:
    twins = dedup.near_twins(words, threshold)
    kept = _drop_twins(documents, twins, "near_duplicate", rejected)
    return kept, words.take([i for i, twin in enumerate(twins) if twin == i])


def _drop_twins(documents: list[Document], twins, reason: str, rejected: list[Rejection]) -> list[Document]:
    kept = []
    for i, d in enumerate(documents):
        if twins[i] == i:
            kept.append(d)
        else:
            first = documents[twins[i]]
            rejected.append(Rejection.of(d, reason, f"of {first.id} ({first.meta.get('path', '')})"))
    return kept


def _drop_contaminated(
    documents: list[Document],
    words: ngrams.Words,
    index: EvalIndex,
    settings: Settings,
    rejected: list[Rejection],
) -> tuple[list[Document], ngrams.Words]:
    """The clean documents and their words; a partial match is kept and noted in `meta["contamination"]`."""
    kept, places = [], []
    for i, match in enumerate(index.check(words, info=settings.info, contaminated=settings.contaminated)):
        d = documents[i]
        if match.verdict == "contaminated":
            start, end = match.span
            detail = (
                f"{match.rule}, item {match.item}, {match.overlap} 7-grams, ratio {match.ratio:.3f}: "
                f"{' '.join(d.text[start:end].split())[:200]!r}"
            )
            rejected.append(Rejection.of(d, f"contaminated_{match.rule.replace('-', '')}", detail))
            continue
        if match.verdict == "partial":
            d = replace(
                d, meta={**d.meta, "contamination": {k: v for k, v in asdict(match).items() if k != "span"}}
            )
        kept.append(d)
        places.append(i)
    return kept, words.take(places)


def _require(
    train: list[Document], held: list[Document], number: int, rejected: list[Rejection], settings: Settings
) -> None:
    dropped = (
        ", ".join(f"{k} {n}" for k, n in Counter(r.reason for r in rejected).most_common())
        or "nothing dropped"
    )
    if not train:
        raise ValueError(
            f"the corpus is empty: {number} files or rows were read ({dropped}). "
            "Check corpus.folders, corpus.max_bytes and corpus.languages"
        )
    if settings.heldout and not held:
        raise ValueError(
            f"corpus.heldout is {settings.heldout}, but nothing can be held out: each source has a single "
            f"file, or the files repeat one another ({dropped}). Add files, or set it to 0"
        )
