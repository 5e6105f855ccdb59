"""Organic documents from folders that the recipe names."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from phikit.corpus import latex, mail, packed, pdf, warc
from phikit.corpus.html_tree import decode
from phikit.corpus.rejection import Rejection
from phikit.corpus.rows import rows
from phikit.corpus.sources import Item, read_python, writable
from phikit.records import Document, content_id

FORMATS = {".html": "html", ".htm": "html", ".xhtml": "html", ".md": "markdown", ".markdown": "markdown",
           ".txt": "plain", ".py": "python", ".tex": "latex"}  # fmt: skip
TABLES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
ROWS = (*TABLES, ".json", ".csv", ".tsv")
GZIPPED = (".txt.gz", ".html.gz", ".md.gz", ".tex.gz")
OTHERS = (".epub", ".docx", ".pdf", ".mbox", ".eml", ".warc", ".warc.gz")
MAX_FILE = packed.MAX_ENTRY  # bytes of a file that is one document
KINDS = (*FORMATS, *GZIPPED, *ROWS, *OTHERS)


@dataclass(frozen=True)
class Folder:
    """A folder of the recipe: its files become documents of `source`; rows hold their text under
    `text_key`."""

    path: Path
    source: str
    text_key: str = "text"


def folder_documents(folder: Folder) -> Iterator[Item]:
    """Documents of a folder's files in the order of their paths; a LaTeX file that another one inputs is part of
    that one.

    A file or row that cannot be read is one rejection (`unreadable`). Raises ValueError when the folder is
    missing or holds no file of a known kind.
    """
    yield from _each(_files(folder), folder)


def file_groups(folder: Folder, size: int) -> tuple[Iterator[Item], list[list[tuple[Path, str]]]]:
    """The folder's files for readers that work at the same time: (documents of those that need others, which is LaTeX;
    the rest as groups of (path, name) with about `size` bytes). Raises ValueError as `folder_documents`."""
    files = _files(folder)
    latex = [p for p in files if _latex(p)]
    groups: list[list[tuple[Path, str]]] = []
    room = 0
    for path in files:
        if _latex(path):
            continue
        if room <= 0:
            groups.append([])
            room = size
        groups[-1].append((path, _name(path, folder)))
        room -= path.stat().st_size
    return _each(latex, folder), groups


def _latex(path: Path) -> bool:
    return path.name.endswith((".tex", ".tex.gz"))


def _files(folder: Folder) -> list[Path]:
    files = []
    if folder.path.is_dir():
        files = [p for p in sorted(folder.path.rglob("*")) if p.is_file() and _known(p)]
    if not files:
        what = "holds no readable kind of file" if folder.path.is_dir() else "is not a folder"
        kinds = " ".join(KINDS)
        raise ValueError(
            f"corpus.folders: {folder.path} {what}; put files there ({kinds}) or remove the entry"
        )
    return files


def _each(files: list[Path], folder: Folder) -> Iterator[Item]:
    inputs = latex_inputs([p for p in files if p.suffix == ".tex"], folder.path)
    for path in files:
        if path.resolve() not in inputs:
            yield from file_documents(path, _name(path, folder), folder)


def _name(path: Path, folder: Folder) -> str:
    name = f"{folder.path.name}/{path.relative_to(folder.path).as_posix()}"
    return name.encode("utf-8", "backslashreplace").decode()  # a name that is not UTF-8 must not stop a run


def file_documents(path: Path, name: str, folder: Folder) -> Iterator[Item]:
    """The documents of one file, called `name`: the file itself, or its rows. Raises ValueError where it is of no
    known kind."""
    if path.name.endswith(ROWS):
        yield from _rows(path, name, folder)
    elif path.name.endswith(OTHERS):
        yield from _others(path, name, folder.source)
    elif _known(path):
        yield _file(path, name, folder)
    else:
        raise ValueError(f"{path}: not a kind of file that is read here ({' '.join(KINDS)})")


def latex_inputs(files: list[Path], root: Path) -> set[Path]:
    """Those of the LaTeX files that others of them input."""
    reached: set[Path] = set()
    for path in files:
        text, error = _decode(path, "latex")
        if not error and "\\documentclass" in text:
            try:
                latex.project(text, _reader(path, root, reached))
            except ValueError:
                continue  # the file's own turn says what is wrong
    return reached


def _reader(main: Path, root: Path, reached: set[Path]) -> Callable[[str], str | None]:
    """What reads an `\\input` of `main`; files outside `root` are not read."""
    inside = root.resolve()

    def read(name: str) -> str | None:
        for base in (main.parent, root):
            for path in (base / f"{name}.tex", base / name):
                path = path.resolve()
                if path.is_relative_to(inside) and path.is_file():
                    text, error = _decode(path, "latex")
                    if not error:
                        reached.add(path)
                        return text
        return None

    return read


def _known(path: Path) -> bool:
    return path.suffix in FORMATS or path.name.endswith(KINDS)


def _file(path: Path, name: str, folder: Folder) -> Item:
    stem = path.name.removesuffix(".gz")
    format = FORMATS[Path(stem).suffix]
    meta: dict[str, object] = {"path": name, "origin": name, "format": format}
    if format == "python":
        large = path.stat().st_size > MAX_FILE
        text, _, error = ("", None, _too_large()) if large else read_python(path)
    else:
        text, error = _decode(path, format)
    if not error and format == "latex":
        try:
            text, missing = latex.project(text, _reader(path, folder.path, set()))
        except ValueError as e:
            error = str(e)
        else:
            meta |= {"missing": missing[:20]} if missing else {}
    if error:
        return _unreadable(name, folder.source, error)
    return Document(text, folder.source, meta)


def _too_large() -> str:
    return f"larger than {MAX_FILE >> 20} MB, which is more than one document can be"


def _decode(path: Path, format: str) -> tuple[str, str]:
    """(text, "") or ("", what is wrong). HTML is decoded as browsers do; other text must be UTF-8 (LaTeX: or
    Latin-1, which it was written in for long)."""
    try:
        if path.stat().st_size > MAX_FILE:
            return "", _too_large()
        data = path.read_bytes()
        if path.suffix == ".gz":
            with gzip.open(path) as f:
                data = packed.bounded(f, "the file")  # type: ignore[arg-type]
        if format == "html":
            return decode(data), ""
        if format == "latex":
            try:
                return data.decode("utf-8-sig"), ""
            except UnicodeDecodeError:
                return data.decode("latin-1"), ""
        return data.decode("utf-8-sig"), ""
    except (OSError, ValueError, EOFError, zlib.error) as e:
        return "", f"{type(e).__name__}: {(isinstance(e, OSError) and e.strerror) or e}"


def _others(path: Path, name: str, source: str) -> Iterator[Item]:
    """Documents of a file that holds several: a book's chapters, a mailbox, a web archive; and Word documents."""
    meta: Mapping[str, str] = {"origin": name, "path": name}
    try:
        if path.suffix == ".docx":
            yield Document(packed.docx_text(path), source, {**meta, "format": "markdown"})
        elif path.suffix == ".pdf":
            if path.stat().st_size > MAX_FILE:
                raise ValueError(_too_large())
            yield _written(pdf.pdf_text(path), source, {**meta, "format": "plain"})
        elif path.suffix == ".epub":
            for chapter, page in packed.epub_chapters(path):
                yield Document(page, source, {**meta, "path": f"{name}#{chapter}", "format": "html"})
        elif path.suffix in (".mbox", ".eml"):
            for number, text, error in mail.messages(path):
                part = f"{name}#{number}"
                good = {**meta, "path": part, "origin": part, "format": "plain"}
                yield _unreadable(part, source, error) if error else _written(text, source, good)
        else:
            for address, page, error in warc.pages(path):
                part = f"{name}#{address}"
                good = {**meta, "path": part, "origin": part, "format": "html"}
                yield _unreadable(part, source, error) if error else Document(page, source, good)
    except (OSError, ValueError, EOFError, zlib.error) as e:
        yield _unreadable(name, source, f"{type(e).__name__}: {e}".replace(str(path), name))


