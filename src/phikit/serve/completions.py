"""OpenAI's text completions with n, echo and log-probabilities, and /v1/score: the log-likelihood of continuations."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from phikit.engine.base import ScoreRequest
from phikit.serve import openai_wire, wire
from phikit.serve.answer import Event, Spelled, Task, chat_ids, spelled, task, too_long, with_start
from phikit.serve.asking import keep_alive, leased, messages_of, note_ignored, told
from phikit.serve.http import EVENTS, Streamed, json_response, primed, read, while_connected
from phikit.serve.openai import DONE, event_line, finish_reason, gathered, usage_row
from phikit.serve.pool import Lease
from phikit.serve.refusal import Refusal, bad
from phikit.serve.sampling import OPENAI_DEFAULTS, sampling
from phikit.serve.state import state

MAX_PROMPTS, MAX_CONTINUATIONS, MAX_LOGPROBS = 64, 1024, 20


async def completions(request: Request) -> Any:
    q = await read(request, openai_wire.TextCompletion)
    prompts, options, n = q.prompts(), q.options(), 1 if q.n is None else q.n
    if q.suffix:
        raise bad(f"{q.model} does not support insert", "suffix")
    if q.best_of not in (None, n):
        raise bad("best_of other than n is not offered", "best_of")
    if q.logprobs is not None and not 0 <= q.logprobs <= MAX_LOGPROBS:
        raise bad(f"logprobs must be between 0 and {MAX_LOGPROBS}", "logprobs")
    if len(prompts) > MAX_PROMPTS:
        raise bad(f"{len(prompts)} prompts; {MAX_PROMPTS} are the most", "prompt")
    if options.get("num_predict") is None:
        options["num_predict"] = 16  # OpenAI's default
    head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time()),
            "model": q.model, "system_fingerprint": "fp_phikit"}  # fmt: skip
    alive = keep_alive(q.keep_alive)

    async def events() -> AsyncIterator[Any]:
        """The tasks, then events, of which the samples of all prompts are counted through; an echo is the first of
        each of its samples."""
        async with leased(request, q.model, alive, options) as lease:
            s = sampling(lease.model.parts.parameters, options, OPENAI_DEFAULTS)
            note_ignored(request, s)
            tasks = []
            for prompt in prompts:
                ids = prompt if isinstance(prompt, list) else await with_start(lease, [(prompt, True)])
                tasks.append(task(lease, ids, s, top=q.logprobs, n=n))
            yield tasks
            for p, t in enumerate(tasks):
                if q.echo:
                    echo = await _echo(lease, t, prompts[p])
                    for k in range(n):
                        yield replace(echo, sample=p * n + k)
                async for event in told(request, t):
                    yield replace(event, sample=p * n + event.sample) if p else event

    found = events()
    tasks = await primed(request.receive, found)
    if q.stream:
        usage = q.stream_options is not None and bool(q.stream_options.include_usage)
        return Streamed(_chunks(tasks, found, head, usage, n), EVENTS)
    return json_response(await while_connected(request.receive, _whole(tasks, found, head, n)))


async def score(request: Request) -> Response:
    """Log-likelihood of each continuation after a text (`context`, special tokens in it are tokens) or a conversation
    (`messages`). The numbers are those of `phikit eval` on the same file."""
    q = await read(request, wire.Score)
    if (q.context is None) == (q.messages is None):
        raise bad("give context or messages, one of them", "context")
    if not 1 <= len(q.continuations) <= MAX_CONTINUATIONS or not all(q.continuations):
        raise bad(f"continuations must be 1 to {MAX_CONTINUATIONS} texts that are not empty", "continuations")

    async def work() -> dict[str, Any]:
        async with state(request).pool.lease(q.model, keep_alive=keep_alive(q.keep_alive)) as lease:
            if q.messages is not None:
                form = lease.model.renderer
                context = await chat_ids(lease, form, messages_of(q.messages), (), lease.worker.context)
            else:
                context = await with_start(lease, [(q.context or "", True)])
            ends = [await lease.worker.encode([(c, False)]) for c in q.continuations]
            if (most := len(context) + max(map(len, ends))) > lease.worker.context:
                raise too_long(most, lease.worker.context)
            requests = [ScoreRequest(tuple(context), tuple(e)) for e in ends]
            rows, computed = await lease.worker.score(requests)
            data = []
            for i, (ids, (values, greedy)) in enumerate(zip(ends, rows)):
                row: dict[str, Any] = {
                    "index": i,
                    "logprob": sum(values),
                    "tokens": len(ids),
                    "greedy": all(greedy),
                }
                if q.token_logprobs:
                    names = await lease.worker.spell(ids)
                    row["token_logprobs"] = list(values)
                    row["token_strings"] = [names[x].decode("utf-8", "replace") for x in ids]
                data.append(row)
            facts = lease.model.facts
            kind = f"gguf:{facts.file_type}" if facts.kind == "gguf" else "exact-fp32"
            return {
                "object": "score", "model": q.model, "data": data, "numerics": kind,
                "usage": {"context_tokens": len(context), "computed_tokens": computed},
            }  # fmt: skip

    return json_response(await while_connected(request.receive, work()))


async def _echo(lease: Lease, t: Task, prompt: Any) -> Event:
    """The prompt as an event: its text, and where asked for the log-probabilities of its tokens (the first has
    none)."""
    ids = t.request.prompt
    text = prompt if isinstance(prompt, str) else await lease.worker.decode(ids)
    tokens: tuple[Spelled, ...] = ()
    if t.top is not None:
        [(values, _)] = (
            (await lease.worker.score([ScoreRequest(ids[:1], ids[1:])]))[0] if len(ids) > 1 else [([], [])]
        )
        tokens = await spelled(lease, ids, [float("nan"), *values], [])
    return Event(0, text, tokens)


class _Logprobs:
    """OpenAI's older form of log-probabilities, with offsets into the text."""

    def __init__(self) -> None:
        self.offset = 0

    def row(self, tokens: Sequence[Spelled]) -> dict[str, Any]:
        texts, offsets = [x.text for x in tokens], []
        for text in texts:
            offsets.append(self.offset)
            self.offset += len(text)
        values = [None if x.logprob != x.logprob else x.logprob for x in tokens]
        tops = [
            None if x.logprob != x.logprob else {data.decode("utf-8", "replace"): v for data, v in x.top}
            for x in tokens
        ]
        return {"tokens": texts, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


async def _chunks(
    tasks: list[Task], found: AsyncIterator[Any], head: dict[str, Any], usage: bool, n: int
) -> AsyncIterator[bytes]:
    forms = [_Logprobs() for _ in range(n * len(tasks))]
    try:
        async for event in found:
            k = event.sample
            logprobs = forms[k].row(event.tokens) if event.tokens else None
            if event.text or logprobs or event.finish:
                finish = finish_reason(event) if event.finish else None
                choice = {"index": k, "text": event.text, "logprobs": logprobs, "finish_reason": finish}
                yield event_line({**head, "choices": [choice]})
        if usage:
            yield event_line({**head, "choices": [], "usage": usage_row(*tasks)})
    except Refusal as e:
        yield event_line(e.openai())
    finally:
        await found.aclose()  # type: ignore[attr-defined]
    yield DONE


async def _whole(
    tasks: list[Task], found: AsyncIterator[Any], head: dict[str, Any], n: int
) -> dict[str, Any]:
    choices = [
        {"index": k, "text": said.text, "finish_reason": said.finish,
         "logprobs": None if tasks[0].top is None else _Logprobs().row(said.tokens)}
        for k, said in enumerate(await gathered(found, n * len(tasks)))
    ]  # fmt: skip
    return {**head, "choices": choices, "usage": usage_row(*tasks)}
