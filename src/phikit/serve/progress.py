"""Progress of a long task in a thread as NDJSON lines: pull and create."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request

from phikit.serve import wire
from phikit.serve.http import NDJSON, Streamed, json_response, while_connected
from phikit.serve.refusal import Refusal
from phikit.store.pull import Say


class Stopped(Exception):
    """Raised in the thread of a task whose client has gone."""


async def answer(request: Request, work: Callable[[Say], None], stream: bool | None) -> Any:
    """Runs `work(say)` in a thread. Each `say({...})` is a line; without `stream` the last one is the answer. A
    ValueError or OSError of it is an error line, or a status 400 or 500."""
    rows = _rows(work)
    if stream is not False:
        return Streamed(_lines(rows), NDJSON)

    async def last() -> dict[str, Any]:
        found: dict[str, Any] = {}
        async for row in rows:
            found = row
        return found

    try:
        return json_response(await while_connected(request.receive, last()))
    except OSError as e:
        raise Refusal(500, str(e)) from e
    except ValueError as e:
        raise Refusal(400, str(e)) from e


async def _lines(rows: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    try:
        async for row in rows:
            yield wire.dump(row) + b"\n"
    except (ValueError, OSError, Refusal) as e:
        yield wire.dump({"error": str(e)}) + b"\n"
    finally:
        await rows.aclose()  # type: ignore[attr-defined]


async def _rows(work: Callable[[Say], None]) -> AsyncIterator[dict[str, Any]]:
    loop, stop = asyncio.get_running_loop(), threading.Event()
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def say(row: dict[str, Any]) -> None:
        if stop.is_set():
            raise Stopped
        loop.call_soon_threadsafe(queue.put_nowait, row)

    def run() -> None:
        try:
            work(say)
        except Stopped:
            pass
        finally:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    task = asyncio.create_task(asyncio.to_thread(run))
    try:
        while (row := await queue.get()) is not None:
            yield row
        await task
    finally:
        stop.set()
        if not task.done():
            task.add_done_callback(lambda t: t.cancelled() or t.exception())
