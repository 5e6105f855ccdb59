"""Ollama's inference routes: /api/generate, /api/chat, /api/embed, /api/embeddings (facts section 8.3)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from phikit.serve import tools as tool_forms
from phikit.serve import wire
from phikit.serve.answer import Event, Spelled, Task, room, task, token_row, with_start
from phikit.serve.asking import (
    Dialog,
    dialog_task,
    form_of,
    keep_alive,
    leased,
    messages_of,
    no_thinking,
    note_ignored,
    told,
    wanted_format,
)
from phikit.serve.embedding import embed as embed_texts
from phikit.serve.http import NDJSON, Streamed, json_response, primed, read, while_connected
from phikit.serve.pool import Lease
from phikit.serve.refusal import Refusal, bad
from phikit.serve.sampling import sampling, top_logprobs
from phikit.serve.state import state


async def generate(request: Request) -> Any:
    q = await read(request, wire.Generate)
    alive, top = keep_alive(q.keep_alive), top_logprobs(q.logprobs, q.top_logprobs)
    if q.raw and (q.template or q.system or q.context):
        raise bad("raw mode does not support template, system, or context", "raw")
    if q.images:
        raise bad("this server has no model that sees images: send text only", "images")
    if not q.prompt and not q.context and not q.suffix:
        return await _only_load(request, q.model, alive, {"response": ""}, q.options)
    no_thinking(q.model, q.think)
    schema = wanted_format(q.format)

    async def prepared(lease: Lease) -> Task:
        s = sampling(lease.model.parts.parameters, q.options or {})
        if q.suffix:
            form = await form_of(lease, q.template)
            if not form.knows_suffix:
                raise bad(f"{q.model} does not support insert", "suffix")
            ids = await with_start(lease, await form.pieces([{"role": "user", "content": q.prompt or ""}],
                                                            Prompt=q.prompt or "", Suffix=q.suffix))  # fmt: skip
        elif q.raw:
            ids = await with_start(lease, [(q.prompt or "", True)])
        else:
            d = Dialog(
                [{"role": "user", "content": q.prompt or ""}], [], schema=schema, truncate=bool(q.truncate),
                system=q.system, template=q.template,
            )  # fmt: skip
            t = await dialog_task(request, lease, d, s, top=top)
            if not q.context:
                return t
            ids = [*q.context, *t.request.prompt]
        if q.truncate and len(ids) >= room(lease, s):
            ids = ids[len(ids) - room(lease, s) + 1 :]  # asked for: the end is kept
        note_ignored(request, s)
        return task(lease, ids, s, schema=schema, top=top)

    def shown(event: Event) -> dict[str, Any]:
        return {"response": event.text}

    def last(t: Task) -> dict[str, Any]:
        return {} if q.raw else {"context": [*t.request.prompt, *t.counts.ids]}

    return await _answer(request, q.model, alive, q.options, prepared, shown, last, q.stream)


async def chat(request: Request) -> Any:
    q = await read(request, wire.Chat)
    alive, top = keep_alive(q.keep_alive), top_logprobs(q.logprobs, q.top_logprobs)
    if not q.messages:
        return await _only_load(
            request, q.model, alive, {"message": {"role": "assistant", "content": ""}}, q.options
        )
    no_thinking(q.model, q.think)
    d = Dialog(
        messages_of(q.messages), tool_forms.check([{"type": t.type, "function": t.function} for t in q.tools or []]),
        schema=wanted_format(q.format), truncate=bool(q.truncate),
    )  # fmt: skip

    async def prepared(lease: Lease) -> Task:
        return await dialog_task(
            request, lease, d, sampling(lease.model.parts.parameters, q.options or {}), top=top
        )

    def shown(event: Event) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": event.text}
        if event.calls:
            message["tool_calls"] = [
                {"function": {"name": c.name, "arguments": c.arguments}} for c in event.calls
            ]
        return {"message": message}

    return await _answer(request, q.model, alive, q.options, prepared, shown, lambda t: {}, q.stream)


async def embed(request: Request) -> Response:
    q = await read(request, wire.Embed)
    texts = [q.input] if isinstance(q.input, str) else list(q.input or [])
    begin = time.monotonic_ns()

    async def work() -> dict[str, Any]:
        async with leased(request, q.model, keep_alive(q.keep_alive), q.options or {}) as lease:
            s = sampling(lease.model.parts.parameters, q.options or {})
            vectors, count = await embed_texts(
                lease, texts, limit=room(lease, s), truncate=q.truncate is not False, dimensions=q.dimensions
            )
            return {
                "model": q.model, "embeddings": vectors, "total_duration": time.monotonic_ns() - begin,
                "load_duration": lease.load_ns, "prompt_eval_count": count,
            }  # fmt: skip

    return json_response(await while_connected(request.receive, work()))


async def embeddings(request: Request) -> Response:
    q = await read(request, wire.Embeddings)

    async def work() -> list[float]:
        async with leased(request, q.model, keep_alive(q.keep_alive), q.options or {}) as lease:
            if not q.prompt:
                return []
            vectors, _ = await embed_texts(lease, [q.prompt], limit=lease.worker.context, truncate=True)
            return vectors[0]

    return json_response({"embedding": await while_connected(request.receive, work())})


async def _only_load(
    request: Request, model: str, alive: float | None, empty: dict[str, Any], options: dict[str, Any] | None
) -> Response:
    """A request without a prompt loads the model, or with keep_alive 0 unloads it."""
    pool = state(request).pool
    reason = "unload" if alive == 0 else "load"
    if alive == 0:
        await pool.unload(model)
    else:

        async def load() -> None:
            async with leased(request, model, alive, options or {}):
                pass

        await while_connected(request.receive, load())
    return json_response({
        "model": model, "created_at": wire.now(), **empty, "done": True, "done_reason": reason,
    })  # fmt: skip


async def _answer(
    request: Request, model: str, alive: float | None, options: dict[str, Any] | None, prepared: Any, shown: Any,
    last: Any, stream: bool | None,
) -> Any:  # fmt: skip
    """Streams NDJSON, or gathers one object where `stream` is false."""
    begin = time.monotonic_ns()

    async def objects() -> AsyncIterator[dict[str, Any] | None]:
        async with leased(request, model, alive, options or {}) as lease:
            t = await prepared(lease)
            yield None  # all is checked: what fails from here on is a line of the stream
            async for event in told(request, t):
                row = {"model": model, "created_at": wire.now(), **shown(event)}
                if event.tokens:
                    row["logprobs"] = [_logprob(x) for x in event.tokens]
                if event.finish is None or event.calls or event.text or event.tokens:
                    yield row | {"done": False}
                if event.finish is not None:
                    empty = shown(Event(0))
                    yield {"model": model, "created_at": wire.now(), **empty, "done": True,
                           "done_reason": "length" if event.finish == "length" else "stop", **last(t),
                           **_times(t, begin)}  # fmt: skip

    rows = objects()
    await primed(request.receive, rows)
    if stream is not False:
        return Streamed(_lines(rows), NDJSON)
    return json_response(await while_connected(request.receive, _whole(rows)))


async def _lines(rows: AsyncIterator[dict[str, Any] | None]) -> AsyncIterator[bytes]:
    try:
        async for row in rows:
            yield wire.dump(row) + b"\n"
    except Refusal as e:
        yield wire.dump({"error": e.message}) + b"\n"
    finally:
        await rows.aclose()  # type: ignore[attr-defined]


async def _whole(rows: AsyncIterator[dict[str, Any] | None]) -> dict[str, Any]:
    """One object of all the rows."""
    texts: list[str] = []
    calls: list[Any] = []
    logprobs: list[Any] = []
    row: dict[str, Any] = {}
    try:
        async for found in rows:
            assert found is not None
            row = found
            texts.append(row["response"] if "response" in row else row["message"]["content"])
            calls += row.get("message", {}).get("tool_calls", [])
            logprobs += row.get("logprobs", [])
    finally:
        await rows.aclose()  # type: ignore[attr-defined]
    if "response" in row:
        row["response"] = "".join(texts)
    else:
        row["message"] = {"role": "assistant", "content": "".join(texts)} | (
            {"tool_calls": calls} if calls else {}
        )
    return row | ({"logprobs": logprobs} if logprobs else {})


def _times(t: Task, begin: int) -> dict[str, int]:
    counts = t.counts
    return {
        "total_duration": time.monotonic_ns() - begin, "load_duration": t.lease.load_ns,
        "prompt_eval_count": counts.prompt, "prompt_eval_duration": counts.prompt_ns,
        "eval_count": counts.generated, "eval_duration": counts.answer_ns,
    }  # fmt: skip


def _logprob(token: Spelled) -> dict[str, Any]:
    row = token_row(token.data, token.logprob)
    if token.top:
        row["top_logprobs"] = [token_row(*alternative) for alternative in token.top]
    return row
