"""An OpenAI-compatible HTTP endpoint: its address, its typed errors, and what its replies mean.

Nothing here retries: `phikit.ask` does, by the type of the error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
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
    """5xx (with the `retry_after` it named), no connection, or a time-out (`timeout`, and then perhaps billed)."""

    def __init__(self, message: str, *, timeout: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.timeout = self.billed = timeout
        self.retry_after = retry_after


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
    """Token counts are None where the endpoint told none. `cut` says why the reader hung up on it, if it did."""

    text: str
    finish: Finish
    prompt_tokens: int | None
    completion_tokens: int | None
    cut: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url` ends in /v1 (no slash after it). The key is read from the environment variable `key_variable`.
    `timeout` in seconds."""

    url: str
    model: str
    timeout: float = 300.0
    key_variable: str = KEY_VARIABLE

    @classmethod
    def from_spec(cls, spec: str, timeout: float = 300.0) -> Endpoint:
        """From "http(s)://host/v1#model"."""
        url, _, model = spec.partition("#")
        if not model or not url.startswith(("http://", "https://")):
            raise ValueError(f"{spec}: an endpoint is written http(s)://host:port/v1#model")
        return cls(url.rstrip("/"), model, timeout)

    def headers(self) -> dict[str, str]:
        key = os.environ.get(self.key_variable)
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def chat(
        self, client: httpx.AsyncClient, turns: Sequence[Turn], options: Mapping[str, Any], key: str = ""
    ) -> ChatReply:
        """One answer of /chat/completions. `key` goes along as Idempotency-Key: an endpoint that knows the header
        answers a repeated request from memory. Raises an EndpointError."""
        body = chat_body(self.model, turns, options)
        headers = {"User-Agent": "phikit", "Accept": "*/*", **self.headers()}
        headers |= {"Idempotency-Key": key} if key else {}
        # Built here: `client.post` would merge URLs, cookies and headers, at half as much CPU again.
        request = httpx.Request(
            "POST", httpx.URL(f"{self.url}/chat/completions"), headers=headers, json=body,
            extensions={"timeout": client.timeout.as_dict()},
        )  # fmt: skip
        try:
            response = await client.send(request)
        except httpx.HTTPError as e:
            raise transport_error(self.url, e) from e
        return chat_reply(read_reply(self.url, response, self.key_variable))


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


def read_reply(url: str, response: httpx.Response, key_variable: str = KEY_VARIABLE) -> dict[str, Any]:
    """The JSON object of a good reply; raises the typed error of any other. `key_variable` is where its key lies."""
    status = response.status_code
    if status == 200:
        return _object(url, response)
    said = _said(response)
    if status == 429:
        raise RateLimited(f"{url}: 429 {said}", _seconds(response.headers.get("retry-after")))
    if status >= 500 or status in (408, 425):
        after = _seconds(response.headers.get("retry-after"))
        raise Unavailable(f"{url}: {status} {said}", retry_after=after)
    hint = f" (is {key_variable} set?)" if status in (401, 403) else ""
    raise Refused(f"{url}: {status} {said}{hint}", status)


def _object(url: str, response: httpx.Response) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError as e:
        raise BadReply(f"{url}: the reply is not JSON: {_said(response)}") from e
    if not isinstance(value, dict):
        raise BadReply(f"{url}: the reply is not a JSON object: {_said(response)}")
    return value


def _said(response: httpx.Response) -> str:
    return response.text[:300].replace("\n", " ")


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
        return ChatReply(str(refusal), "refused", counts[0], counts[1])
    return ChatReply(message.get("content") or "", finish_of(choice), counts[0], counts[1])


def _seconds(value: str | None) -> float | None:
    """Of a Retry-After header: seconds or an HTTP date. None where it is neither."""
    if not value:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None
