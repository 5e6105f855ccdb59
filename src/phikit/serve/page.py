"""The web page at `/` and its files, for browsers; anything else is told what Ollama's clients ask: it is running."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from phikit.serve.refusal import Refusal

FOLDER = Path(__file__).parent / "web"
_NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)?\.(html|css|js|svg|woff2|txt)")
_TYPES = {
    "html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml", "woff2": "font/woff2", "txt": "text/plain; charset=utf-8",
}  # fmt: skip
# Only the page's own files and this server: a model's text can load nothing and send nothing anywhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def root(request: Request) -> Response:
    if "text/html" in request.headers.get("accept", "") and (FOLDER / "index.html").is_file():
        return _file("index.html")
    return PlainTextResponse("Ollama is running")


async def file(request: Request) -> Response:
    return _file(request.path_params["name"])


def _file(name: str) -> Response:
    path = FOLDER / name
    if not (m := _NAME.fullmatch(name)) or not path.is_file():
        raise Refusal(404, "no such file")
    headers = {
        "content-security-policy": POLICY, "referrer-policy": "no-referrer", "cache-control": "no-cache",
        "cross-origin-opener-policy": "same-origin",
    }  # fmt: skip
    return Response(path.read_bytes(), headers=headers, media_type=_TYPES[m[2]])
