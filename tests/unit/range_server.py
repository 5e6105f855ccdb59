"""A folder over HTTP on loopback, as a store gives it: listings, lengths, tags, byte ranges; and its moods."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Store(ThreadingHTTPServer):
    """ranges: whether it honours Range. fail: how many of the next reads of bytes are answered with 503. delay: seconds
    that each takes; most: how many were under way at once."""

    daemon_threads = True
    ranges, fail, asked, delay, now, most = True, 0, 0, 0.0, 0, 0

    def handle_error(self, request, client_address) -> None: ...  # clients hang up on streams


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        store: Store = self.server  # type: ignore[assignment]
        if not path.is_file():
            super().do_GET()
            return
        store.asked += 1
        if store.fail > 0:
            store.fail -= 1
            self.send_error(503)
            return
        if store.delay:
            store.now += 1
            store.most = max(store.most, store.now)
            time.sleep(store.delay)
            store.now -= 1
        data, wanted = path.read_bytes(), self.headers.get("Range")
        if not wanted or not store.ranges:
            super().do_GET()
            return
        a, b = wanted.removeprefix("bytes=").split("-")
        part = data[int(a) : int(b) + 1 if b else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {a}-{int(a) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[Store, str]]:
    """(server, its URL without a slash at the end)."""
    with Store(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as store:
        threading.Thread(target=store.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield store, f"http://127.0.0.1:{store.server_address[1]}"
        finally:
            store.shutdown()
