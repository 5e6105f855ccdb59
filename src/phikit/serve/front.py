"""Before and behind every route: who may ask, what went wrong, what is logged.

A page in a browser can make its user's browser ask a server on the user's own machine. Two checks stop it: a
loopback server answers only to loopback names in `Host` (DNS rebinding, CVE-2024-28224), and a request with an
`Origin` must come from this server, a loopback page or an origin that was allowed.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import sys
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, TextIO
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phikit.serve.http import JSON, ClientGone
from phikit.serve.refusal import Refusal
from phikit.serve.state import State
from phikit.serve.wire import dump, now

_LOG = logging.getLogger("phikit.serve")
_ALLOWED_HEADERS = "authorization, content-type, accept, user-agent, x-requested-with"
# Paths that tell nothing of a user's models and need no key.
_OPEN = {"/", "/api/version", "/health"}


class Front:
    """The ASGI app in front of the router."""

    def __init__(self, inner: ASGIApp, state: State, log: TextIO | None = None) -> None:
        self.inner, self.state, self.log = inner, state, log if log is not None else sys.stderr

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        begin, sent = time.monotonic(), {"status": 0, "bytes": 0}
        notes: dict[str, Any] = {}
        number = secrets.token_hex(8)
        scope["state"] = {**scope.get("state", {}), "server": self.state, "notes": notes}
        headers = Headers(scope=scope)
        cors = self._cors(headers)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                more = [(b"x-request-id", number.encode()), (b"x-content-type-options", b"nosniff"), *cors]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            elif message["type"] == "http.response.body":
                sent["bytes"] += len(message.get("body", b""))
            await send(message)

        gone = False
        try:
            refused = self._refused(scope, headers)
            if refused is not None:
                raise refused
            if scope["method"] == "OPTIONS":
                await Response(status_code=204)(scope, receive, counted)
            else:
                await self.inner(scope, receive, counted)
        except ClientGone:
            gone = True
        except Refusal as e:
            await self._answer(scope, receive, counted, e, bool(sent["status"]))
        except Exception as e:
            _LOG.exception("request %s: %s %s", number, scope["method"], scope["path"])
            oops = Refusal(500, f"internal error ({type(e).__name__}); request {number} in the server's log")
            await self._answer(scope, receive, counted, oops, bool(sent["status"]))
        finally:
            seconds = time.monotonic() - begin
            self._record(scope, headers, number, 499 if gone and not sent["status"] else sent["status"], sent["bytes"],
                         seconds, gone, notes)  # fmt: skip

    def _refused(self, scope: Scope, headers: Headers) -> Refusal | None:
        settings = self.state.settings
        if settings.is_loopback and not is_local(host_of(headers.get("host", ""))):
            return Refusal(403, "this server answers to localhost only; the Host header names another")
        if "origin" in headers and not self.may_come_from(headers):
            return Refusal(
                403, "requests from this origin are not allowed; start the server with --origin to allow it"
            )
        if settings.api_key and scope["path"] not in _OPEN and scope["method"] != "OPTIONS":
            kind, _, key = headers.get("authorization", "").partition(" ")
            given = key.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
            if not hmac.compare_digest(given.encode(), settings.api_key.encode()):
                return Refusal(
                    401,
                    "unauthorized: send the server's key as Authorization: Bearer",
                    code="invalid_api_key",
                )
        return None

    def may_come_from(self, headers: Headers) -> bool:
        origin = headers["origin"]
        if origin in self.state.settings.origins or "*" in self.state.settings.origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False
        return is_local(parts.hostname or "") or parts.netloc == headers.get("host")

    def _cors(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        if "origin" not in headers or not self.may_come_from(headers):
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", headers["origin"].encode("latin-1")), (b"vary", b"Origin"),
            (b"access-control-allow-methods", b"GET, POST, DELETE, HEAD, OPTIONS"),
            (b"access-control-allow-headers", _ALLOWED_HEADERS.encode()), (b"access-control-max-age", b"600"),
        ]  # fmt: skip

    async def _answer(self, scope: Scope, receive: Receive, send: Send, e: Refusal, late: bool) -> None:
        if late:  # the answer has begun: all that is left is to cut it
            raise ConnectionError(e.message)
        body = dump(error_body(scope["path"], e))
        more = {"retry-after": "1"} if e.status == 503 else {}
        if e.status in (408, 413, 415):
            more["connection"] = "close"  # the rest of the body is not read
        await Response(body, e.status, more, media_type=JSON)(scope, receive, send)

    def _record(
        self, scope: Scope, headers: Headers, number: str, status: int, size: int, seconds: float, gone: bool,
        notes: Mapping[str, Any],
    ) -> None:  # fmt: skip
        route = getattr(scope.get("route"), "path", None) or "other"
        metrics = self.state.metrics
        metrics.add("phikit_requests_total", route=route, status=str(status))
        metrics.observe("phikit_request_seconds", seconds, route=route)
        line = {
            "time": now(), "id": number, "client": (scope.get("client") or ("-",))[0], "method": scope["method"],
            "path": scope["path"][:200], "status": status, "bytes": size, "ms": round(1e3 * seconds, 1), **notes,
        }  # fmt: skip
        if gone:
            line["gone"] = True
        if agent := headers.get("user-agent"):
            line["agent"] = agent[:80]
        print(json.dumps(line, ensure_ascii=True), file=self.log, flush=True)


def error_body(path: str, e: Refusal) -> dict[str, Any]:
    """OpenAI's form under /v1, Ollama's elsewhere."""
    return e.openai() if path.startswith("/v1/") else {"error": e.message}


def host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


def is_local(name: str) -> bool:
    """Whether a name can only mean this machine."""
    name = name.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
