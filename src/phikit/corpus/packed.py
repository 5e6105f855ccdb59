"""Documents in a zip (ePub, DOCX), and bounded reading of packed bytes.

Nothing is unpacked to disk, no entry is read past `MAX_ENTRY` bytes whatever its header promises, and XML with a
document type is refused, so no entity is ever expanded.
"""

from __future__ import annotations

import posixpath
import re
import xml.etree.ElementTree as ET
import zipfile
import zlib
from pathlib import Path
from typing import IO
from urllib.parse import unquote
from xml.parsers import expat

from phikit.corpus.html_text import markdown_table
from phikit.corpus.mathml import join, symbols

MAX_ENTRY, MAX_WHOLE, MAX_ENTRIES = 64 << 20, 256 << 20, 20_000
# Of a damaged entry, one that is encrypted (RuntimeError) or packed in a way that zipfile cannot read (its subclass).
ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError)
_SELF_CLOSED = re.compile(
    r"<((?!br\b|hr\b|img\b|meta\b|link\b|input\b|col\b|wbr\b)[a-zA-Z][\w:-]*)((?:\s[^<>]*)?)/>"
)
_DECLARATION = re.compile(r"^\ufeff?\s*<\?xml[^>]*\?>")


def bounded(stream: IO[bytes], name: str, limit: int = MAX_ENTRY) -> bytes:
    """All of a stream. Raises ValueError where it is longer than `limit` bytes."""
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{name} unpacks to more than {limit >> 20} MB")
    return data


def epub_chapters(path: Path) -> list[tuple[str, str]]:
    """(name, XHTML) of an ePub's chapters in reading order. Raises ValueError saying what is wrong."""
    book = _Zip(path)
    container = xml(book.read("META-INF/container.xml"))
    rootfile = next((e.get("full-path") for e in container.iter() if _local(e) == "rootfile"), None)
    if not rootfile:
        raise ValueError("META-INF/container.xml names no rootfile")
    package = xml(book.read(rootfile))
    items = {e.get("id"): e for e in package.iter() if _local(e) == "item"}
    chapters = []
    for ref in (e for e in package.iter() if _local(e) == "itemref"):
        item = items.get(ref.get("idref"))
        if (
            item is None
            or "html" not in item.get("media-type", "")
            or "nav" in item.get("properties", "").split()
        ):
            continue
        name = posixpath.normpath(posixpath.join(posixpath.dirname(rootfile), unquote(item.get("href", ""))))
        page = _DECLARATION.sub("", book.read(name).decode("utf-8"))
        chapters.append((name, _SELF_CLOSED.sub(r"<\1\2></\1>", page)))
    if not chapters:
        raise ValueError("no chapter is in its reading order")
    return chapters


def docx_text(path: Path) -> str:
    """A Word document's text as Markdown: headings, lists, tables, formulas as TeX. Raises ValueError saying what is
    wrong."""
    body = xml(_Zip(path).read("word/document.xml"))
    main = next((e for e in body.iter() if _local(e) == "body"), body)
    return "\n\n".join(t for e in main if (t := _block(e)))


