"""An OpenAI-compatible /v1/embeddings on loopback: bags of word beginnings, hashed; and its moods."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WIDTH = 512


def bag(text: str) -> list[float]:
    row = [0.0] * WIDTH
    for word in re.findall(r"\w{3,}", text.lower()):
        row[zlib.crc32(word[:5].encode()) % WIDTH] += 1
    return row


class Server(ThreadingHTTPServer):
    """busy: how many of the next requests are answered with 429. reply: what becomes of the data of a good one."""

    daemon_threads = True
    busy, asked = 0, 0
    reply = staticmethod(lambda data: data)


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...

    def do_POST(self) -> None:
        server: Server = self.server  # type: ignore[assignment]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked += 1
        status, value = 200, {}
        if server.busy:
            server.busy -= 1
            status, value = 429, {"error": "busy"}
        else:
            data = [{"index": i, "embedding": bag(t)} for i, t in enumerate(body["input"])]
            value = {"model": body["model"], "data": server.reply(data)}
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def embeddings() -> Iterator[tuple[Server, str]]:
    """(server, its spec for `open_embedder`)."""
    with Server(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server, f"http://127.0.0.1:{server.server_address[1]}/v1#bags"
        finally:
            server.shutdown()
