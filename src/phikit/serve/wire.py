"""Bodies of requests as typed structs, and how JSON and times are written.

Fields that are absent, null, "" or an empty list where a client means nothing are all nothing: LangChain sends
`"format": ""` and options of null, the Python client `"tools": []`. Unknown fields are ignored, as Ollama does.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from phikit.serve.refusal import bad

Json = dict[str, Any]
T = TypeVar("T")
MAX_DEPTH, MAX_BRACKETS = 64, 1_000_000  # of the JSON of a request


class Function(msgspec.Struct):
    name: str = ""
    arguments: Any = None  # an object in Ollama's API, JSON text in OpenAI's


class ToolCall(msgspec.Struct):
    function: Function
    id: str | None = None
    type: str | None = None
    index: int | None = None


class Message(msgspec.Struct):
    role: str
    content: Any = None  # a text; OpenAI's also a list of parts
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    name: str | None = None


class Tool(msgspec.Struct):
    function: Json
    type: str = "function"


class Common(msgspec.Struct, kw_only=True):
    """Fields of /api/generate and /api/chat."""

    model: str
    stream: bool | None = None
    format: Any = None
    options: Json | None = None
    keep_alive: Any = None
    think: Any = None
    truncate: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class Generate(Common, kw_only=True):
    """POST /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[Any] | None = None


class Chat(Common, kw_only=True):
    """POST /api/chat."""

    messages: list[Message] | None = None
    tools: list[Tool] | None = None


class Embed(msgspec.Struct):
    """POST /api/embed."""

    model: str
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: Json | None = None
    keep_alive: Any = None


class Embeddings(msgspec.Struct):
    """POST /api/embeddings, the older form."""

    model: str
    prompt: str | None = None
    options: Json | None = None
    keep_alive: Any = None


class ByName(msgspec.Struct, kw_only=True):
    """A model by `model` or, as older clients write, `name`."""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None

    @property
    def wanted(self) -> str:
        if not (found := self.model or self.name):
            raise bad("model is required", "model")
        return found


class Named(ByName, kw_only=True):
    """POST /api/show, /api/pull, /api/push; DELETE /api/delete."""

    insecure: bool | None = None
    verbose: bool | None = None


class Create(ByName, kw_only=True):
    """POST /api/create."""

    from_: str | None = msgspec.field(name="from", default=None)
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str | None = None
    license: str | list[str] | None = None
    system: str | None = None
    parameters: Json | None = None
    messages: list[Message] | None = None
    quantize: str | None = None


class Copy(msgspec.Struct):
    source: str
    destination: str


class Score(msgspec.Struct):
    """POST /v1/score: log-likelihoods of continuations after a text or a conversation."""

    model: str
    continuations: list[str]
    context: str | None = None
    messages: list[Message] | None = None
    token_logprobs: bool | None = None
    keep_alive: Any = None


_FIELD = re.compile(r" - at `\$\.?(.*?)`")


def decode(body: bytes, kind: type[T]) -> T:
    """The struct of a JSON body. Raises a Refusal of status 400 that names the field."""
    if not body.strip():
        raise bad("missing request body")
    if deepest(body) > MAX_DEPTH:
        raise bad(f"the JSON is nested deeper than {MAX_DEPTH} levels, or holds too many lists and objects")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as e:
        where = _FIELD.search(str(e))
        raise bad(f"invalid request: {e}", where[1] if where else None) from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise bad(f"invalid JSON: {e}") from e


def deepest(body: bytes) -> int:
    """The depth of a JSON text by its brackets outside of strings; more than MAX_DEPTH where it has very many."""
    brackets = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", body, flags=re.DOTALL).translate(None, _PLAIN)
    if len(brackets) > MAX_BRACKETS:
        return MAX_DEPTH + 1
    depth = most = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        most = max(most, depth)
    return most


_PLAIN = bytes(i for i in range(256) if i not in b"[]{}")


def dump(value: Any) -> bytes:
    return msgspec.json.encode(value)


def now() -> str:
    """RFC 3339 in UTC with nanoseconds, as Go writes it."""
    whole, fraction = divmod(time.time_ns(), 1_000_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def moment(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
