"""Evaluation items from the files in which benchmarks are published, as decontamination wants them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from phikit.records.io import RowError, read_jsonl, read_parquet
from phikit.records.remote import Place, Remote, Unreachable, files_under

KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_PACKED = (".gz", ".zst")
PART = 20
_NO_TEXT = ("id", "other", "meta", "metadata")  # keys of a row that hold none


def read_references(path: Place) -> Iterator[tuple[str, str]]:
    """(item id, text) of each row of a benchmark: JSONL, a JSON list, CSV or TSV (with a header or without); Parquet;
    each also as .gz or .zst; a .tar.gz or .zip of such files, or a folder of them; here or behind a URL.

    The text is `text` where a row has it, else all its strings (question, options, ...), lists included, in the row's
    order and one a line. A question or solution of PART words is an item of the same id beside that, so that a long
    solution does not hide how much of the question was found. The id is the row's `id`, else "<file>:<row>". Raises
    ValueError for a file that is missing, damaged or of another kind, and for a row without text.
    """
    import zstandard

    damaged = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, zstandard.ZstdError)
    try:
        if isinstance(path, Remote):
            for name, file in files_under(path):
                if _known(name) or name.endswith(_ARCHIVES):
                    with file.copy() as copied:
                        yield from _references(copied)
        else:
            yield from _references(path)
    except Unreachable as e:
        raise ValueError(f"decontaminate against {e}") from e
    except damaged as e:
        raise ValueError(f"decontaminate against {path}: it cannot be read ({type(e).__name__}: {e})") from e


def _references(path: Path) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        files = [p for p in sorted(path.rglob("*")) if p.is_file() and _known(p.name)]
        if not files:
            raise ValueError(
                f"decontaminate against {path}: no file of a known kind in it ({' '.join(KINDS)})"
            )
        for file in files:
            yield from _items(file.relative_to(path.parent).as_posix(), _rows(file, file.name))
    elif not path.is_file():
        raise ValueError(
            f"decontaminate against {path}: there is no such file (corpus.decontaminate.against)"
        )
    elif path.name.endswith(_ARCHIVES):
        yield from _archive(path)
    elif _known(path.name):
        yield from _items(path.name, _rows(path, path.name))
    else:
        kinds = " ".join((*KINDS, *_ARCHIVES))
        raise ValueError(f"decontaminate against {path}: not a kind of file that is read here ({kinds})")


def text_of(row: dict[str, Any], key: str = "") -> str:
    """What is read of a row: `key` where one is named, else `text` where it has that, else all its strings. "" where
    there is none."""
    if key or isinstance(row.get("text"), str):
        value = row.get(key or "text")
        return value if isinstance(value, str) else "\n".join(_strings(value))
    return "\n".join(_strings(row))


def _items(name: str, rows: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[tuple[str, str]]:
    for number, row in rows:
        text = text_of(row)
        if not text.strip():
            raise RowError(f"{name}, row {number}: no text in this row")
        item = str(row["id"]) if "id" in row else f"{name}:{number}"
        yield item, text
        parts = [] if isinstance(row.get("text"), str) else [v for k, v in row.items() if k not in _NO_TEXT]
        if len(parts) > 1:
            for part in parts:
                if isinstance(part, str) and len(part.split()) >= PART:
                    yield item, part


def _known(name: str) -> bool:
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return name.endswith(KINDS)


def _archive(path: Path) -> Iterator[tuple[str, str]]:
    """Items of an archive's members, which are read and never unpacked to disk."""
    found = False
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as z:
            for name in sorted(z.namelist()):
                if _known(name):
                    found = True
                    yield from _items(name, _rows(z.read(name), name))
    else:
        with tarfile.open(path) as t:
            for member in t:
                if (
                    member.isfile()
                    and _known(member.name)
                    and not PurePosixPath(member.name).name.startswith(".")
                ):
                    found = True
                    yield from _items(member.name, _rows(t.extractfile(member).read(), member.name))  # type: ignore[union-attr]
    if not found:
        raise ValueError(f"decontaminate against {path}: no file of a known kind in it ({' '.join(KINDS)})")


def _rows(source: Path | bytes, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of a file, or of the bytes of one that is called `name`."""
    if isinstance(source, Path) and name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst")):
        yield from enumerate(read_jsonl(source), 1)
    elif isinstance(source, Path) and name.endswith(".parquet"):
        yield from enumerate(read_parquet(source), 1)
    else:
        yield from enumerate(_parsed(_bytes(source, name), name), 1)


def _bytes(source: Path | bytes, name: str) -> bytes:
    data = source.read_bytes() if isinstance(source, Path) else source
    if name.endswith(".zst"):
        import zstandard

        with zstandard.open(io.BytesIO(data)) as f:
            return f.read()
    return gzip.decompress(data) if name.endswith(".gz") else data


def _parsed(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    name = name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        yield from pq.read_table(io.BytesIO(data)).to_pylist()
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # older benchmarks; words of ASCII letters are the same
    if name.endswith((".csv", ".tsv")):
        yield from _table(text, "\t" if name.endswith(".tsv") else ",")
        return
    try:
        values = (
            [json.loads(line) for line in text.split("\n") if line.strip()]
            if name.endswith("l")
            else _list(text)
        )
    except ValueError as e:
        raise RowError(f"{name}: not valid JSON ({e})") from e
    for value in values:
        yield value if isinstance(value, dict) else {"text": "\n".join(_strings(value))}


def _list(text: str) -> list[Any]:
    """The rows of a JSON file: a list, an object of lists (the splits), or one row a line after all."""
    try:
        value = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list)]
        return [row for rows in lists for row in rows] if lists else [value]
    return value if isinstance(value, list) else [value]


def _table(text: str, delimiter: str) -> Iterator[dict[str, Any]]:
    """Rows of a table. A header is not told from a row: its few words match nothing."""
    for cells in csv.reader(io.StringIO(text), delimiter=delimiter):
        if any(c.strip() for c in cells):
            yield {str(i): c for i, c in enumerate(cells)}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in _NO_TEXT:
                yield from _strings(inner)
