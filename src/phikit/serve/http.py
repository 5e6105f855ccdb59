"""Between Starlette and the routes: bodies in bounded size and time, answers that stop when their client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from phikit.serve.refusal import Refusal
from phikit.serve.settings import Settings
from phikit.serve.state import note, state
from phikit.serve.wire import decode, dump

T = TypeVar("T")
_PATIENCE, _DISCARDED = 2.0, 1 << 25  # seconds and bytes that a refused body is read on for
STALLED = 60.0  # seconds after which a client that reads nothing is given up
NDJSON, EVENTS, JSON = "application/x-ndjson", "text/event-stream", "application/json; charset=utf-8"


class ClientGone(Exception):
    """The client closed its connection before the answer."""


async def body(request: Request, settings: Settings) -> bytes:
    """The whole body. Raises a Refusal: too large (413), too slow (408), compressed (415: a small body could unpack
    to a very large one)."""
    parts = [part async for part in pieces(request, settings.max_body, settings.body_time)]
    return b"".join(parts)


async def pieces(request: Request, most: int, seconds: float, *, idle: bool = False) -> AsyncIterator[bytes]:
    """The body as it comes, at most `most` bytes, within `seconds` (`idle`: between two pieces)."""
    stream = request.stream()
    if request.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        await _discard(stream)
        raise Refusal(415, "compressed request bodies are not accepted")
    told = request.headers.get("content-length", "0")
    if not told.isdigit() or int(told) > most:
        await _discard(stream)
        raise Refusal(413, f"the body has {told[:30]} bytes; {most} are the most")
    loop, total = asyncio.get_running_loop(), 0
    deadline = loop.time() + seconds
    while True:
        try:
            async with asyncio.timeout_at(loop.time() + seconds if idle else deadline):
                part = await anext(stream, None)
        except TimeoutError as e:
            raise Refusal(408, f"the body did not come within {seconds:g} seconds") from e
        except ClientDisconnect as e:
            raise ClientGone from e
        if part is None:
            return
        total += len(part)
        if total > most:
            raise Refusal(413, f"the body has more than {most} bytes")
        if part:
            yield part


async def _discard(stream: AsyncIterator[bytes]) -> None:
    """Reads on for a moment: a client whose body is not taken at all would see a reset in place of the answer."""
    total = 0
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_PATIENCE):
            async for part in stream:
                total += len(part)
                if total > _DISCARDED:
                    return


async def read(request: Request, kind: type[T]) -> T:
    """The body as a struct; the model it names is noted for the log. Raises a Refusal."""
    found = decode(await body(request, state(request).settings), kind)
    note(request, model=getattr(found, "model", None))
    return found


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dump(value), status, headers, media_type=JSON)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes. Raises ClientGone then."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for t in (task, gone):
            if not t.done():
                t.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await t


class Streamed:
    """An ASGI response of chunks as they come. The generator is closed when the client goes."""

    def __init__(
        self, chunks: AsyncIterator[bytes], media: str, headers: dict[str, str] | None = None
    ) -> None:
        self.chunks = chunks
        self.headers = [(b"content-type", media.encode()), (b"cache-control", b"no-store")]
        self.headers += [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send(send))
        finally:
            await self.chunks.aclose()  # type: ignore[attr-defined]

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        with _Watch(STALLED) as watch:
            async for chunk in self.chunks:
                watch.since = watch.loop.time()
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                watch.since = None
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Watch:
    """Raises ClientGone out of its block when the current task has been in one send for `seconds`, or up to half as
    long again. It looks now and then: a timer for each chunk would cost more than the chunk."""

    def __init__(self, seconds: float) -> None:
        self.loop, self.seconds = asyncio.get_running_loop(), seconds
        self.since: float | None = None  # when the send under way began
        self.over = False

    def __enter__(self) -> _Watch:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.timer = self.loop.call_later(self.seconds / 2, self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.timer.cancel()
        if self.over and kind is asyncio.CancelledError and self.task.uncancel() == 0:
            raise ClientGone

    def _look(self) -> None:
        if self.since is not None and self.loop.time() - self.since >= self.seconds:
            self.over = True
            self.task.cancel()
        else:
            self.timer = self.loop.call_later(self.seconds / 2, self._look)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def primed(receive: Receive, chunks: AsyncIterator[Any]) -> Any:
    """Runs a generator up to its first yield, which is returned: by then all is checked and the model is loaded, and
    what goes wrong before it is an HTTP status. The generator is closed where it fails."""
    try:
        return await while_connected(receive, _next(chunks))
    except BaseException:
        await chunks.aclose()  # type: ignore[attr-defined]
        raise


async def _next(chunks: AsyncIterator[Any]) -> Any:
    awaitable: Awaitable[Any] = anext(chunks)
    return await awaitable
