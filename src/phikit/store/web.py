"""HTTP for pulls: bounded, resumable, and never led astray.

A server that is asked for a model may answer with a redirect. It is followed by hand: only https after https, a few
times, and to another host only where that host's address is public, so that nobody far away makes this machine ask
its own network. Bodies are read as they are sent: nothing is unpacked.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from phikit.store.blobs import CHUNK, Blobs

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
MAX_DOCUMENT = 1 << 24  # bytes of a manifest or a listing
TIMEOUT = 30.0  # seconds without a byte
_RETRIES = 5
Progress = Callable[[int], None]


class PullError(ValueError):
    """A download that cannot be; the message names the address and what is wrong."""


class NotThere(PullError):
    """404 or 401 of the first address: there is no such model, or it is not public."""


class Web:
    """A client for one pull. `insecure` allows http and, as first address, any host."""

    def __init__(self, *, insecure: bool = False, headers: dict[str, str] | None = None) -> None:
        import httpx

        self.insecure, self.headers = insecure, headers or {}
        self.client = httpx.Client(
            follow_redirects=False, timeout=TIMEOUT, headers={"accept-encoding": "identity"}
        )

    def close(self) -> None:
        self.client.close()

    def document(self, url: str, accept: str = "application/json") -> bytes:
        """A small body. Raises PullError."""
        with self.open(url, {"accept": accept}) as response:
            data = b""
            for part in response.iter_raw(CHUNK):
                data += part
                if len(data) > MAX_DOCUMENT:
                    raise PullError(f"{url}: the answer is larger than {MAX_DOCUMENT} bytes")
            return data

    def file(self, url: str, blobs: Blobs, digest: str, size: int, progress: Progress) -> None:
        """A blob of a known digest and size, continued where an earlier try ended. Raises PullError, WrongDigest,
        DiskFull."""
        if blobs.path(digest).is_file():
            progress(size)
            return
        with blobs.exclusive(digest):
            if blobs.path(digest).is_file():  # another download of it has just ended
                progress(size)
                return
            partial = blobs.partial(digest)
            have = partial.stat().st_size if partial.exists() else 0
            if have > size:
                partial.unlink()
                have = 0
            blobs.check_room(size - have)
            progress(have)
            for attempt in range(_RETRIES):
                if have == size:
                    break
                have = self._part(url, partial, have, size, progress, last=attempt == _RETRIES - 1)
            blobs.finish(digest)

    def _part(self, url: str, partial: Path, have: int, size: int, progress: Progress, *, last: bool) -> int:
        """Goes on with the file; returns how many bytes it has. A connection that breaks is an error in the last try
        only."""
        import httpx

        headers = {"range": f"bytes={have}-"} if have else {}
        try:
            with self.open(url, headers) as response, partial.open("r+b" if partial.exists() else "wb") as f:
                begin = _start(response, have, url)
                f.seek(begin)
                f.truncate()
                if begin != have:
                    progress(begin - have)
                have = begin
                for (
                    part
                ) in response.iter_raw():  # as it comes: what is here is kept when the connection breaks
                    have += len(part)
                    if have > size:
                        raise PullError(f"{url}: more than the {size} bytes that were announced")
                    f.write(part)
                    progress(len(part))
        except (httpx.TransportError, httpx.StreamError) as e:
            if last:
                raise PullError(
                    f"{url}: {type(e).__name__} {e}; what came is kept: pull again to go on"
                ) from e
        else:
            if have < size and last:
                raise PullError(f"{url}: {have} of {size} bytes came; pull again to go on")
        return partial.stat().st_size

    @contextmanager
    def open(self, url: str, headers: dict[str, str] | None = None) -> Iterator[httpx.Response]:
        """A 200 or 206 answer, after redirects. Raises PullError."""
        import httpx

        first = url
        for _ in range(MAX_REDIRECTS + 1):
            self._check(url, first)
            own = {**(self.headers if _host(url) == _host(first) else {}), **(headers or {})}
            try:
                with self.client.stream("GET", url, headers=own) as response:
                    self._check_peer(response, url, first)
                    if response.status_code in (301, 302, 303, 307, 308):
                        url = urljoin(url, response.headers.get("location", ""))
                        continue
                    if response.status_code not in (200, 206):
                        kind = NotThere if response.status_code in (401, 403, 404) else PullError
                        raise kind(f"{url}: HTTP {response.status_code}")
                    if response.headers.get("content-encoding", "identity") != "identity":
                        raise PullError(f"{url}: a compressed answer, which was not asked for")
                    yield response
                    return
            except (httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol) as e:
                raise PullError(f"{url}: {e}") from e
        raise PullError(f"{first}: more than {MAX_REDIRECTS} redirects")

    def _check(self, url: str, first: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise PullError(f"{url[:200]}: only https addresses are followed")
        if parts.scheme == "http" and (not self.insecure or urlsplit(first).scheme == "https"):
            raise PullError(f"{url[:200]}: http is not encrypted; allow it with --insecure (insecure: true)")
        if url != first and _host(url) != _host(first):
            for address in _addresses(parts.hostname):
                _public(address, url)

    def _check_peer(self, response: httpx.Response, url: str, first: str) -> None:
        """The name may have meant another address a moment ago: what counts is where the answer came from."""
        if _host(url) == _host(first) or _proxied():
            return
        stream = response.extensions.get("network_stream")
        if stream is not None and (peer := stream.get_extra_info("server_addr")):
            _public(peer[0], url)


def _start(response: httpx.Response, have: int, url: str) -> int:
    """The offset at which an answer's body begins."""
    if response.status_code == 200:
        return 0
    m = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    if not m or int(m[1]) != have:
        raise PullError(f"{url}: the server continues at another place than asked for")
    return have


def _host(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url)
    return (parts.hostname or "").lower(), parts.port


def _addresses(host: str) -> list[str]:
    if _proxied():  # names are the proxy's to look up
        try:
            return [str(ip_address(host))]
        except ValueError:
            return []
    try:
        return [str(row[4][0]) for row in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError as e:
        raise PullError(f"{host}: {e}") from e


def _proxied() -> bool:
    return any(os.environ.get(n) for n in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))


def _public(address: str, url: str) -> None:
    if not ip_address(address.partition("%")[0]).is_global:
        raise PullError(
            f"{url[:200]}: a redirect to {address}, which is not a public address, is not followed"
        )
