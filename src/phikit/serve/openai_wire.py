"""Bodies of OpenAI's API as typed structs. What has no meaning here (user, store, metadata, ...) is ignored."""

from __future__ import annotations

from typing import Any

import msgspec

from phikit.serve.refusal import bad
from phikit.serve.wire import Json, Message


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Common(msgspec.Struct, kw_only=True):
    """Fields of chat and text completions. `top_k`, `min_p`, `repeat_penalty` and `keep_alive` are ours."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    num_ctx: int | None = None
    keep_alive: Any = None

    def options(self) -> Json:
        """As options of `sampling`."""
        names = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop", "top_k", "min_p",
                 "repeat_penalty", "num_ctx")  # fmt: skip
        found: Json = {name: getattr(self, name) for name in names}
        if self.max_tokens is not None:
            if self.max_tokens < 0:
                raise bad("max_tokens must be 0 or more", "max_tokens")
            found["num_predict"] = self.max_tokens
        return found


class ChatCompletion(Common, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: Json | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None

    def options(self) -> Json:
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        return super().options()


class TextCompletion(Common, kw_only=True):
    prompt: Any = None  # a text, texts, token ids, or lists of token ids
    echo: bool | None = None
    logprobs: int | None = None
    best_of: int | None = None
    suffix: str | None = None

    def prompts(self) -> list[str | list[int]]:
        """Raises a Refusal where there is none."""
        return texts_or_ids(self.prompt, "prompt")


class Embeddings(msgspec.Struct):
    model: str
    input: Any = None  # as prompt of TextCompletion
    dimensions: int | None = None
    encoding_format: str | None = None


class Responses(msgspec.Struct):
    model: str
    input: str | list[Json]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    text: Json | None = None
    previous_response_id: str | None = None
    truncation: str | None = None
    seed: int | None = None
    keep_alive: Any = None


def texts_or_ids(given: Any, name: str) -> list[str | list[int]]:
    """The texts or token ids of a field. Raises a Refusal."""
    if given is None or given in ("", []):
        raise bad(f"{name} is required", name)
    items = [given] if isinstance(given, str) or (isinstance(given, list) and _are_ids(given)) else given
    if not isinstance(items, list) or not all(
        isinstance(x, str) or (isinstance(x, list) and _are_ids(x)) for x in items
    ):
        raise bad(f"{name} must be a text, a list of texts, or token ids", name)
    return items


def _are_ids(values: list[Any]) -> bool:
    return bool(values) and all(type(x) is int for x in values)
