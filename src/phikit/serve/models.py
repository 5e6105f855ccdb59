"""Ollama's routes about models: version, tags, ps, show, copy, delete, blobs (facts section 8.5)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from phikit.serve import catalog, wire
from phikit.serve.durations import FOREVER
from phikit.serve.http import json_response, pieces, read
from phikit.serve.refusal import Refusal, bad
from phikit.serve.state import OLLAMA_VERSION, phikit_version, state
from phikit.store.blobs import CHUNK
from phikit.store.names import BadName, parse

_UPLOAD_IDLE = 30.0  # seconds without a byte after which an upload is given up


async def version(request: Request) -> Response:
    return json_response({"version": OLLAMA_VERSION, "phikit": phikit_version()})


async def tags(request: Request) -> Response:
    store = state(request).store
    rows = await asyncio.to_thread(lambda: [catalog.row(store, e) for e in store.entries()])
    return json_response({"models": rows})


async def ps(request: Request) -> Response:
    now, clock = datetime.now(UTC), time.monotonic()
    rows = []
    for model in state(request).pool.loaded.values():
        left = FOREVER if model.keep_alive == FOREVER else (
            model.keep_alive if model.users else model.expires - clock
        )  # fmt: skip
        # Ollama writes a far date for a model that stays.
        expires = datetime(2318, 1, 1, tzinfo=UTC) if left > 1e9 else now + timedelta(seconds=max(left, 0))
        name = str(model.entry.name)
        rows.append({
            "name": name, "model": name, "size": model.size, "digest": model.entry.digest,
            "details": catalog.details(model.facts), "expires_at": wire.moment(expires), "size_vram": 0,
            "context_length": model.worker.context,
        })  # fmt: skip
    return json_response({"models": rows})


async def show(request: Request) -> Response:
    q = await read(request, wire.Named)
    entry = state(request).pool.entry(q.wanted)
    try:
        found = await asyncio.to_thread(catalog.show, state(request).store, entry, bool(q.verbose))
    except (ValueError, OSError) as e:
        raise Refusal(500, str(e)) from e
    return json_response(found)


async def copy(request: Request) -> Response:
    q = await read(request, wire.Copy)
    pool = state(request).pool
    source = pool.entry(q.source)
    try:
        target = parse(q.destination)
    except BadName as e:
        raise bad(str(e), "destination") from e
    await asyncio.to_thread(_refusing, lambda: pool.store.copy(str(source.name), target))
    return Response(status_code=200)


async def delete(request: Request) -> Response:
    q = await read(request, wire.Named)
    pool = state(request).pool
    entry = pool.entry(q.wanted)
    await asyncio.to_thread(_refusing, lambda: pool.store.remove(str(entry.name)))
    if not any(e.digest == entry.digest for e in pool.store.entries()):
        await pool.forget(entry)
    return Response(status_code=200)


async def has_blob(request: Request) -> Response:
    path = _blob(request)
    if not path.is_file():
        return Response(status_code=404)
    return Response(status_code=200, headers={"content-length": "0"})


async def put_blob(request: Request) -> Response:
    """The raw body under its digest: 201, 200 where it was there, 400 where the body is another."""
    path, settings = _blob(request), state(request).settings
    digest = f"sha256:{path.name.removeprefix('sha256-')}"
    blobs = state(request).store.blobs
    if path.is_file():
        return Response(status_code=200)
    told = request.headers.get("content-length", "")
    await asyncio.to_thread(_refusing, lambda: blobs.check_room(int(told) if told.isdigit() else 0))
    parts = pieces(request, settings.max_upload, _UPLOAD_IDLE, idle=True)
    await _store(blobs, parts, digest)
    return Response(status_code=201)


async def unknown(request: Request) -> Response:
    raise Refusal(404, f"{request.method} {request.url.path[:100]} is not a route of this server")


async def push(request: Request) -> Response:
    q = await read(request, wire.Named)
    state(request).pool.entry(q.wanted)
    raise Refusal(501, "push is not offered: this server uploads nothing")


async def _store(blobs: Any, parts: AsyncIterator[bytes], digest: str) -> None:
    """Writes a body to the disk from a thread, a few pieces ahead of it."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(8)
    loop = asyncio.get_running_loop()
    cut = False

    def chunks() -> Any:
        while (part := asyncio.run_coroutine_threadsafe(queue.get(), loop).result()) is not None:
            yield part
        if cut:
            raise ConnectionError("the upload was cut")

    writing = asyncio.create_task(asyncio.to_thread(_refusing, lambda: blobs.put(chunks(), digest)))
    try:
        async for part in parts:
            for at in range(0, len(part), CHUNK):
                put = asyncio.create_task(queue.put(part[at : at + CHUNK]))
                await asyncio.wait((put, writing), return_when=asyncio.FIRST_COMPLETED)
                if writing.done():
                    put.cancel()
                    await writing
    except BaseException:
        cut = True
        raise
    finally:
        if not writing.done():
            await queue.put(None)
        if cut:
            await asyncio.wait((writing,))
            writing.exception()
    await writing


def _blob(request: Request) -> Path:
    try:
        return state(request).store.blobs.path(request.path_params["digest"])
    except BadName as e:
        raise bad(str(e), "digest") from e


def _refusing(call: Any) -> Any:
    """ValueErrors of the store as refusals."""
    try:
        return call()
    except ValueError as e:
        raise bad(str(e)) from e
