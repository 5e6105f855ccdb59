"""The routes of the server, and the server itself: uvicorn on one socket, workers that end with it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from phikit.serve import completions, creating, models, ollama, openai, page, pivots, pulling, responses
from phikit.serve.front import Front
from phikit.serve.http import json_response
from phikit.serve.metrics import TYPE, Metrics
from phikit.serve.pool import Pool
from phikit.serve.settings import Settings
from phikit.serve.state import State, state
from phikit.store.store import Store


async def health(request: Request) -> Response:
    return json_response({"status": "ok"})


async def metrics(request: Request) -> Response:
    s = state(request)
    s.metrics.counters["phikit_crashes_total", ()] = s.pool.crashes
    gauges: dict[Any, float] = {
        ("phikit_under_way", ()): s.pool.under_way, ("phikit_models_loaded", ()): len(s.pool.loaded),
    }  # fmt: skip
    for model in s.pool.loaded.values():
        gauges["phikit_model_bytes", (("model", str(model.entry.name)),)] = model.size
    return Response(s.metrics.text(gauges), media_type=TYPE)


def routes() -> list[Route]:
    post, get = ["POST"], ["GET"]
    return [
        Route("/", page.root, methods=get),
        Route("/web/{name:path}", page.file, methods=get),
        Route("/pivots", pivots.pivots, methods=get),
        Route("/pivots/page", pivots.page, methods=get),
        Route("/api/version", models.version, methods=get),
        Route("/api/tags", models.tags, methods=get),
        Route("/api/ps", models.ps, methods=get),
        Route("/api/show", models.show, methods=post),
        Route("/api/copy", models.copy, methods=post),
        Route("/api/delete", models.delete, methods=["DELETE"]),
        Route("/api/create", creating.create, methods=post),
        Route("/api/pull", pulling.pull, methods=post),
        Route("/api/push", models.push, methods=post),
        Route("/api/blobs/{digest}", models.has_blob, methods=["HEAD"]),
        Route("/api/blobs/{digest}", models.put_blob, methods=post),
        Route("/api/generate", ollama.generate, methods=post),
        Route("/api/chat", ollama.chat, methods=post),
        Route("/api/embed", ollama.embed, methods=post),
        Route("/api/embeddings", ollama.embeddings, methods=post),
        Route("/v1/chat/completions", openai.chat, methods=post),
        Route("/v1/completions", completions.completions, methods=post),
        Route("/v1/responses", responses.responses, methods=post),
        Route("/v1/embeddings", openai.embeddings, methods=post),
        Route("/v1/models", openai.models, methods=get),
        Route("/v1/models/{name:path}", openai.model, methods=get),
        Route("/v1/score", completions.score, methods=post),
        Route("/health", health, methods=get),
        Route("/metrics", metrics, methods=get),
        Route("/{path:path}", models.unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]


def create_app(store: Store, settings: Settings, log: TextIO | None = None) -> Front:
    """The ASGI app. Its `state.pool` must be closed when it is done with."""
    return Front(
        Router(routes(), redirect_slashes=False),
        State(store, settings, Pool(store, settings), Metrics()),
        log,
    )


class Serving:
    """A server on its own event loop: `run` blocks until a signal or `stop`."""

    def __init__(self, store: Store, settings: Settings, log: TextIO | None = None) -> None:
        import uvicorn

        from phikit.serve.protocol import BoundedProtocol

        self.app, self.settings = create_app(store, settings, log), settings
        self.config = uvicorn.Config(
            self.app, host=settings.host, port=settings.port, http=BoundedProtocol.bounded(settings.header_time),
            ws="none", lifespan="off", log_level="warning", access_log=False, timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.shutdown_time), backlog=1024, server_header=False,
            date_header=True, h11_max_incomplete_event_size=1 << 16, proxy_headers=False,
        )  # fmt: skip
        self.server = uvicorn.Server(self.config)

    def run(self, ready: Any = None) -> None:
        """Serves; `ready(port)` is called when the socket listens. Raises OSError where the port is taken."""
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._run(ready))

    async def _run(self, ready: Any) -> None:
        sock = self._socket()
        try:
            task = asyncio.create_task(self.server.serve(sockets=[sock]))
            while not self.server.started and not task.done():
                await asyncio.sleep(0.01)
            if ready is not None and self.server.started:
                ready(sock.getsockname()[1])
            await task
        finally:
            await self.app.state.pool.close()
            sock.close()

    def _socket(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((self.settings.host, self.settings.port))
        except OSError as e:
            sock.close()
            raise OSError(
                f"cannot listen on {self.settings.host}:{self.settings.port}: {e.strerror}; another server (Ollama?) "
                "may be there: choose another port with --port"
            ) from e
        return sock

    def stop(self) -> None:
        """From any thread: no new requests, those under way get `shutdown_time` to end."""
        self.server.should_exit = True


def serve(store: Store, settings: Settings, say: Any = None) -> None:
    """Runs a server until SIGINT or SIGTERM. Raises OSError where the port is taken."""
    # asyncio warns of each write to a client that has just gone.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    log = settings.log.open("a", encoding="utf-8") if settings.log else sys.stderr
    serving = Serving(store, settings, log)
    try:
        with suppress(KeyboardInterrupt):
            serving.run(say)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if settings.log:
            log.close()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one (not on Windows): a streamed token costs a third less CPU time."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
