"""`phikit decontaminate`: the hybrid n-gram rule on files of your own, which stay as they are.

Rows are checked in pieces of a file (`scrub_files.py`) on the job pool, so memory is flat and a killed run goes on.
What is kept is written with the bytes it had: lines of JSONL, rows of Parquet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from phikit.ask.embed import open_embedder
from phikit.corpus.decontaminate import CONTAMINATED, INFO, EvalIndex, Match
from phikit.corpus.paraphrase import THRESHOLD as ALIKE
from phikit.corpus.paraphrase import Paraphrase, ParaphraseIndex
from phikit.corpus.references import read_references, text_of
from phikit.corpus.scrub_files import Stamp, names, pieces, rows, stamps, write_kept
from phikit.corpus.sources import writable
from phikit.jobs.plan import code_of
from phikit.jobs.pool import run_shards
from phikit.jobs.progress import bar
from phikit.jobs.run import LOCAL
from phikit.records.ids import fingerprint
from phikit.records.io import atomic_path, read_jsonl, write_json, write_jsonl
from phikit.records.remote import Place, Unreachable, place
from phikit.text import ngrams

BATCH = 2 << 20  # characters checked together
CONTEXT = 160  # characters shown before and after a match


@dataclass(frozen=True)
class Scrub:
    """against: benchmark files (`references.read_references`). key: the column that is checked; "" is `text`, or all
    strings of the row. info, contaminated: the 7-gram thresholds of report appendix B.1, not disclosed there.
    allow: texts; a 13-gram that `allow.TEXTS` of them hold is no evidence. partial: drop partial matches too. numbers:
    drop items with other numbers (`numbers_alike`), which are partial matches else.
    paraphrase: an embedder (`ask.embed.open_embedder`) that looks for items in other words; "": none does. alike: the
    cosine from which a window is one. paraphrases: drop those rows too."""

    against: tuple[Place, ...]
    key: str = ""
    info: float = INFO
    contaminated: float = CONTAMINATED
    allow: tuple[Place, ...] = ()
    partial: bool = False
    paraphrase: str = ""
    alike: float = ALIKE
    paraphrases: bool = False
    numbers: bool = False


def scrub(
    files: Sequence[Place], out: Path, settings: Scrub, workers: int = 1, on: str = LOCAL
) -> dict[str, Any]:
    """Writes out/clean/<file> for each file, out/flagged.jsonl (row, match, the text around it and the item's text)
    and out/summary.json; returns the summary. Raises ValueError for files of another kind, and where nothing can be
    checked; a row that cannot be read is in flagged.jsonl with the verdict `unreadable`."""
    try:
        against, allow = stamps(settings.against), stamps(settings.allow)
        cut = [(path, piece) for path in files for piece in pieces(path)]
    except Unreachable as e:
        raise ValueError(f"{e}; check the address, or give the command again") from e
    items = _items(against, allow, out / ".work")  # errors show before any work
    index, texts = (
        _index(str(items)),
        {r["id"]: r["text"] for r in read_jsonl(items.with_suffix(".jsonl.zst"))},
    )
    short = _alike(against, settings.paraphrase, settings.alike).too_short if settings.paraphrase else 0
    called = names(files)
    options = {
        "items": str(items.resolve()), "against": against, "key": settings.key, "info": settings.info,
        "contaminated": settings.contaminated, "numbers": settings.numbers, "paraphrase": settings.paraphrase,
        "alike": settings.alike,
    }  # fmt: skip
    shards = [(path, {**piece, **options}) for path, piece in cut]
    results = run_shards(
        check_piece, [p for _, p in shards], work=out / ".work", label="decontaminate", workers=workers, on=on
    )
    flagged: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = {str(p): Counter() for p in files}
    for (path, _), (total, found) in zip(shards, results):
        mine = counts[str(path)]
        before = mine["rows"]
        mine["rows"] += total
        for row in found:
            mine[row["verdict"]] += 1
            if other := row["paraphrase"]:
                mine["paraphrased"] += 1
                other["item_text"] = texts.get(other["item"], "")
            row = {**row, "file": str(path), "row": before + row["row"]}
            flagged.append({**row, "item_text": texts.get(row["item"], "")})
    drop = {"contaminated", "unreadable"} | ({"partial"} if settings.partial else set())
    with bar("write", total=len(files), unit="files") as b:
        for path in files:
            gone = {
                r["row"] for r in flagged
                if r["file"] == str(path) and (r["verdict"] in drop or (settings.paraphrases and r["paraphrase"]))
            }  # fmt: skip
            first = next((piece for own, piece in shards if own == path), None)
            write_kept(path, out / "clean" / called[path], gone, first)
            b.advance()
    write_jsonl(out / "flagged.jsonl", flagged)
    summary = _summary(files, counts, flagged, index, settings)
    if settings.paraphrase:
        summary |= {"paraphrase": settings.paraphrase, "paraphrase_from": settings.alike,
                    "paraphrases_dropped": settings.paraphrases, "items_too_short_for_it": short}  # fmt: skip
    write_json(out / "summary.json", summary)
    return summary


def check_piece(piece: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """(rows, flagged rows with their number in the piece) of one piece."""
    index = _index(piece["items"])
    alike = _alike(piece["against"], piece["paraphrase"], piece["alike"]) if piece["paraphrase"] else None
    found: list[dict[str, Any]] = []
    texts: list[str] = []
    first = number = size = 0

    def flush() -> None:
        nonlocal first, size
        matches = index.check(
            ngrams.words(texts), **{k: piece[k] for k in ("info", "contaminated", "numbers")}
        )
        others = alike.check(texts) if alike else [None] * len(texts)
        for i, (match, other) in enumerate(zip(matches, others)):
            if match.verdict != "clean" or other:
                found.append(_row(first + i, texts[i], match, other))
        texts.clear()
        first, size = number, 0

    for row, error in rows(piece):
        text = text_of(row, piece["key"]) if row is not None else ""
        if not writable(text):
            text, error = "", "its text holds half of a surrogate pair"
        if not text.strip():
            keys = ", ".join(sorted(map(str, row or {}))).encode("utf-8", "backslashreplace").decode()
            detail = error or f"no text under {piece['key'] or 'text'!r} (keys: {keys})"
            found.append(_row(number, detail, None))
        texts.append(text)
        number += 1
        size += len(text)
        if size >= BATCH:
            flush()
    flush()
    return number, sorted(found, key=lambda r: r["row"])


def _row(number: int, text: str, match: Match | None, other: Paraphrase | None = None) -> dict[str, Any]:
    """A row of flagged.jsonl; without a match the row cannot be read, and `text` says why. A row that is nothing but a
    paraphrase has that verdict."""
    m = match or Match(span=(0, len(text)))
    verdict = match.verdict if match else "unreadable"
    a, b = m.span
    return {
        "file": "", "row": number, "verdict": "paraphrase" if verdict == "clean" else verdict,
        "rule": m.rule, "item": m.item,
        "overlap": m.overlap, "ratio": round(m.ratio, 4), "shown": m.shown() if m.rule else "", "span": [a, b],
        "before": text[max(0, a - CONTEXT) : a], "match": text[a:b],
        "after": text[b : b + CONTEXT] if m.rule else "",
        "paraphrase": {**asdict(other), "match": text[slice(*other.span)]} if other else None,
    }  # fmt: skip


def _items(against: list[Stamp], allow: list[Stamp], work: Path) -> Path:
    """The items' index in `work` (.npz, and beside it .jsonl.zst with the text of each item), built where it is not
    there from an earlier call with the same benchmarks and code. Raises ValueError where there is no item."""
    from phikit.corpus.allow import common_phrases

    path = work / f"items-{fingerprint([against, allow, code_of(check_piece)])[:16]}.npz"
    if path.exists() and all(
        mark for *_, mark in (*against, *allow)
    ):  # a server may give no mark of a version
        return path
    pairs = [pair for where, *_ in against for pair in read_references(place(where))]
    if not pairs:
        raise ValueError("decontaminate: name benchmark files with --against, they hold no row")
    trusted = [text for where, *_ in allow for _, text in read_references(place(where))]
    for old in work.glob("items-*"):
        old.unlink()
    texts = dict(reversed(pairs))  # of an item its whole text, which is its first pair
    write_jsonl(path.with_suffix(".jsonl.zst"), ({"id": i, "text": t} for i, t in texts.items()))
    with atomic_path(path) as tmp:
        EvalIndex(pairs, common=common_phrases(trusted) if trusted else None).save(tmp)
    return path


@lru_cache(maxsize=1)
def _index(path: str) -> EvalIndex:
    """Once a process; the name says what is in it."""
    return EvalIndex.load(Path(path))


def _alike(against: list[Stamp], embedder: str, threshold: float) -> ParaphraseIndex:
    return _cached_alike(tuple(map(tuple, against)), embedder, threshold)


@lru_cache(maxsize=1)
def _cached_alike(against: tuple[tuple[Any, ...], ...], embedder: str, threshold: float) -> ParaphraseIndex:
    """Once a process: vectors of items stay from piece to piece."""
    pairs = [pair for where, *_ in against for pair in read_references(place(where))]
    return ParaphraseIndex(pairs, open_embedder(embedder), threshold)


def _summary(
    files: Sequence[Place],
    counts: dict[str, Counter[str]],
    flagged: list[dict[str, Any]],
    index: EvalIndex,
    settings: Scrub,
) -> dict[str, Any]:
    total = sum(counts.values(), Counter())
    items = Counter(r["item"] for r in flagged if r["verdict"] == "contaminated")
    return {
        "rows": total["rows"], "contaminated": total["contaminated"], "partial": total["partial"],
        "unreadable": total["unreadable"], "paraphrased": total["paraphrased"],
        "paraphrase_alone": total["paraphrase"], "by_rule": dict(Counter(r["rule"] for r in flagged if r["rule"])),
        "by_file": {str(p): dict(counts[str(p)]) for p in files}, "items_found": len(items),
        "items": len(set(index.ids)), "items_too_short": index.too_short, "boilerplate_13grams": len(index.boilerplate),
        "top_items": dict(items.most_common(10)), "info": settings.info, "contaminated_from": settings.contaminated,
        "numbers_dropped": settings.numbers,
        "against": [str(p) for p in settings.against],
    }  # fmt: skip
