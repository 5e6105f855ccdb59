"""WARC files: the HTML pages of their responses."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import IO

from phikit.corpus.html_tree import decode
from phikit.corpus.packed import MAX_ENTRY, bounded
from phikit.records.remote import Place

MAX_HEADER = 1 << 16


def pages(path: Place) -> Iterator[tuple[str, str, str]]:
    """(address, HTML, "") of each page, or (address, "", what is wrong with that record). Records that are no
    answer with HTML are passed over. Raises ValueError where the file itself ends early or is no WARC."""
    with path.open("rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"  # type: ignore[attr-defined]  # both kinds of place are buffered
        with _unpacked(raw) if packed else raw as f:
            number = 0
            try:
                while (head := _header(f, number)) is not None:
                    number += 1
                    yield from _record(f, head, number)
            except (EOFError, zlib.error, gzip.BadGzipFile) as e:
                raise ValueError(f"after record {number}: the file is cut short or damaged ({e})") from e


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]  # it has all of IO[bytes] that is used here


def _header(f: IO[bytes], number: int) -> dict[str, str] | None:
    line = f.readline(MAX_HEADER)
    while line in (b"\r\n", b"\n"):
        line = f.readline(MAX_HEADER)
    if not line:
        return None
    if not line.startswith(b"WARC/"):
        raise ValueError(f"after record {number}: no WARC record starts here ({line[:20]!r})")
    return _fields(f)


def _fields(f: IO[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(1000):
        line = f.readline(MAX_HEADER)
        if line in (b"\r\n", b"\n", b""):
            break
        name, _, value = line.decode("utf-8", "replace").partition(":")
        found[name.strip().lower()] = value.strip()
    return found


def _record(f: IO[bytes], head: dict[str, str], number: int) -> Iterator[tuple[str, str, str]]:
    address = head.get("warc-target-uri", "").strip("<>") or f"record {number}"
    length = head.get("content-length", "")
    if not length.isdecimal():
        raise ValueError(f"record {number} has no Content-Length")
    size = int(length)
    if size > MAX_ENTRY:
        _skip(f, size)
        if head.get("warc-type") == "response":
            yield address, "", f"a record of more than {MAX_ENTRY >> 20} MB"
        return
    data = f.read(size)
    if len(data) < size:
        raise EOFError(f"{size - len(data):,} bytes are missing")
    if head.get("warc-type") != "response" or not head.get("content-type", "").startswith("application/http"):
        return
    try:
        if (page := _answer(data)) is not None:
            yield address, page, ""
    except (ValueError, zlib.error, EOFError, OSError) as e:
        yield address, "", f"{type(e).__name__}: {e}"


def _answer(data: bytes) -> str | None:
    """The body of an HTTP answer with HTML, its transfer and content codings undone."""
    f = io.BytesIO(data)
    status = f.readline(MAX_HEADER).split()
    fields = _fields(f)
    kind = fields.get("content-type", "text/html").lower()
    if status[1:2] != [b"200"] or "html" not in kind:
        return None
    charset = re.search(r"charset=[\"']?([\w.:-]+)", kind)
    return decode(_uncoded(f.read(), fields), charset[1] if charset else "")


def _uncoded(body: bytes, fields: dict[str, str]) -> bytes:
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _chunks(body)
    coding = fields.get("content-encoding", "").lower()
    if coding in ("gzip", "x-gzip") and body[:2] == b"\x1f\x8b":
        return bounded(_unpacked(io.BytesIO(body)), "the page")
    if coding in ("", "identity", "gzip", "x-gzip"):
        return body
    if coding == "deflate":
        unpacker = zlib.decompressobj(-15 if body[:1] != b"\x78" else 15)
        page = unpacker.decompress(body, MAX_ENTRY)
        if unpacker.unconsumed_tail:
            raise ValueError(f"the page unpacks to more than {MAX_ENTRY >> 20} MB")
        return page
    raise ValueError(f"content coding {coding!r} is not read")


def _chunks(body: bytes) -> bytes:
    """Crawlers often store the body already joined: then it stays."""
    out, f = [], io.BytesIO(body)
    while line := f.readline(100):
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            return body
        if not size:
            break
        out.append(f.read(size))
        f.readline(10)
    return b"".join(out)


def _skip(f: IO[bytes], size: int) -> None:
    while size:
        got = len(f.read(min(size, 1 << 20)))
        if not got:
            raise EOFError("a record is cut short")
        size -= got
