"""One generation: from a request of either API to a stream of events, with its counts and times.

The APIs differ in words only. Here a conversation or text becomes token ids, is held against the context (a prompt
that does not fit is refused with the numbers), and what the model says comes out as text, tokens and tool calls.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from phikit.engine import wire
from phikit.engine.base import GenRequest
from phikit.records.types import Finish
from phikit.serve import tools as tool_forms
from phikit.serve.pool import Lease
from phikit.serve.prompt import Pieces, Renderer
from phikit.serve.refusal import Refusal, bad
from phikit.serve.sampling import MAX_SAMPLES, Sampling
from phikit.serve.tools import AnswerText, Call

ToolMode = Literal["", "native", "shim"]
MAX_SCHEMA = 1 << 18  # characters
JSON_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Spelled:
    """A token as it is told: its bytes (perhaps part of a character), log-probability, and the alternatives."""

    data: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()
    id: int = -1

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


def token_row(data: bytes, logprob: float) -> dict[str, Any]:
    """A token as both APIs write it."""
    return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}


@dataclass(frozen=True, slots=True)
class Event:
    """What became known of a sample: text, tokens (where log-probabilities were asked for), at its end calls and
    why it ended."""

    sample: int
    text: str = ""
    tokens: tuple[Spelled, ...] = ()
    calls: tuple[Call, ...] = ()
    finish: Finish | None = None


@dataclass
class Counts:
    """Tokens and nanoseconds of a generation."""

    prompt: int = 0
    generated: int = 0
    begin: int = field(default_factory=time.monotonic_ns)
    first: int = 0
    end: int = 0
    ids: list[int] = field(default_factory=list)  # of sample 0

    @property
    def prompt_ns(self) -> int:
        return max((self.first or self.end) - self.begin, 1)

    @property
    def answer_ns(self) -> int:
        return max(self.end - self.first, 1) if self.first else 0


@dataclass(frozen=True, slots=True)
class Task:
    """A generation ready to run. `top` None: no log-probabilities wanted."""

    lease: Lease
    request: GenRequest
    top: int | None = None
    tools: ToolMode = ""
    counts: Counts = field(default_factory=Counts)


def room(lease: Lease, settings: Sampling) -> int:
    """Tokens of context of this request: its num_ctx, at most what the model was loaded with."""
    return min(settings.num_ctx or lease.worker.context, lease.worker.context)


def too_long(count: int, context: int) -> Refusal:
    return Refusal(
        400, f"the prompt has {count} tokens and does not fit the context of {context} tokens: shorten it, set num_ctx "
        "(up to the model's own context), or send truncate: true to have the oldest part left out",
        code="context_length_exceeded",
    )  # fmt: skip


def check_schema(lease: Lease, schema: Any) -> str | None:
    """The JSON text of a schema that can be given to the engine. Raises a Refusal."""
    if schema is None:
        return None
    if lease.model.facts.kind != "gguf":
        raise bad(
            f'"{lease.model.entry.name}" does not support structured output: it is a safetensors model; `phikit export '
            "--to gguf` makes a GGUF of it, which does",
            "format",
        )
    text = json.dumps(schema, ensure_ascii=False)
    if len(text) > MAX_SCHEMA:
        raise bad(f"the JSON schema has {len(text):,} characters; {MAX_SCHEMA:,} are the most", "format")
    return text


async def chat_ids(
    lease: Lease,
    form: Renderer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    context: int,
    *,
    truncate: bool = False,
    **values: Any,
) -> list[int]:
    """Ids of a conversation with an open answer. With `truncate` the oldest messages, system ones aside, are left out
    until it fits, as Ollama does. Raises a Refusal with the numbers where it does not fit."""
    kept = list(messages)
    while True:
        ids = await with_start(lease, await form.pieces(kept, tools, **values))
        if len(ids) < context:
            return ids
        old = next((i for i, m in enumerate(kept[:-1]) if m["role"] != "system"), None)
        if not truncate or old is None:
            raise too_long(len(ids), context)
        del kept[old]


async def with_start(lease: Lease, pieces: Pieces) -> list[int]:
    """Ids of pieces, after the start token where the model wants one and the template did not write it."""
    ids = await lease.worker.encode(pieces)
    facts = lease.model.facts
    if facts.add_bos and (start := facts.specials.get(facts.bos)) is not None and ids[:1] != [start]:
        ids = [start, *ids]
    if not ids:
        raise bad("the prompt is empty")
    return ids


def task(
    lease: Lease,
    ids: Sequence[int],
    s: Sampling,
    *,
    schema: Any = None,
    top: int | None = None,
    n: int = 1,
    tools: ToolMode = "",
) -> Task:
    """Raises a Refusal: prompt too long, a schema that cannot be honoured, too many samples."""
    context, facts = room(lease, s), lease.model.facts
    if len(ids) + 1 > context:
        raise too_long(len(ids), context)
    if min(ids) < 0 or max(ids) >= facts.vocab:
        raise bad(f"token ids go from 0 to {facts.vocab - 1}", "context")
    if not 1 <= n <= MAX_SAMPLES:
        raise bad(f"n must be from 1 to {MAX_SAMPLES}, not {n}", "n")
    left = context - len(ids)
    most = left if s.num_predict < 0 else min(s.num_predict, left)
    # A stop that is a special token never shows up in the text: it ends the answer by its id.
    ends = {facts.specials[x] for x in s.stop if x in facts.specials}
    request = GenRequest(
        tuple(ids), most, n=n, stop=tuple(x for x in s.stop if x not in facts.specials),
        stop_ids=tuple({*facts.stop_ids, *ends}), top_logprobs=top or 0, json_schema=check_schema(lease, schema),
        **s.drawing,
    )  # fmt: skip
    counts = Counts(prompt=len(ids))
    return Task(lease, request, top, tools, counts)


async def run(t: Task) -> AsyncIterator[Event]:
    """Events of all samples; each sample's last has `finish`. Raises a Refusal where the engine fails."""
    counts, request = t.counts, t.request
    counts.begin = time.monotonic_ns()
    if request.max_tokens == 0:
        counts.end = time.monotonic_ns()
        for k in range(request.n):
            yield Event(k, finish="length")
        return
    readers = [_Reader(t.tools) for _ in range(request.n)]
    replies = t.lease.worker.generate(request)
    try:
        async for reply in replies:
            counts.first = counts.first or time.monotonic_ns()
            done = isinstance(reply, wire.Done)
            ids = reply.tokens if done else [reply.token]
            counts.generated += len(ids)
            if reply.sample == 0:
                counts.ids += ids
            tokens: tuple[Spelled, ...] = ()
            if t.top is not None:
                logprobs, tops = (reply.logprobs, reply.top) if done else ([reply.logprob], [reply.top])
                tokens = await spelled(t.lease, ids, logprobs, tops, request.stop_ids)
            reader = readers[reply.sample]
            text = reader.add(reply.text)
            if done:
                counts.end = time.monotonic_ns()
                rest, calls = reader.end()
                yield Event(reply.sample, text + rest, tokens, tuple(calls), reply.finish)
            elif text or tokens:
                yield Event(reply.sample, text, tokens)
    finally:
        await replies.aclose()  # type: ignore[attr-defined]


