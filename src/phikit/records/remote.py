"""Files behind fsspec URLs (s3://, gs://, hf://, https://, ...), read by byte ranges; extra `phikit[remote]`.

A local path stays a plain `Path`: fsspec is imported at the first URL, and credentials are what fsspec finds for its
protocol. A request that fails is made again; then `Unreachable` is raised, which no reader takes for a damaged file.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

BLOCK = 4 << 20  # bytes of a request while a file is read from one end to the other
TRIES, PAUSE = 3, 0.5  # of a request; seconds before the second one, doubled before the third
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_LOGIN = re.compile(r"(?<=//)[^/@]*@")
_TAGS = (
    "ETag",
    "etag",
    "Content-MD5",
    "mtime",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "updated",
    "blob_id",
    "created",
)
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub",
             "http": "aiohttp", "https": "aiohttp"}  # fmt: skip
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError)  # the next try meets them again


class Unreachable(Exception):
    """A URL that was there does not answer, or no longer holds what it held. No OSError: a file that cannot be reached
    is no damaged file, and must not be counted as one."""


@dataclass(frozen=True)
class Stat:
    """st_size: bytes, None where the server does not say. stamp: what the server tells about the version: a tag or a
    time; "" where it tells nothing."""

    st_size: int | None
    stamp: str


@dataclass(frozen=True)
class Remote:
    """A file or folder behind a URL, with what readers use of a `Path`."""

    url: str
    listed: Stat | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """The URL without log-in and query, which may hold secrets: for messages and provenance."""
        return _LOGIN.sub("", self.url.partition("?")[0] if self.url.startswith("http") else self.url)

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(str(self)).path).name or urlsplit(str(self)).netloc

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def stat(self) -> Stat:
        """Raises ValueError where there is no such file."""
        if self.listed is not None:
            return self.listed
        files, path = _files(self.url)
        try:
            return _stat(_ask(self, lambda: files.info(path)))
        except FileNotFoundError as e:
            raise ValueError(f"{self}: there is no such file") from e

    @property
    def ranges(self) -> bool:
        """Whether parts can be read. Some HTTP servers answer with the whole file."""
        return _ranges(self)

    def open(self, mode: str = "rb", buffering: int = BLOCK) -> IO[bytes]:
        """For reading; `buffering`: bytes of a request. It can seek where `ranges` holds."""
        if mode != "rb":
            raise ValueError(f"{self}: URLs are read only; write to a local folder")
        return io.BufferedReader(_Ranges(self) if self.ranges else _Stream(self), buffering)

    def read_bytes(self) -> bytes:
        files, path = _files(self.url)
        return _ask(self, lambda: files.cat_file(path), final=True)

    def read_range(self, start: int, end: int) -> bytes:
        """Bytes start to end (exclusive) of the file. Raises Unreachable, also where it is shorter."""
        files, path = _files(self.url)
        data = _ask(self, lambda: files.cat_file(path, start=start, end=end), final=True)
        if len(data) != end - start:
            raise Unreachable(
                f"{self}: bytes {start}-{end - 1} were asked for, {len(data):,} bytes came: has it changed?"
            )
        return data

    @contextlib.contextmanager
    def copy(self) -> Iterator[Path]:
        """A local copy under the same name, for readers that need a path; gone after the block."""
        with tempfile.TemporaryDirectory(prefix="phikit-") as folder:
            path = Path(folder) / self.name
            with self.open() as f, path.open("wb") as g:
                shutil.copyfileobj(f, g, BLOCK)
            yield path


Place = Path | Remote


def place(text: str | Path) -> Place:
    """A Remote for a URL, else a Path."""
    if isinstance(text, Path) or not _URL.match(text):
        return Path(text)
    if _LOGIN.search(text):
        raise ValueError(
            f"{Remote(text)}: leave the log-in out of the URL; fsspec reads it from the environment or its files"
        )
    if "::" in text:
        raise ValueError(f"{text}: chained URLs are not read; name the file itself")
    return Remote(text)


def files_under(folder: Remote) -> list[tuple[str, Remote]]:
    """(relative path, file) of all files under a URL, in the order that a local folder of them has; the URL of a file
    is that file. Raises ValueError where there is nothing, or no answer."""
    files, root = _files(folder.url)
    files.invalidate_cache()
    base = root.rstrip("/") + "/"

    def found() -> list[tuple[str, Remote]]:
        if _is_file(folder, files, root):
            return [(folder.name, Remote(folder.url, _stat(files.info(root))))]
        listed = {name.removeprefix(base): (name, info) for name, info in _walk(files, base)}
        names = sorted(listed, key=lambda n: n.split("/"))
        return [
            (name, Remote(f"{folder.url.rstrip('/')}/{name}", _stat(_full(files, *listed[name]))))
            for name in names
        ]

    try:
        if rows := _ask(folder, found):
            return rows
    except FileNotFoundError:
        pass
    except Unreachable as e:
        raise ValueError(f"{e}; check the address, and the log-in that fsspec finds for it") from e
    raise ValueError(f"{folder}: there is no file under this URL")


def _walk(files: Any, base: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, what the listing says) of the files below; `find` of fsspec would leave out a folder that did not
    answer."""
    todo, seen = [base], set()
    while todo:
        folder = todo.pop()
        for info in files.ls(folder.rstrip("/"), detail=True):
            name = info["name"]
            if not name.startswith(base) or name in seen:
                continue
            seen.add(name)
            if info["type"] == "directory":
                todo.append(name)
            else:
                yield name, info


