"""OpenAI's chat completions, embeddings and models (facts section 8.6)."""

from __future__ import annotations

import base64
import json
import secrets
import struct
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from phikit.serve import openai_wire, wire
from phikit.serve import tools as tool_forms
from phikit.serve.answer import JSON_OBJECT, Event, Spelled, Task, token_row
from phikit.serve.asking import Dialog, dialog_task, keep_alive, leased, messages_of, told
from phikit.serve.embedding import embed
from phikit.serve.http import EVENTS, Streamed, json_response, primed, read, while_connected
from phikit.serve.refusal import Refusal, bad
from phikit.serve.sampling import OPENAI_DEFAULTS, sampling, top_logprobs
from phikit.serve.state import state
from phikit.serve.tools import Call, Choice

DONE = b"data: [DONE]\n\n"


async def chat(request: Request) -> Any:
    q = await read(request, openai_wire.ChatCompletion)
    options, top = q.options(), top_logprobs(q.logprobs, q.top_logprobs)
    n = 1 if q.n is None else q.n
    if not q.messages:
        raise bad("messages must hold at least one message", "messages")
    choice, only = tool_choice(q.tool_choice)
    d = Dialog(
        messages_of(q.messages),
        tool_forms.check(q.tools or []),
        choice,
        only,
        response_format(q.response_format),
    )
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": q.model,
            "system_fingerprint": "fp_phikit"}  # fmt: skip
    alive = keep_alive(q.keep_alive)

    async def events() -> AsyncIterator[Event | Task]:
        async with leased(request, q.model, alive, options) as lease:
            s = sampling(lease.model.parts.parameters, options, OPENAI_DEFAULTS)
            t = await dialog_task(request, lease, d, s, top=top, n=n)
            yield t
            async for event in told(request, t):
                yield event

    found = events()
    t = await primed(request.receive, found)
    if q.stream:
        usage = q.stream_options is not None and bool(q.stream_options.include_usage)
        return Streamed(_chunks(t, found, {**head, "object": "chat.completion.chunk"}, usage, n), EVENTS)
    return json_response(
        await while_connected(request.receive, _whole(t, found, {**head, "object": "chat.completion"}, n))
    )


async def embeddings(request: Request) -> Response:
    q = await read(request, openai_wire.Embeddings)
    if q.encoding_format not in (None, "float", "base64"):
        raise bad("encoding_format must be float or base64", "encoding_format")
    given = openai_wire.texts_or_ids(q.input, "input")

    async def work() -> Response:
        async with state(request).pool.lease(q.model) as lease:
            texts = [x if isinstance(x, str) else await decoded(lease, x) for x in given]
            vectors, count = await embed(
                lease, texts, limit=lease.worker.context, truncate=False, dimensions=q.dimensions
            )
        shown: list[Any] = list(vectors)
        if q.encoding_format == "base64":
            shown = [base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode() for v in vectors]
        rows = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(shown)]
        return json_response({
            "object": "list", "data": rows,
            "model": q.model, "usage": {"prompt_tokens": count, "total_tokens": count},
        })  # fmt: skip

    return await while_connected(request.receive, work())


async def decoded(lease: Any, ids: Sequence[int]) -> str:
    """The text of token ids of a request. Raises a Refusal."""
    if not all(0 <= i < lease.model.facts.vocab for i in ids):
        raise bad(f"token ids go from 0 to {lease.model.facts.vocab - 1}", "input")
    return await lease.worker.decode(ids)


async def models(request: Request) -> Response:
    return json_response({"object": "list", "data": [_model(e) for e in state(request).store.entries()]})


async def model(request: Request) -> Response:
    return json_response(_model(state(request).pool.entry(request.path_params["name"])))


def _model(entry: Any) -> dict[str, Any]:
    return {
        "id": str(entry.name),
        "object": "model",
        "created": int(entry.modified.timestamp()),
        "owned_by": entry.name.namespace,
    }


def response_format(given: dict[str, Any] | None) -> Any:
    """The JSON schema of `response_format`; None for text. Raises a Refusal."""
    kind = given.get("type") if given else "text"
    if kind == "text":
        return None
    if kind == "json_object":
        return JSON_OBJECT
    if kind == "json_schema" and given:
        inner = given.get("json_schema", given)
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if isinstance(schema, dict):
            return schema
        raise bad("response_format.json_schema.schema must be a JSON schema object", "response_format")
    raise bad("response_format.type must be text, json_object or json_schema", "response_format")


