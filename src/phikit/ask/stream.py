"""Answers read as they are written (server-sent events), and hung up on when the rest is worth nothing.

Two cut-offs: a text that goes round in a loop is truncated there, and a JSON answer is whole once its brackets are
closed. Closing the connection makes a server stop generating; what it had generated is not told, so a reply that
was hung up on is charged in full: the budget's promise goes before its thrift.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from phikit.engine.endpoint import (
    BadReply,
    ChatReply,
    Endpoint,
    chat_body,
    finish_of,
    read_reply,
    transport_error,
)
from phikit.records.types import Turn

LOOP_TIMES, LOOP_LEAST, LOOP_MOST = 4, 24, 400  # repeats, and characters in one round


async def stream_chat(
    endpoint: Endpoint,
    client: httpx.AsyncClient,
    turns: Sequence[Turn],
    options: Mapping[str, Any],
    key: str,
    is_json: bool,
) -> ChatReply:
    """One answer of /chat/completions with `stream`. A stream that ends without a finish_reason is a BadReply;
    raises EndpointErrors as `Endpoint.chat` does."""
    body = chat_body(endpoint.model, turns, options)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = endpoint.headers() | ({"Idempotency-Key": key} if key else {})
    url = f"{endpoint.url}/chat/completions"
    parts: list[str] = []
    finish, usage, size, seen = None, {}, 0, 0
    try:
        async with client.stream("POST", url, json=body, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
                read_reply(endpoint.url, response, endpoint.key_variable)
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    break
                event = _event(endpoint.url, data)
                usage = event.get("usage") or usage
                for choice in event.get("choices") or ():
                    piece = (choice.get("delta") or {}).get("content") or ""
                    parts.append(piece)
                    size += len(piece)
                    finish = choice.get("finish_reason") or finish
                if size - seen >= LOOP_LEAST and finish is None:
                    seen = size
                    text = "".join(parts)
                    if is_json and closed(text):
                        return ChatReply(text, "stop", None, None)
                    if (end := loop(text)) is not None:
                        return ChatReply(text[:end], "length", None, None, cut="loop")
    except httpx.HTTPError as e:
        raise transport_error(endpoint.url, e) from e
    if finish is None:
        raise BadReply(f"{endpoint.url}: the stream was cut after {size} characters")
    counts = [usage.get(k) for k in ("prompt_tokens", "completion_tokens")]
    counts = [c if isinstance(c, int) else None for c in counts]
    return ChatReply("".join(parts), finish_of({"finish_reason": finish}), counts[0], counts[1])


def loop(text: str) -> int | None:
    """Where a text that ends in LOOP_TIMES equal rounds may be cut (after the first of them), else None. A round has
    LOOP_LEAST to LOOP_MOST characters."""
    tail = text[-LOOP_LEAST:]
    at = text.rfind(tail, 0, len(text) - 1) if len(tail) == LOOP_LEAST else -1
    if at < 0:
        return None
    period = len(text) - LOOP_LEAST - at
    rounds = LOOP_TIMES if period >= LOOP_LEAST else -(-LOOP_TIMES * LOOP_LEAST // period)
    if period > LOOP_MOST or len(text) < period * rounds or not tail.strip():
        return None
    end = text[-period:]
    if all(text[len(text) - (i + 1) * period : len(text) - i * period] == end for i in range(rounds)):
        return len(text) - period * (rounds - 1)
    return None


def closed(text: str) -> bool:
    """Whether a text that begins with a bracket is one whole JSON value."""
    plain = text.strip()
    if not plain.startswith(("{", "[")) or not plain.endswith(("}", "]")):
        return False
    try:
        json.loads(plain)
    except ValueError:
        return False
    return True


def _event(url: str, data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError as e:
        raise BadReply(f"{url}: junk in the stream: {data[:200]}") from e
    if not isinstance(event, dict) or "error" in event:
        raise BadReply(f"{url}: the stream says {data[:200]}")
    return event