def _is_file(remote: Remote, files: Any, path: str) -> bool:
    if remote.url.startswith("http"):  # where a folder is a page like any other
        return bool(PurePosixPath(urlsplit(remote.url).path).suffix) and not remote.url.endswith("/")
    return not remote.url.endswith("/") and files.isfile(path)


def _full(files: Any, name: str, info: dict[str, Any]) -> dict[str, Any]:
    """Listings of some protocols hold names alone."""
    return info if info.get("size") is not None else files.info(name)


def _stat(info: dict[str, Any]) -> Stat:
    if info.get("type") == "directory":
        raise FileNotFoundError(info.get("name"))
    return Stat(info.get("size"), next((str(info[k]) for k in _TAGS if info.get(k)), ""))


@functools.lru_cache(maxsize=64)
def _files(url: str) -> tuple[Any, str]:
    """(file system, path in it)."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as e:
        raise ValueError(f"{Remote(url)}: URLs are read by fsspec: pip install 'phikit[remote]'") from e
    try:
        return url_to_fs(url)
    except ImportError as e:
        protocol = url.partition(":")[0]
        package = _PACKAGES.get(protocol, f"what fsspec needs for {protocol}://")
        raise ValueError(
            f"{Remote(url)}: fsspec needs another package for it ({e}): pip install {package}"
        ) from e
    except ValueError as e:
        raise ValueError(f"{Remote(url)}: fsspec knows no such protocol ({e})") from e


def _ask(remote: Remote, request: Any, *, final: bool = False) -> Any:
    """What `request` returns, tried again. `final`: also what trying again cannot mend is Unreachable."""
    for number in range(TRIES):
        try:
            return request()
        except _LASTING as e:
            if final or not isinstance(e, FileNotFoundError):
                raise Unreachable(f"{remote}: {_said(remote, e)}") from None
            raise
        except Exception as e:  # each protocol has its own errors
            if number + 1 == TRIES:
                raise Unreachable(f"{remote}: no answer in {TRIES} tries ({_said(remote, e)})") from None
            time.sleep(PAUSE * 2**number)
    raise AssertionError


def _said(remote: Remote, e: Exception) -> str:
    """What was raised, without the secrets that a URL may hold."""
    text = f"{type(e).__name__}: {e}"
    login = _LOGIN.search(remote.url)
    for secret in (remote.url.partition("?")[2], login[0] if login else ""):
        text = text.replace(secret, "...") if secret else text
    return text


@functools.lru_cache(maxsize=4096)
def _ranges(remote: Remote) -> bool:
    if not remote.url.startswith("http"):
        return True
    size = remote.stat().st_size
    if not size or size < 3:
        return False
    files, path = _files(remote.url)
    return len(_ask(remote, lambda: files.cat_file(path, start=1, end=2), final=True)) == 1


class _Ranges(io.RawIOBase):
    """Each read is one request; a buffer above it makes them large."""

    def __init__(self, remote: Remote) -> None:
        size = remote.stat().st_size
        if size is None:
            raise Unreachable(f"{remote}: its server does not say how long it is")
        self.remote, self.size, self.at = remote, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(offset + (0, self.at, self.size)[whence], 0)
        return self.at

    def readinto(self, buffer: Any) -> int:
        n = min(len(buffer), self.size - self.at)
        if n <= 0:
            return 0
        buffer[:n] = self.remote.read_range(self.at, self.at + n)
        self.at += n
        return n


class _Stream(io.RawIOBase):
    """From the beginning to the end, for servers without ranges."""

    def __init__(self, remote: Remote) -> None:
        files, path = _files(remote.url)
        self.remote, self.at = remote, 0
        self.inner = _ask(remote, lambda: files.open(path, "rb", block_size=0), final=True)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.inner.read(len(buffer))
        except Exception as e:  # what was read is gone: the whole file has to be read again
            raise Unreachable(f"{self.remote}: it broke off ({_said(self.remote, e)})") from None
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def tell(self) -> int:
        return self.at

    def close(self) -> None:
        if not self.closed:
            self.inner.close()
        super().close()