def tool_choice(given: Any) -> tuple[Choice, str | None]:
    """(choice, the one tool allowed). Raises a Refusal."""
    if given in (None, "auto", "none", "required"):
        return given or "auto", None
    if given == "any":
        return "required", None
    inner = given.get("function", given) if isinstance(given, dict) else None
    if isinstance(inner, dict) and isinstance(inner.get("name"), str):
        return "required", inner["name"]
    raise bad('tool_choice must be "auto", "none", "required" or name a function', "tool_choice")


def calls_row(calls: Sequence[Call], streamed: bool = False) -> list[dict[str, Any]]:
    return [
        ({"index": i} if streamed else {}) | {
            "id": f"call_{secrets.token_hex(6)}", "type": "function",
            "function": {"name": c.name, "arguments": json.dumps(c.arguments, ensure_ascii=False)},
        }
        for i, c in enumerate(calls)
    ]  # fmt: skip


def finish_reason(event: Event) -> str:
    return "tool_calls" if event.calls else "length" if event.finish == "length" else "stop"


def usage_row(*tasks: Task) -> dict[str, int]:
    prompt, answer = sum(t.counts.prompt for t in tasks), sum(t.counts.generated for t in tasks)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def logprobs_row(tokens: Sequence[Spelled]) -> dict[str, Any]:
    return {
        "content": [
            {
                **token_row(x.data, x.logprob),
                "top_logprobs": [token_row(*alternative) for alternative in x.top],
            }
            for x in tokens
        ],
        "refusal": None,
    }


def event_line(value: Any, name: str = "") -> bytes:
    """A server-sent event."""
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + wire.dump(value) + b"\n\n"


async def _chunks(
    t: Task, found: AsyncIterator[Any], head: dict[str, Any], usage: bool, n: int
) -> AsyncIterator[bytes]:
    more = {"usage": None} if usage else {}

    def chunk(k: int, delta: dict[str, Any], finish: str | None, logprobs: Any = None) -> bytes:
        choice = {"index": k, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return event_line({**head, "choices": [choice], **more})

    try:
        for k in range(n):
            yield chunk(k, {"role": "assistant", "content": ""}, None)
        async for event in found:
            logprobs = logprobs_row(event.tokens) if event.tokens else None
            if event.text or logprobs:
                yield chunk(event.sample, {"content": event.text}, None, logprobs)
            if event.calls:
                yield chunk(event.sample, {"tool_calls": calls_row(event.calls, streamed=True)}, None)
            if event.finish:
                yield chunk(event.sample, {}, finish_reason(event))
        if usage:
            yield event_line({**head, "choices": [], "usage": usage_row(t)})
    except Refusal as e:
        yield event_line(e.openai())
    finally:
        await found.aclose()  # type: ignore[attr-defined]
    yield DONE


@dataclass
class Said:
    """All of a sample."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    tokens: list[Spelled] = field(default_factory=list)
    finish: str = "stop"


async def gathered(found: AsyncIterator[Any], count: int) -> list[Said]:
    """`count` samples out of their events."""
    samples = [Said() for _ in range(count)]
    try:
        async for event in found:
            said = samples[event.sample]
            said.text += event.text
            said.calls += event.calls
            said.tokens += event.tokens
            if event.finish:
                said.finish = finish_reason(event)
    finally:
        await found.aclose()  # type: ignore[attr-defined]
    return samples


async def _whole(t: Task, found: AsyncIterator[Any], head: dict[str, Any], n: int) -> dict[str, Any]:
    choices = []
    for k, said in enumerate(await gathered(found, n)):
        message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
        if said.calls:
            message |= {"content": said.text or None, "tool_calls": calls_row(said.calls)}
        logprobs = logprobs_row(said.tokens) if t.top is not None else None
        choices.append({"index": k, "message": message, "logprobs": logprobs, "finish_reason": said.finish})
    return {**head, "choices": choices, "usage": usage_row(t)}
