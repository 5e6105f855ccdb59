"""OpenAI's /v1/responses, as far as it is stateless: text and function calls in and out, streamed or whole."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request

from phikit.serve import openai_wire
from phikit.serve import tools as tool_forms
from phikit.serve.answer import Event, Task
from phikit.serve.asking import Dialog, content_of, dialog_task, keep_alive, told
from phikit.serve.http import EVENTS, Streamed, json_response, primed, read, while_connected
from phikit.serve.openai import event_line, response_format, tool_choice
from phikit.serve.refusal import Refusal, bad
from phikit.serve.sampling import OPENAI_DEFAULTS, sampling
from phikit.serve.state import state
from phikit.serve.tools import Call

Json = dict[str, Any]


async def responses(request: Request) -> Any:
    q = await read(request, openai_wire.Responses)
    if q.previous_response_id:
        raise bad("previous_response_id is not offered: this server keeps no conversations; send the whole input",
                  "previous_response_id")  # fmt: skip
    messages = _messages(q)
    tools = tool_forms.check([_tool(t) for t in q.tools or []])
    choice, only = tool_choice(q.tool_choice)
    form = (q.text or {}).get("format")
    if form is not None and not isinstance(form, dict):
        raise bad("text.format must be an object", "text")
    truncate = q.truncation == "auto"
    d = Dialog(messages, tools, choice, only, response_format(form), truncate)
    if q.max_output_tokens is not None and q.max_output_tokens < 1:
        raise bad("max_output_tokens must be 1 or more", "max_output_tokens")
    options = {
        "temperature": q.temperature,
        "top_p": q.top_p,
        "seed": q.seed,
        "num_predict": q.max_output_tokens,
    }

    async def events() -> AsyncIterator[Any]:
        async with state(request).pool.lease(q.model, keep_alive=keep_alive(q.keep_alive)) as lease:
            t = await dialog_task(
                request, lease, d, sampling(lease.model.parts.parameters, options, OPENAI_DEFAULTS)
            )
            yield t
            async for event in told(request, t):
                yield event

    found = events()
    t = await primed(request.receive, found)
    answer = _Answer(q, t)
    if q.stream:
        return Streamed(_lines(answer, found), EVENTS)

    async def whole() -> Json:
        try:
            async for event in found:
                answer.take(event)
        finally:
            await found.aclose()  # type: ignore[attr-defined]
        return answer.row("completed")

    return json_response(await while_connected(request.receive, whole()))


class _Answer:
    """The response object, grown by events."""

    def __init__(self, q: openai_wire.Responses, t: Task) -> None:
        self.q, self.t = q, t
        self.id, self.message = f"resp_{secrets.token_hex(16)}", f"msg_{secrets.token_hex(16)}"
        self.created, self.text, self.cut = int(time.time()), "", False
        self.calls: list[Json] = []

    def take(self, event: Event) -> None:
        self.text += event.text
        self.calls += [_call(c) for c in event.calls]
        self.cut = self.cut or event.finish == "length"

    def item(self, status: str) -> Json:
        content = [self.part()] if status == "completed" else []
        return {
            "id": self.message,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def part(self) -> Json:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def output(self) -> list[Json]:
        return ([self.item("completed")] if self.text or not self.calls else []) + self.calls

    def row(self, status: str) -> Json:
        counts, done = self.t.counts, status == "completed"
        cut = self.cut and done
        usage = {
            "input_tokens": counts.prompt, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": counts.generated, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counts.prompt + counts.generated,
        }  # fmt: skip
        r = self.t.request
        return {
            "id": self.id, "object": "response", "created_at": self.created, "model": self.q.model,
            "status": "incomplete" if cut else status, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": self.q.instructions, "max_output_tokens": self.q.max_output_tokens,
            "output": self.output() if done else [], "parallel_tool_calls": True, "previous_response_id": None,
            "temperature": r.temperature, "top_p": r.top_p, "tool_choice": self.q.tool_choice or "auto",
            "tools": self.q.tools or [], "truncation": self.q.truncation or "disabled", "metadata": {},
            "text": self.q.text or {"format": {"type": "text"}}, "usage": usage if done else None,
        }  # fmt: skip


async def _lines(answer: _Answer, found: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    number = 0

    def line(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return event_line({"type": kind, "sequence_number": number - 1, **fields}, kind)

    place = {"item_id": answer.message, "output_index": 0, "content_index": 0}
    begun = False
    try:
        yield line("response.created", response=answer.row("in_progress"))
        yield line("response.in_progress", response=answer.row("in_progress"))
        async for event in found:
            if event.text and not begun:
                begun = True
                yield line("response.output_item.added", output_index=0, item=answer.item("in_progress"))
                yield line("response.content_part.added", **place, part=answer.part())
            answer.take(event)
            if event.text:
                yield line("response.output_text.delta", **place, delta=event.text, logprobs=[])
        if begun:
            yield line("response.output_text.done", **place, text=answer.text, logprobs=[])
            yield line("response.content_part.done", **place, part=answer.part())
            yield line("response.output_item.done", output_index=0, item=answer.item("completed"))
        for i, call in enumerate(answer.calls, int(begun)):
            there = {"item_id": call["id"], "output_index": i}
            yield line("response.output_item.added", output_index=i,
                       item={**call, "arguments": "", "status": "in_progress"})  # fmt: skip
            yield line("response.function_call_arguments.delta", **there, delta=call["arguments"])
            yield line(
                "response.function_call_arguments.done",
                **there,
                arguments=call["arguments"],
                name=call["name"],
            )
            yield line("response.output_item.done", output_index=i, item=call)
        row = answer.row("completed")
        yield line(f"response.{row['status']}", response=row)
    except Refusal as e:
        failed = {**answer.row("failed"), "error": {"code": e.code or "server_error", "message": e.message}}
        yield line("response.failed", response=failed)
    finally:
        await found.aclose()  # type: ignore[attr-defined]


def _messages(q: openai_wire.Responses) -> list[Json]:
    """Raises a Refusal for items of kinds that are not known here."""
    found: list[Json] = [{"role": "system", "content": q.instructions}] if q.instructions else []
    if isinstance(q.input, str):
        return [*found, {"role": "user", "content": q.input}]
    for i, item in enumerate(q.input):
        kind = item.get("type", "message")
        if kind == "message":
            role = {"developer": "system"}.get(str(item.get("role")), str(item.get("role")))
            if role not in ("system", "user", "assistant"):
                raise bad(f"input.{i}: unknown role {role[:40]!r}", "input")
            found.append({"role": role, "content": content_of(item.get("content"), f"input.{i}")})
        elif kind == "function_call":
            try:
                arguments = json.loads(item.get("arguments") or "{}")
            except (ValueError, TypeError) as e:
                raise bad(f"input.{i}: arguments are not JSON", "input") from e
            function = {
                "name": str(item.get("name")),
                "arguments": arguments if isinstance(arguments, dict) else {},
            }
            found.append({"role": "assistant", "content": "", "tool_calls": [
                {"id": str(item.get("call_id") or ""), "function": function}]})  # fmt: skip
        elif kind == "function_call_output":
            output = item.get("output")
            text = output if isinstance(output, str) else json.dumps(output)
            found.append({"role": "tool", "content": text, "tool_call_id": str(item.get("call_id") or "")})
        elif kind != "reasoning":
            raise bad(f"input.{i}: items of the type {str(kind)[:40]!r} are not known", "input")
    if not found:
        raise bad("input is empty", "input")
    return found


def _tool(tool: Json) -> Json:
    """The flat form of this API as the nested one."""
    if tool.get("type") != "function":
        raise bad(
            f"tools of the type {str(tool.get('type'))[:40]!r} are not offered; only functions are", "tools"
        )
    return (
        tool
        if "function" in tool
        else {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}
    )


def _call(c: Call) -> Json:
    return {
        "id": f"fc_{secrets.token_hex(8)}", "type": "function_call", "call_id": f"call_{secrets.token_hex(6)}",
        "name": c.name, "arguments": json.dumps(c.arguments, ensure_ascii=False), "status": "completed",
    }  # fmt: skip
