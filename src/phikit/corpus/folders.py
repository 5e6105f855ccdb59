"""Organic documents from folders that the recipe names."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phikit.corpus.rejection import Rejection
from phikit.corpus.sources import Item, read_python, writable
from phikit.records import Document, content_id
from phikit.records.io import read_jsonl, read_parquet

FORMATS = {".html": "html", ".htm": "html", ".md": "markdown", ".txt": "plain", ".py": "python"}
TABLES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


@dataclass(frozen=True)
class Folder:
    """A folder of the recipe: its files become documents of `source`; rows hold their text under
    `text_key`."""

    path: Path
    source: str
    text_key: str = "text"


def folder_documents(folder: Folder) -> Iterator[Item]:
    """Documents of a folder's files in the order of their paths.

    A file or row that cannot be read is one rejection (`unreadable`). Raises ValueError when the folder is
    missing or holds no file of a known kind.
    """
    files = []
    if folder.path.is_dir():
        files = [p for p in sorted(folder.path.rglob("*")) if p.is_file() and _known(p)]
    if not files:
        what = "holds no readable kind of file" if folder.path.is_dir() else "is not a folder"
        kinds = " ".join([*FORMATS, *TABLES])
        raise ValueError(
            f"corpus.folders: {folder.path} {what}; put files there ({kinds}) or remove the entry"
        )
    for path in files:
        name = f"{folder.path.name}/{path.relative_to(folder.path).as_posix()}"
        name = name.encode(
            "utf-8", "backslashreplace"
        ).decode()  # a name that is not UTF-8 must not stop a run
        yield from file_documents(path, name, folder)


def file_documents(path: Path, name: str, folder: Folder) -> Iterator[Item]:
    """The documents of one file, called `name`: the file itself, or its rows. Raises ValueError where it is of no
    known kind."""
    if path.suffix in FORMATS:
        yield _file(path, name, folder.source)
    elif _known(path):
        yield from _rows(path, name, folder)
    else:
        raise ValueError(f"{path}: not a kind of file that is read here ({' '.join([*FORMATS, *TABLES])})")


def _known(path: Path) -> bool:
    return path.suffix in FORMATS or path.name.endswith(TABLES)


def _file(path: Path, name: str, source: str) -> Item:
    format = FORMATS[path.suffix]
    if format == "python":
        text, _, error = read_python(path)
    else:
        text, error = _decode(path, format)
    if error:
        return _unreadable(name, source, error)
    return Document(text, source, {"path": name, "origin": name, "format": format})


def _decode(path: Path, format: str) -> tuple[str, str]:
    """(text, "") or ("", what is wrong). HTML is decoded as browsers do; other text must be UTF-8."""
    try:
        data = path.read_bytes()
        if format == "html":
            from resiliparse.parse.encoding import bytes_to_str, detect_encoding

            return bytes_to_str(data, detect_encoding(data, html5_compatible=True) or "utf-8"), ""
        return data.decode("utf-8-sig"), ""
    except (OSError, ValueError) as e:
        return "", f"{type(e).__name__}: {e.strerror if isinstance(e, OSError) else e}"


def _rows(path: Path, name: str, folder: Folder) -> Iterator[Item]:
    """One document a row. What follows a damaged place in a file is not read: one rejection says where it
    is."""
    import zstandard

    number = 0
    try:
        for number, row in enumerate(
            read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path), 1
        ):
            text = row.get(folder.text_key)
            if isinstance(text, str) and not writable(text):
                yield _unreadable(
                    f"{name}#{number}", folder.source, f"row {number} holds half of a surrogate pair"
                )
            elif isinstance(text, str):
                origin = f"{name}#{number}"
                yield Document(text, folder.source, {"path": origin, "origin": origin, "format": "plain"})
            else:
                has = ", ".join(sorted(map(str, row))[:10])
                detail = f"row {number} has no text under text_key {folder.text_key!r} (it has {has})"
                yield _unreadable(f"{name}#{number}", folder.source, detail)
    except (OSError, ValueError, EOFError, zlib.error, zstandard.ZstdError) as e:
        yield _unreadable(
            name, folder.source, f"after row {number}: {type(e).__name__}: {e}".replace(str(path), name)
        )


def _unreadable(name: str, source: str, detail: str) -> Rejection:
    return Rejection(content_id("file", name), source, name, "unreadable", detail)
