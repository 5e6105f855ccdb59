"""`phikit decontaminate`: the hybrid n-gram rule on files of your own, which stay as they are.

Rows are checked in pieces of a file (byte ranges of JSONL, row groups of Parquet) on the job pool, so memory is flat
and a killed run goes on. What is kept is written with the bytes it had: lines of JSONL, rows of Parquet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from phikit.ask.embed import open_embedder
from phikit.corpus.decontaminate import CONTAMINATED, INFO, EvalIndex, Match
from phikit.corpus.paraphrase import THRESHOLD as ALIKE
from phikit.corpus.paraphrase import Paraphrase, ParaphraseIndex
from phikit.corpus.references import read_references, text_of
from phikit.corpus.rows import MAX_LINE
from phikit.corpus.sources import writable
from phikit.jobs.pool import run_shards
from phikit.jobs.progress import bar
from phikit.jobs.run import LOCAL
from phikit.records.io import (
    RowError,
    atomic_path,
    bounded_lines,
    open_lines,
    parse_row,
    write_json,
    write_jsonl,
)
from phikit.text import ngrams

PIECE = 16 << 20  # bytes of a plain JSONL file that are one task
BATCH = 2 << 20  # characters checked together
CONTEXT = 160  # characters shown before and after a match
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


@dataclass(frozen=True)
class Scrub:
    """against: benchmark files (`references.read_references`). key: the column that is checked; "" is `text`, or all
    strings of the row. info, contaminated: the 7-gram thresholds of report appendix B.1, not disclosed there.
    allow: texts; a 13-gram that `allow.TEXTS` of them hold is no evidence. partial: drop partial matches too.
    paraphrase: an embedder (`ask.embed.open_embedder`) that looks for items in other words; "": none does. alike: the
    cosine from which a window is one. paraphrases: drop those rows too."""

    against: tuple[Path, ...]
    key: str = ""
    info: float = INFO
    contaminated: float = CONTAMINATED
    allow: tuple[Path, ...] = ()
    partial: bool = False
    paraphrase: str = ""
    alike: float = ALIKE
    paraphrases: bool = False


def scrub(
    files: Sequence[Path], out: Path, settings: Scrub, workers: int = 1, on: str = LOCAL
) -> dict[str, Any]:
    """Writes out/clean/<file> for each file, out/flagged.jsonl (row, match, the text around it and the item's text)
    and out/summary.json; returns the summary. Raises ValueError for files of another kind, and where nothing can be
    checked; a row that cannot be read is in flagged.jsonl with the verdict `unreadable`."""
    index, texts = _index(_stamps(settings.against), _stamps(settings.allow))  # errors show before any work
    against = _stamps(settings.against)
    short = _alike(against, settings.paraphrase, settings.alike).too_short if settings.paraphrase else 0
    names = _names(files)
    pieces = [
        {**piece, "against": against, "allow": _stamps(settings.allow), "key": settings.key,
         "info": settings.info, "contaminated": settings.contaminated,
         "paraphrase": settings.paraphrase, "alike": settings.alike}
        for path in files for piece in _pieces(path)
    ]  # fmt: skip
    results = run_shards(
        check_piece, pieces, work=out / ".work", label="decontaminate", workers=workers, on=on
    )
    flagged: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = {str(p): Counter() for p in files}
    for piece, (rows, found) in zip(pieces, results):
        before = counts[piece["path"]]["rows"]
        counts[piece["path"]]["rows"] += rows
        for row in found:
            counts[piece["path"]][row["verdict"]] += 1
            if other := row["paraphrase"]:
                counts[piece["path"]]["paraphrased"] += 1
                other["item_text"] = texts.get(other["item"], "")
            flagged.append({**row, "row": before + row["row"], "item_text": texts.get(row["item"], "")})
    drop = {"contaminated", "unreadable"} | ({"partial"} if settings.partial else set())
    with bar("write", total=len(files), unit="files") as b:
        for path in files:
            gone = {
                r["row"] for r in flagged
                if r["file"] == str(path) and (r["verdict"] in drop or (settings.paraphrases and r["paraphrase"]))
            }  # fmt: skip
            _write_kept(path, out / "clean" / names[path], gone)
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
    index, _ = _index(piece["against"], piece["allow"])
    alike = _alike(piece["against"], piece["paraphrase"], piece["alike"]) if piece["paraphrase"] else None
    found: list[dict[str, Any]] = []
    texts: list[str] = []
    first = number = size = 0

    def flush() -> None:
        nonlocal first, size
        matches = index.check(ngrams.words(texts), info=piece["info"], contaminated=piece["contaminated"])
        others = alike.check(texts) if alike else [None] * len(texts)
        for i, (match, other) in enumerate(zip(matches, others)):
            if match.verdict != "clean" or other:
                found.append(_row(piece["path"], first + i, texts[i], match, other))
        texts.clear()
        first, size = number, 0

    for row, error in _read(piece):
        text = text_of(row, piece["key"]) if row is not None else ""
        if not writable(text):
            text, error = "", "its text holds half of a surrogate pair"
        if not text.strip():
            keys = ", ".join(sorted(map(str, row or {}))).encode("utf-8", "backslashreplace").decode()
            detail = error or f"no text under {piece['key'] or 'text'!r} (keys: {keys})"
            found.append(_row(piece["path"], number, detail, None))
        texts.append(text)
        number += 1
        size += len(text)
        if size >= BATCH:
            flush()
    flush()
    return number, sorted(found, key=lambda r: r["row"])


def _row(
    path: str, number: int, text: str, match: Match | None, other: Paraphrase | None = None
) -> dict[str, Any]:
    """A row of flagged.jsonl; without a match the row cannot be read, and `text` says why. A row that is nothing but a
    paraphrase has that verdict."""
    m = match or Match(span=(0, len(text)))
    verdict = match.verdict if match else "unreadable"
    a, b = m.span
    return {
        "file": path, "row": number, "verdict": "paraphrase" if verdict == "clean" else verdict,
        "rule": m.rule, "item": m.item,
        "overlap": m.overlap, "ratio": round(m.ratio, 4), "span": [a, b],
        "before": text[max(0, a - CONTEXT) : a], "match": text[a:b],
        "after": text[b : b + CONTEXT] if m.rule else "",
        "paraphrase": {**asdict(other), "match": text[slice(*other.span)]} if other else None,
    }  # fmt: skip


Stamp = list[Any]  # [path, bytes, mtime in ns]: a benchmark or file that changed is another one


def _stamps(paths: Sequence[Path]) -> list[Stamp]:
    stamps = []
    for p in paths:
        if not p.exists():
            raise ValueError(f"{p}: there is no such file or folder to decontaminate against")
        all_stats = [q.stat() for q in (p, *(p.rglob("*") if p.is_dir() else ()))]
        stamps.append([str(p), sum(s.st_size for s in all_stats), max(s.st_mtime_ns for s in all_stats)])
    return stamps


def _index(against: list[Stamp], allow: list[Stamp]) -> tuple[EvalIndex, dict[str, str]]:
    return _cached(tuple(map(tuple, against)), tuple(map(tuple, allow)))


@lru_cache(maxsize=1)
def _cached(
    against: tuple[tuple[Any, ...], ...], allow: tuple[tuple[Any, ...], ...]
) -> tuple[EvalIndex, dict[str, str]]:
    """The index of stamped files and the text of each item; once a process."""
    from phikit.corpus.allow import common_phrases

    pairs = [pair for path, *_ in against for pair in read_references(Path(path))]
    if not pairs:
        raise ValueError("decontaminate: name benchmark files with --against, they hold no row")
    trusted = [text for path, *_ in allow for _, text in read_references(Path(path))]
    texts = dict(reversed(pairs))  # of an item its whole text, which is its first pair
    return EvalIndex(pairs, common=common_phrases(trusted) if trusted else None), texts


def _alike(against: list[Stamp], embedder: str, threshold: float) -> ParaphraseIndex:
    return _cached_alike(tuple(map(tuple, against)), embedder, threshold)


@lru_cache(maxsize=1)
def _cached_alike(against: tuple[tuple[Any, ...], ...], embedder: str, threshold: float) -> ParaphraseIndex:
    """Once a process: vectors of items stay from piece to piece."""
    pairs = [pair for path, *_ in against for pair in read_references(Path(path))]
    return ParaphraseIndex(pairs, open_embedder(embedder), threshold)


def _pieces(path: Path) -> Iterator[dict[str, Any]]:
    """The parts of a file that are checked on their own. A packed JSONL file is one."""
    if not path.is_file() or not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path}: give files of these kinds: {' '.join(SUFFIXES)}")
    stat = path.stat()
    stamp = {"path": str(path), "size": stat.st_size, "mtime": stat.st_mtime_ns}
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        try:
            groups = pq.ParquetFile(path).num_row_groups
        except (OSError, ValueError) as e:
            raise ValueError(f"{path}: not a readable Parquet file ({e})") from e
        yield from ({**stamp, "group": i} for i in range(groups))
    elif path.suffix == ".jsonl":
        ends = _line_ends(path, stat.st_size)
        yield from ({**stamp, "start": a, "end": b} for a, b in zip([0, *ends[:-1]], ends))
    else:
        yield stamp


def _line_ends(path: Path, size: int) -> list[int]:
    """Offsets after a line feed about every PIECE bytes; the last is the file's size."""
    ends = []
    with path.open("rb") as f:
        while (ends[-1] if ends else 0) + PIECE < size:
            f.seek((ends[-1] if ends else 0) + PIECE)
            next(bounded_lines(f, PIECE), None)
            ends.append(f.tell())
    return [*ends, size] if not ends or ends[-1] < size else ends


def _read(piece: dict[str, Any]) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """(row, "") or (None, what is wrong with it) of each row of a piece."""
    if "group" in piece:
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(piece["path"]).iter_batches(1024, row_groups=[piece["group"]]):
            yield from ((row, "") for row in batch.to_pylist())
        return
    with open_lines(Path(piece["path"])) as f:
        if "start" in piece:
            f.seek(piece["start"])
        for _, line in bounded_lines(f, MAX_LINE):  # blank ones too: a row's number is its line's
            try:
                if line is None:
                    raise RowError(f"a line of more than {MAX_LINE >> 20} MB")
                yield parse_row(line), ""
            except RowError as e:
                yield None, str(e)
            if "end" in piece and f.tell() >= piece["end"]:
                break


def _write_kept(path: Path, out: Path, gone: set[int]) -> None:
    """The file without the rows in `gone`."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        file, number = pq.ParquetFile(path), 0
        with atomic_path(out) as tmp, pq.ParquetWriter(tmp, file.schema_arrow, compression="zstd") as writer:
            for batch in file.iter_batches(4096):
                keep = pa.array([number + i not in gone for i in range(batch.num_rows)], pa.bool_())
                writer.write_batch(batch.filter(keep))
                number += batch.num_rows
        return
    with atomic_path(out) as tmp, open_lines(path) as f, open_lines(tmp, like=path) as g:
        for number, line in bounded_lines(f, MAX_LINE):
            if line is not None and number - 1 not in gone:
                g.write(line)


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """Names under clean/: the files' own, with their folder where two are called alike."""
    alike = Counter(p.name for p in files)
    names = {p: p.name if alike[p.name] == 1 else f"{p.parent.name}/{p.name}" for p in files}
    if len(set(names.values())) < len(names):
        raise ValueError("two of the files have the same name and folder name; check them in separate calls")
    return names


def _summary(
    files: Sequence[Path],
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
        "against": [str(p) for p in settings.against],
    }  # fmt: skip
