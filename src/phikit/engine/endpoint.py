"""An OpenAI-compatible HTTP endpoint: its address, its typed errors, and what its replies mean.

Nothing here retries: `phikit.ask` does, by the type of the error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from phikit.records.types import Finish, Turn

KEY_VARIABLE = "PHIKIT_API_KEY"
_CONFIGURATION = (401, 403, 404, 405)


class EndpointError(RuntimeError):
    """A request got no usable answer. `billed`: it may have been computed and charged all the same."""

    billed = False


class RateLimited(EndpointError):
    """429. `retry_after` in seconds when the endpoint named it."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(EndpointError):
    """5xx, no connection, or a time-out (`timeout`, and then perhaps billed)."""

    def __init__(self, message: str, *, timeout: bool = False) -> None:
        super().__init__(message)
        self.timeout = self.billed = timeout


class BadReply(EndpointError):
    """A cut or junk body behind status 200."""

    billed = True


class Refused(EndpointError):
    """A 4xx: the same request will fail again. `configuration`: wrong key, address or model name, so that
    every request will."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.configuration = status in _CONFIGURATION


@dataclass(frozen=True, slots=True)
class ChatReply:
    """Token counts are None where the endpoint told none."""

    text: str
    finish: Finish
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url` ends in /v1 (no slash after it). The key is read from PHIKIT_API_KEY. `timeout` in seconds."""

    url: str
    model: str
    timeout: float = 300.0

    @classmethod
    def from_spec(cls, spec: str) -> Endpoint:
        """From "http(s)://host/v1#model"."""
        url, _, model = spec.partition("#")
        if not model or not url.startswith(("http://", "https://")):
            raise ValueError(f"{spec}: an endpoint is written http(s)://host:port/v1#model")
        return cls(url.rstrip("/"), model)

    def headers(self) -> dict[str, str]:
        key = os.environ.get(KEY_VARIABLE)
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def chat(
        self, client: httpx.AsyncClient, turns: Sequence[Turn], options: Mapping[str, Any]
    ) -> ChatReply:
        """One answer of /chat/completions. Raises an EndpointError."""
        body = chat_body(self.model, turns, options)
        try:
            response = await client.post(f"{self.url}/chat/completions", json=body, headers=self.headers())
        except httpx.HTTPError as e:
            raise transport_error(self.url, e) from e
        return chat_reply(read_reply(self.url, response))


def chat_body(model: str, turns: Sequence[Turn], options: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": t.role, "content": t.content} for t in turns], **options}


def transport_error(url: str, error: httpx.HTTPError) -> EndpointError:
    """The typed form of what httpx raises."""
    text = f"{url}: {type(error).__name__} {error}".rstrip()
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return Unavailable(text)
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(text, timeout=True)
    return BadReply(text)


def read_reply(url: str, response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a good reply; raises the typed error of any other."""
    status = response.status_code
    said = response.text[:300].replace("\n", " ")
    if status == 429:
        raise RateLimited(f"{url}: 429 {said}", _seconds(response.headers.get("retry-after")))
    if status >= 500 or status in (408, 425):
        raise Unavailable(f"{url}: {status} {said}")
    if status != 200:
        hint = f" (is {KEY_VARIABLE} set?)" if status in (401, 403) else ""
        raise Refused(f"{url}: {status} {said}{hint}", status)
    try:
        value = response.json()
    except ValueError as e:
        raise BadReply(f"{url}: the reply is not JSON: {said}") from e
    if not isinstance(value, dict):
        raise BadReply(f"{url}: the reply is not a JSON object: {said}")
    return value


def choices(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The choices of a reply, in index order."""
    found = value.get("choices")
    if not isinstance(found, list) or not found or not all(isinstance(c, dict) for c in found):
        raise BadReply(f"the reply has no choices: {str(value)[:300]}")
    return sorted(found, key=lambda c: c.get("index") or 0)


def finish_of(choice: Mapping[str, Any]) -> Finish:
    reason = choice.get("finish_reason")
    return {"length": "length", "content_filter": "refused"}.get(str(reason), "stop")  # type: ignore[return-value]


def chat_reply(value: Mapping[str, Any]) -> ChatReply:
    """Text, finish and usage of a chat reply; raises BadReply."""
    choice = choices(value)[0]
    message = choice.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("content") or "", str):
        raise BadReply(f"the reply has no message: {str(value)[:300]}")
    usage: Any = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counts = [usage.get(k) for k in ("prompt_tokens", "completion_tokens")]
    counts = [c if isinstance(c, int) else None for c in counts]
    if refusal := message.get("refusal"):
        return ChatReply(str(refusal), "refused", *counts)
    return ChatReply(message.get("content") or "", finish_of(choice), *counts)


def _seconds(value: str | None) -> float | None:
    try:
        return max(float(value), 0.0) if value else None
    except ValueError:  # an HTTP date: the caller's own backoff will do
        return None
