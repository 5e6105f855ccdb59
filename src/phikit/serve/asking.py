"""What the chat routes of both APIs share: a conversation and its options become a task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from phikit.serve import tools as tool_forms
from phikit.serve.answer import JSON_OBJECT, Event, Task, chat_ids, room, run, task
from phikit.serve.durations import seconds
from phikit.serve.pool import Lease
from phikit.serve.prompt import Renderer, renderer
from phikit.serve.refusal import bad
from phikit.serve.sampling import Sampling, context_of, is_known
from phikit.serve.state import note, state
from phikit.serve.tools import Choice
from phikit.serve.wire import Message

ROLES = ("system", "user", "assistant", "tool", "developer")
MAX_MESSAGES = 10_000


@dataclass(frozen=True, slots=True)
class Dialog:
    """A conversation to be answered. `schema` is the JSON schema of the answer; `only` the one tool allowed."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    choice: Choice = "auto"
    only: str | None = None
    schema: Any = None
    truncate: bool = False
    system: str | None = None  # in place of the Modelfile's
    template: str | None = None


def keep_alive(value: Any) -> float | None:
    """Raises a Refusal."""
    if value is None or value == "":
        return None
    try:
        return seconds(value)
    except ValueError as e:
        raise bad(f"invalid keep_alive: {e}", "keep_alive") from e


def wanted_format(value: Any) -> Any:
    """The JSON schema of `format`: "json", a schema, or nothing ("", null). Raises a Refusal."""
    if value in (None, "", {}):
        return None
    if value == "json":
        return JSON_OBJECT
    if isinstance(value, dict):
        return value
    raise bad(f'invalid format: {json.dumps(value)[:80]}; expected "json" or a JSON Schema', "format")


def no_thinking(name: str, think: Any) -> None:
    """Raises a Refusal where thinking is asked for."""
    if think not in (None, False, True, "", "low", "medium", "high", "max"):
        raise bad(
            f'invalid think value: {json.dumps(think)[:40]} (must be "high", "medium", "low", true, or false)',
            "think",
        )
    if think:
        raise bad(f'"{name}" does not support thinking', "think")


def messages_of(given: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates take them: contents are texts, arguments of calls objects. Raises a Refusal: unknown
    roles, images."""
    if len(given) > MAX_MESSAGES:
        raise bad(f"{len(given)} messages; {MAX_MESSAGES} are the most", "messages")
    found = []
    for i, m in enumerate(given):
        if m.role not in ROLES:
            raise bad(
                f"messages.{i}: unknown role {m.role[:40]!r}; known are {', '.join(ROLES[:4])}", "messages"
            )
        if m.images:
            raise bad("this server has no model that sees images: send text only", "messages")
        row: dict[str, Any] = {
            "role": "system" if m.role == "developer" else m.role, "content": content_of(m.content, f"messages.{i}"),
            "thinking": m.thinking, "tool_name": m.tool_name or m.name, "tool_call_id": m.tool_call_id,
        }  # fmt: skip
        if m.tool_calls:
            row["tool_calls"] = [
                {
                    "id": c.id or "",
                    "function": {"name": c.function.name, "arguments": _arguments(c.function.arguments)},
                }
                for c in m.tool_calls
            ]
        found.append(row)
    return found


def content_of(value: Any, where: str) -> str:
    """The text of a content: a string, or a list of text parts (OpenAI's). Raises a Refusal."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise bad(f"{where}: content must be a string or a list of parts", "messages")
    texts = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("image_url", "input_image", "image"):
            raise bad("this server has no model that sees images: send text only", "messages")
        text = part.get("text") if isinstance(part, dict) else None
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            raise bad(
                f"{where}: parts of the type {str(kind)[:40]!r} are not known; send text parts", "messages"
            )
        texts.append(text)
    return "".join(texts)


def leased(
    request: Request, model: str, alive: float | None, options: Mapping[str, Any]
) -> AbstractAsyncContextManager[Lease]:
    """The model, loaded with room for the request's num_ctx. Raises a Refusal."""
    return state(request).pool.lease(model, keep_alive=alive, context=context_of(options))


async def dialog_task(
    request: Request, lease: Lease, d: Dialog, s: Sampling, *, top: int | None = None, n: int = 1
) -> Task:
    """Raises a Refusal."""
    model = lease.model
    form = await form_of(lease, d.template)
    messages = [*model.parts.messages, *d.messages]
    system = d.system if d.system is not None else model.parts.system
    if system and not any(m["role"] == "system" for m in d.messages):
        messages = [{"role": "system", "content": system}, *messages]
    tools, schema, mode = d.tools if d.choice != "none" else [], d.schema, ""
    if tools and schema is not None:
        raise bad("a response format and tools cannot be asked for together", "tools")
    shown: Sequence[Mapping[str, Any]] = tools
    if tools:
        if form.tools_by == "none":
            raise bad(f'"{model.entry.name}" does not support tools', "tools")
        mode = "native" if form.knows_tools and d.choice == "auto" else "shim"
        if mode == "shim":
            schema = tool_forms.schema(tools, d.choice, d.only)
    if not form.knows_tools:
        messages = tool_forms.as_text(messages, form=bool(tools))
        if tools:
            text = tool_forms.system_text(tools, d.choice)
            first = messages[0]["role"] == "system"
            text = f"{messages[0]['content']}\n\n{text}" if first else text
            messages = [{"role": "system", "content": text}, *messages[first:]]
            shown = ()
    ids = await chat_ids(lease, form, messages, shown, room(lease, s), truncate=d.truncate)
    note_ignored(request, s)
    return task(lease, ids, s, schema=schema, top=top, n=n, tools=mode)  # type: ignore[arg-type]


async def form_of(lease: Lease, override: str | None) -> Renderer:
    """The template of a request."""
    if not override:
        return lease.model.renderer
    return await asyncio.to_thread(renderer, lease.model.facts, lease.model.parts, override)


def note_ignored(request: Request, s: Sampling) -> None:
    """Options without effect are named in the log, with a warning where nobody knows them."""
    if s.ignored:
        unknown = [x for x in s.ignored if not is_known(x)]
        note(request, ignored_options=list(s.ignored), unknown_options=unknown or None)


async def told(request: Request, t: Task) -> AsyncIterator[Event]:
    """Events of a task; its numbers go to the log and the metrics when it ends."""
    try:
        async for event in run(t):
            yield event
    finally:
        counts, name = t.counts, str(t.lease.model.entry.name)
        metrics = state(request).metrics
        note(request, prompt_tokens=counts.prompt, generated_tokens=counts.generated)
        metrics.add("phikit_prompt_tokens_total", counts.prompt, model=name)
        metrics.add("phikit_generated_tokens_total", counts.generated, model=name)
        if counts.first:
            metrics.observe("phikit_first_token_seconds", (counts.first - counts.begin) / 1e9)


def _arguments(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError as e:
            raise bad(f"the arguments of a tool call are not JSON: {e}", "messages") from e
    if value is not None and not isinstance(value, dict):
        raise bad("the arguments of a tool call must be an object", "messages")
    return value or {}