async def spelled(
    lease: Lease,
    ids: Sequence[int],
    logprobs: Sequence[float],
    tops: Sequence[Any],
    stop_ids: Sequence[int] = (),
) -> tuple[Spelled, ...]:
    """Tokens with their bytes; a token that ended the answer is left out."""
    names = await lease.worker.spell([*ids, *(i for top in tops for i, _ in top)])
    tops = tops or [()] * len(ids)
    return tuple(
        Spelled(names[i], p, tuple((names[j], q) for j, q in top), i)
        for i, p, top in zip(ids, logprobs, tops)
        if i not in stop_ids
    )


class _Reader:
    """The text of a sample, less what belongs to the form of tool calls."""

    def __init__(self, mode: ToolMode) -> None:
        self.mode, self.text, self.shown = mode, "", 0
        self.answer = AnswerText()

    def add(self, piece: str) -> str:
        if not self.mode:
            return piece
        self.text += piece
        if self.mode == "shim":
            said = self.answer.add(piece)
            self.shown += len(said)
            return said
        if self.shown == 0 and tool_forms.may_be_call(self.text):
            return ""
        said = self.text[self.shown :]
        self.shown = len(self.text)
        return said

    def end(self) -> tuple[str, list[Call]]:
        """The rest of the text, and the calls."""
        if not self.mode:
            return "", []
        if self.mode == "shim":
            text, calls = tool_forms.read_answer(self.text)
            # A cut answer is no JSON: what was said of it stands; of a cut call nothing does.
            return ("", []) if self.answer.form and not calls else (text[self.shown :], calls)
        text, calls = tool_forms.read_native(self.text)
        return ("" if self.shown and calls else text[self.shown :]), calls