class _Zip:
    """Reads entries, bounded one by one and together."""

    def __init__(self, path: Path) -> None:
        self.left = MAX_WHOLE
        try:
            with zipfile.ZipFile(path) as z:
                self.path, self.names = path, z.namelist()
        except ERRORS as e:
            raise ValueError(f"not a readable zip ({e})") from e
        if len(self.names) > MAX_ENTRIES:
            raise ValueError(f"{len(self.names):,} entries, more than {MAX_ENTRIES:,}")

    def read(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as z, z.open(name) as f:
                data = bounded(f, name, min(MAX_ENTRY, self.left))
        except KeyError:
            raise ValueError(f"{name} is missing") from None
        except ERRORS as e:
            raise ValueError(f"{name} cannot be unpacked ({e})") from e
        self.left -= len(data)
        return data


def xml(data: bytes) -> ET.Element:
    """The tree of an XML entry. Raises ValueError where it is not well-formed, has a document type, or is nested
    more than 500 deep."""
    builder, depth = ET.TreeBuilder(), 0
    parser = expat.ParserCreate(namespace_separator="}")

    def start(tag: str, attrs: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > 500:
            raise ValueError("XML nested more than 500 deep")
        builder.start(tag, {k.rpartition("}")[2]: v for k, v in attrs.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise ValueError("XML with a document type is not read (it could expand entities)")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as e:
        raise ValueError(f"not well-formed XML ({e})") from e
    return builder.close()


def _local(e: ET.Element) -> str:
    return e.tag.rpartition("}")[2]


def _children(e: ET.Element, name: str) -> list[ET.Element]:
    return [c for c in e if _local(c) == name]


def _block(e: ET.Element) -> str:
    if _local(e) == "p":
        return _paragraph(e)
    if _local(e) == "tbl":
        rows = [
            [" ".join(filter(None, map(_block, cell))) for cell in _children(row, "tc")]
            for row in _children(e, "tr")
        ]
        return markdown_table(rows)
    return "\n\n".join(t for c in e if (t := _block(c))) if _local(e) in ("sdt", "sdtContent") else ""


def _paragraph(p: ET.Element) -> str:
    style = next((e.get("val", "") for e in p.iter() if _local(e) == "pStyle"), "")
    listed = any(_local(e) == "numPr" for e in p.iter())
    text = _runs(p).strip()
    if not text:
        return ""
    if m := re.fullmatch(r"[Hh]eading ?([1-6])|(Title)", style):
        return "#" * int(m[1] or 1) + " " + text
    return "- " + text if listed else text


def _runs(e: ET.Element) -> str:
    out = []
    for c in e:
        name = _local(c)
        if name == "oMathPara":
            out.append("".join(f"$${_math(m)}$$" for m in _children(c, "oMath")))
        elif name == "oMath":
            out.append(f"${_math(c)}$")
        elif name == "t":
            out.append(c.text or "")
        elif name in ("tab", "br", "cr"):
            out.append("\t" if name == "tab" else "\n")
        elif name not in ("del", "pPr", "rPr", "instrText", "moveFrom", "Fallback"):
            out.append(_runs(c))
    return "".join(out)


def _math(e: ET.Element) -> str:
    """Office's mathematics as TeX."""
    name = _local(e)
    part = {_local(c): c for c in e}

    def tex(key: str) -> str:
        return _math(part[key]).strip() if key in part else ""

    def base(key: str = "e") -> str:
        inner = tex(key)
        return inner if len(inner) == 1 else f"{{{inner}}}"

    def value(key: str, default: str) -> str:
        return next((x.get("val", default) for x in e.iter() if _local(x) == key), default)

    if name == "t":
        return symbols(e.text or "")
    if name == "f":
        return f"\\frac{{{tex('num')}}}{{{tex('den')}}}"
    if name in ("sSup", "sSub", "sSubSup"):
        low = f"_{{{tex('sub')}}}" if "sub" in part else ""
        return base() + low + (f"^{{{tex('sup')}}}" if "sup" in part else "")
    if name == "rad":
        degree = tex("deg")
        return f"\\sqrt{f'[{degree}]' if degree else ''}{{{tex('e')}}}"
    if name == "nary":
        sign = symbols(value("chr", "∫")).strip()
        # Each part once: a formula nested in limits would take time exponential in its depth.
        limits = "".join(f"{mark}{{{t}}}" for mark, k in (("_", "sub"), ("^", "sup")) if (t := tex(k)))
        return f"{sign}{limits} {tex('e')}"
    if name == "d":
        inner = ", ".join(_math(c).strip() for c in _children(e, "e"))
        left, right = symbols(value("begChr", "(")), symbols(value("endChr", ")"))
        return f"\\left{left.strip() or '.'}{inner}\\right{right.strip() or '.'}"
    if name == "m":
        rows = [" & ".join(_math(c).strip() for c in _children(r, "e")) for r in _children(e, "mr")]
        return "\\begin{matrix}" + " \\\\ ".join(rows) + "\\end{matrix}"
    return join([_math(c) for c in e if not _local(c).endswith("Pr")])
