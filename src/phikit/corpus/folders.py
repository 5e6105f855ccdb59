"""Organic documents from folders that the recipe names."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.corpus import forum, latex, mail, notebook, packed, pdf, warc
from phikit.corpus.code import LANGUAGES
from phikit.corpus.html_tree import decode
from phikit.corpus.rejection import Rejection
from phikit.corpus.rows import Part, rows
from phikit.corpus.sources import Item, read_python, writable
from phikit.records import Document, content_id
from phikit.records.remote import BLOCK, Place, Remote, files_under

FORMATS = {".html": "html", ".htm": "html", ".xhtml": "html", ".md": "markdown", ".markdown": "markdown",
           ".txt": "plain", ".rst": "plain", ".tex": "latex", **LANGUAGES}  # fmt: skip
TABLES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
ROWS = (*TABLES, ".json", ".csv", ".tsv")
GZIPPED = (".txt.gz", ".html.gz", ".md.gz", ".tex.gz")
OTHERS = (".epub", ".docx", ".pdf", ".ipynb", ".mbox", ".eml", ".warc", ".warc.gz", *forum.NAMES)
MAX_FILE = packed.MAX_ENTRY  # bytes of a file that is one document
KINDS = (*FORMATS, *GZIPPED, *ROWS, *OTHERS)


# Read from a URL as they come; others are copied here first.
STREAMED = (*ROWS, ".mbox", ".eml", ".warc", ".warc.gz", *forum.NAMES)


@dataclass(frozen=True)
class Folder:
    """A folder (or one file) of the recipe, here or behind a URL: its files become documents of `source`; rows hold
    their text under `text_key`."""

    path: Place
    source: str
    text_key: str = "text"


@dataclass(frozen=True)
class File:
    """`name`: what its documents are called by: the folder's name and the path in it, or the URL."""

    name: str
    place: Place


def folder_documents(folder: Folder) -> Iterator[Item]:
    """Documents of a folder's files, LaTeX first, in the order of their paths; a LaTeX file that another one inputs is
    part of that one.

    A file or row that cannot be read is one rejection (`unreadable`). Raises ValueError when the folder is
    missing or holds no file of a known kind, Unreachable where a URL stops answering.
    """
    files = files_of(folder)
    yield from latex_documents([f for f in files if is_latex(f)], folder)
    for file in files:
        if not is_latex(file):
            yield from file_documents(file.place, file.name, folder)


def latex_documents(files: Sequence[File], folder: Folder) -> Iterator[Item]:
    """Documents of the folder's LaTeX files, those that others input aside. From a URL they are copied here first."""
    if not isinstance(folder.path, Remote):
        inputs = latex_inputs([f.place for f in files if f.place.suffix == ".tex"], folder.path)  # type: ignore[misc]
        for file in files:
            if file.place.resolve() not in inputs:  # type: ignore[union-attr]
                yield from file_documents(file.place, file.name, folder)
        return
    with tempfile.TemporaryDirectory(prefix="phikit-") as name:
        copies = []
        for file in files:
            path = Path(name) / file.name.removeprefix(f"{str(folder.path).rstrip('/')}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            with file.place.open("rb") as f, path.open("wb") as g:
                shutil.copyfileobj(f, g, BLOCK)
            copies.append(File(file.name, path))
        yield from latex_documents(copies, Folder(Path(name), folder.source, folder.text_key))


def is_latex(file: File) -> bool:
    return file.place.name.endswith((".tex", ".tex.gz"))


def files_of(folder: Folder) -> list[File]:
    """Its files of known kinds, in the order of their paths. Raises ValueError where there is none."""
    path = folder.path
    if isinstance(path, Remote):
        base = str(path).rstrip("/")
        found = [(n, p) for n, p in files_under(path) if _known(p)]
        alone = len(found) == 1 and found[0][1].url == path.url
        files = [File(base if alone else f"{base}/{name}", place) for name, place in found]
    else:
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        files = [File(_name(p, path), p) for p in found if p.is_file() and _known(p)]
    if not files:
        here = isinstance(path, Remote) or path.exists()
        what = "holds no readable kind of file" if here else "is not a folder"
        kinds = " ".join(KINDS)
        raise ValueError(f"corpus.folders: {path} {what}; put files there ({kinds}) or remove the entry")
    return files


def _name(path: Path, folder: Path) -> str:
    name = "/".join((folder.name, *path.relative_to(folder).parts))
    return name.encode("utf-8", "backslashreplace").decode()  # a name that is not UTF-8 must not stop a run


def file_documents(place: Place, name: str, folder: Folder, part: Part | None = None) -> Iterator[Item]:
    """The documents of one file, called `name`: the file itself, or its rows (of `part` alone, as `rows.rows`). Raises
    ValueError where it is of no known kind."""
    if place.name.endswith(ROWS):
        yield from _rows(place, name, folder, part)
    elif not _known(place):
        raise ValueError(f"{place}: not a kind of file that is read here ({' '.join(KINDS)})")
    elif isinstance(place, Remote) and not place.name.endswith(STREAMED):
        if (place.stat().st_size or 0) > packed.MAX_WHOLE:
            yield _unreadable(name, folder.source, _too_large())
            return
        with place.copy() as path:
            yield from file_documents(path, name, Folder(path.parent, folder.source, folder.text_key))
    elif place.name.endswith(OTHERS):
        yield from _others(place, name, folder.source)
    else:
        yield _file(place, name, folder)  # type: ignore[arg-type]  # what is not streamed is here


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


def _known(path: Place) -> bool:
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
            text, missing = latex.project(text, _reader(path, folder.path, set()))  # type: ignore[arg-type]
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


def _others(path: Any, name: str, source: str) -> Iterator[Item]:
    """Documents of a file that holds several: a book's chapters, a mailbox, a web archive; and Word documents."""
    meta: Mapping[str, str] = {"origin": name, "path": name}
    try:
        if path.suffix == ".docx":
            yield Document(packed.docx_text(path), source, {**meta, "format": "markdown"})
        elif path.suffix == ".pdf":
            if path.stat().st_size > MAX_FILE:
                raise ValueError(_too_large())
            yield _written(pdf.pdf_text(path), source, {**meta, "format": "plain"})
        elif path.suffix == ".ipynb":
            if path.stat().st_size > MAX_FILE:
                raise ValueError(_too_large())
            text = notebook.notebook_text(path.read_bytes())
            yield _written(text, source, {**meta, "format": "markdown"})
        elif path.name.endswith(forum.NAMES):
            for number, text, licence, error in forum.threads(path):
                part = f"{name}#{number}"
                good = {**meta, "path": part, "origin": part, "format": "markdown"}
                good |= {"licence": licence} if licence else {}
                yield _unreadable(part, source, error) if error else _written(text, source, good)
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


def _rows(path: Place, name: str, folder: Folder, part: Part | None) -> Iterator[Item]:
    """One document a row. What follows a place where a packed file is damaged is not read: one rejection says where it
    is."""
    import zstandard

    number = ""
    try:
        for number, row in rows(path, part, folder.text_key):
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
        where = f"after row {number or 0}: {type(e).__name__}: {e}".replace(str(path), name)
        yield _unreadable(name, folder.source, where)


def _unreadable(name: str, source: str, detail: str) -> Rejection:
    return Rejection(content_id("file", name), source, name, "unreadable", detail)