def _written(text: str, source: str, meta: Mapping[str, str]) -> Item:
    if writable(text):
        return Document(text, source, meta)
    return _unreadable(meta["path"], source, "it holds half of a surrogate pair")


def _rows(path: Path, name: str, folder: Folder) -> Iterator[Item]:
    """One document a row. What follows a damaged place in a file is not read: one rejection says where it
    is."""
    import zstandard

    number = 0
    try:
        for number, row in rows(path):
            origin = f"{name}#{number}"
            if isinstance(row, str):
                yield _unreadable(origin, folder.source, row)
                continue
            text = row.get(folder.text_key)
            if isinstance(text, str):
                meta = {"path": origin, "origin": origin, "format": "plain"}
                yield _written(text, folder.source, meta)
            else:
                has = ", ".join(sorted(map(str, row))[:10])
                detail = f"row {number} has no text under text_key {folder.text_key!r} (it has {has})"
                yield _unreadable(origin, folder.source, detail)
    except (OSError, ValueError, EOFError, zlib.error, zstandard.ZstdError) as e:
        yield _unreadable(
            name, folder.source, f"after row {number}: {type(e).__name__}: {e}".replace(str(path), name)
        )


def _unreadable(name: str, source: str, detail: str) -> Rejection:
    return Rejection(content_id("file", name), source, name, "unreadable", detail)
