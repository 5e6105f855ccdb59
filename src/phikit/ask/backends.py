"""Where a teacher's answers come from: a local engine (batched in threads) or an HTTP endpoint (paced,
retried)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from phikit.ask.budget import Budget, Prices, Reservation
from phikit.ask.grammar import schema_grammar
from phikit.ask.log import Entry, State
from phikit.ask.pace import Breaker, Gate, backoff, jittered
from phikit.ask.stream import stream_chat
from phikit.ask.transport import client
from phikit.engine.base import Engine, GenRequest
from phikit.engine.endpoint import ChatReply, Endpoint, EndpointError, RateLimited, Refused, Unavailable
from phikit.records.types import Completion, Finish, Turn

PENALTIES = ("presence_penalty", "frequency_penalty")
STATES: dict[Finish, State] = {"stop": "ok", "length": "truncated", "refused": "refused", "error": "final"}


@dataclass(frozen=True, slots=True)
class Job:
    """One sample to ask for. The backend calls `keep` (which logs, from any thread) before it returns the
    entry, so that an answer is not lost when whoever waited for it is gone. `going` notes what a paid request
    may cost before it goes out."""

    key: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float
    seed: int
    grammar: str | None
    schema: dict[str, Any] | None
    stop: tuple[str, ...]
    penalties: Mapping[str, float]  # of PENALTIES, those that are not 0
    keep: Callable[[Entry], None]
    going: Callable[[int, int], None]

    def failed(self, state: State, error: str, spent: tuple[int, int] = (0, 0)) -> Entry:
        entry = Entry(self.key, state, "", self.max_tokens, error=error, spent=spent)
        self.keep(entry)
        return entry


def lanes_of(engine: Engine) -> tuple[int, int]:
    """(calls at once, requests of a call) that keep an engine busy. One call at a time for an engine that is not
    thread-safe; llama.cpp's is, and a call for each slot keeps all slots busy."""
    from phikit.engine import vllm_engine
    from phikit.engine.llama import LlamaEngine

    if isinstance(engine, LlamaEngine):
        return engine.parallel, 1
    return 1, vllm_engine.BATCH if isinstance(engine, vllm_engine.VllmEngine) else 32


class EngineBackend:
    """Requests that wait together go to `engine.generate` together: up to `batch` a call, `lanes` calls at
    once (more than one only for an engine that is thread-safe). Every request has its own seed, so how
    requests are grouped decides neither which are asked nor under which key they are logged."""

    def __init__(self, engine: Engine, budget: Budget, *, lanes: int, batch: int) -> None:
        self.engine, self.budget, self.batch = engine, budget, batch
        self.name = engine.info.name
        self._lanes = lanes  # free ones; changed by the loop and by the threads
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None  # of the last request
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="teacher")
        self._pending: deque[tuple[Job, GenRequest, asyncio.Future[Entry]]] = deque()

    async def ask(self, job: Job) -> Entry:
        prompt = tuple(self.engine.render(job.turns))
        context = self.engine.info.context
        if context and len(prompt) + 1 > context:
            return job.failed(
                "final", f"a prompt of {len(prompt)} tokens does not fit the context of {context}"
            )
        request = GenRequest(
            prompt=prompt, max_tokens=job.max_tokens, temperature=job.temperature, seed=job.seed,
            stop=job.stop, stop_ids=self.engine.stop_ids,
            grammar=schema_grammar(job.schema) if job.schema else job.grammar,
            presence_penalty=job.penalties.get("presence_penalty", 0.0),
            frequency_penalty=job.penalties.get("frequency_penalty", 0.0),
        )  # fmt: skip
        reservation = await self.budget.reserve(len(prompt), job.max_tokens)
        self._loop = loop = asyncio.get_running_loop()
        future: asyncio.Future[Entry] = loop.create_future()
        self._pending.append((job, request, future))
        # In the next turn of the loop: whoever asks in this one is in the same batch.
        loop.call_soon(self._pump)
        try:
            entry = await future
        except asyncio.CancelledError:
            reservation.settle(None, None)
            raise
        except BaseException:
            reservation.release()
            raise
        reservation.settle(entry.prompt_tokens, entry.completion_tokens)
        return entry

    async def leave(self) -> None:
        """Forgets what was cancelled before it was sent; what is under way finishes and is logged."""
        self._pending.clear()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        while self._lanes and self._pending:
            group = []
            while self._pending and len(group) < self.batch:
                item = self._pending.popleft()
                if not item[2].done():
                    group.append(item)
            if group:
                with self._lock:
                    self._lanes -= 1
                self._pool.submit(self._work, group, loop)

    def _work(self, group: list[tuple[Job, GenRequest, asyncio.Future[Entry]]], loop: Any) -> None:
        error: BaseException | None = None
        try:
            for index, completions in self.engine.generate([request for _, request, _ in group]):
                job, request, future = group[index]
                entry = _entry(job, request, completions[0])
                job.keep(entry)
                with suppress(RuntimeError):  # the loop is closed: the answer is in the log
                    loop.call_soon_threadsafe(_set, future, entry, None)
        except BaseException as e:
            error = e
        missing = error or RuntimeError(f"{self.name}: the engine ended without an answer to every request")
        with self._lock:
            self._lanes += 1
        with suppress(RuntimeError):
            for _, _, future in group:
                loop.call_soon_threadsafe(_set, future, None, missing)
        # The loop of today, not of this group: a new flow may have begun since, found no free lane and waits.
        if (today := self._loop) is not None:
            with suppress(RuntimeError):
                today.call_soon_threadsafe(self._pump)


def _set(future: asyncio.Future[Entry], entry: Entry | None, error: BaseException | None) -> None:
    if future.done():
        return
    if entry is not None:
        future.set_result(entry)
    elif error is not None:
        future.set_exception(error)


def _entry(job: Job, request: GenRequest, completion: Completion) -> Entry:
    return Entry(
        key=job.key, state=STATES[completion.finish], text=completion.text, max_tokens=job.max_tokens,
        prompt_tokens=len(request.prompt), completion_tokens=len(completion.tokens),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pace:
    """`concurrency`: most requests at once. `attempts`: tries of a request before it has failed; rate limits
    do not count as tries but may take `patience` seconds. `base` and `cap`: seconds between tries. `breaker`:
    final failures in a row that stop everything. `stream`: read answers as they come, and hang up on one that goes
    round in a loop or whose JSON is closed (see `ask.stream`)."""

    concurrency: int = 16
    attempts: int = 6
    patience: float = 600.0
    base: float = 0.5
    cap: float = 30.0
    breaker: int = 10
    stream: bool = False


class HttpBackend:
    """An OpenAI-compatible chat endpoint. A request reserves the bytes of its prompt as the bound of its
    tokens."""

    def __init__(self, endpoint: Endpoint, budget: Budget, pace: Pace, prices: Prices | None = None) -> None:
        self.endpoint, self.budget, self.pace, self.prices = endpoint, budget, pace, prices
        self.name = f"{endpoint.url}#{endpoint.model}"
        self.gate = Gate(pace.concurrency)
        self.breaker = Breaker(pace.breaker, self.name)
        self.retries = 0
        self._client: httpx.AsyncClient | None = None  # of one event loop: see `leave`

    async def ask(self, job: Job) -> Entry:
        if job.grammar:
            raise ValueError(f"{self.name}: an endpoint takes no GBNF grammar; give a schema")
        options: dict[str, Any] = {
            "max_tokens": job.max_tokens, "temperature": job.temperature, "seed": job.seed & 0x7FFFFFFF,
        }  # fmt: skip
        options |= job.penalties
        if job.stop:
            options["stop"] = list(job.stop)
        if job.schema:
            form = {"name": "reply", "schema": job.schema}
            options["response_format"] = {"type": "json_schema", "json_schema": form}
        tries, waited, bill = 0, 0.0, [0, 0]
        while True:
            try:
                reply = await self._try(job, options, bill, again=tries > 0 or waited > 0)
            except Refused as e:
                if e.configuration:
                    raise
                self.breaker.failure(str(e))
                return job.failed("final", str(e), (bill[0], bill[1]))
            except RateLimited as e:
                delay = (
                    jittered(e.retry_after) if e.retry_after else backoff(1, self.pace.base, self.pace.cap)
                )
                waited += delay
                if waited > self.pace.patience:
                    return self._gave_up(job, e, bill)
            except EndpointError as e:
                tries += 1
                if tries >= self.pace.attempts:
                    return self._gave_up(job, e, bill)
                after = e.retry_after if isinstance(e, Unavailable) else None
                delay = max(
                    backoff(tries, self.pace.base, self.pace.cap),
                    min(jittered(after or 0), self.pace.patience),
                )
            else:
                self.breaker.success()
                entry = Entry(
                    key=job.key, state=STATES[reply.finish], text=reply.text, max_tokens=job.max_tokens,
                    prompt_tokens=reply.prompt_tokens or 0, completion_tokens=reply.completion_tokens or 0,
                    error=reply.cut, spent=(bill[0], bill[1]),
                )  # fmt: skip
                job.keep(entry)
                return entry
            self.retries += 1
            await asyncio.sleep(delay)

    async def leave(self) -> None:
        http, self._client = self._client, None
        if http is not None:
            await http.aclose()

    def close(self) -> None:
        return None

    def _gave_up(self, job: Job, error: EndpointError, bill: Sequence[int]) -> Entry:
        self.breaker.failure(str(error))
        return job.failed("retryable", str(error), (bill[0], bill[1]))

    async def _try(self, job: Job, options: dict[str, Any], bill: list[int], *, again: bool) -> ChatReply:
        """One attempt: budget, then a place (`again`: before others), then the request. The reservation is
        closed on every path, and what it cost is added to `bill`."""
        self.breaker.check()
        reservation = await self.budget.reserve(prompt_bound(job.turns), job.max_tokens, self.prices)
        try:
            generation = await self.gate.enter(first=again)
        except BaseException:
            reservation.release()
            raise
        try:
            self.breaker.check()
            job.going(bill[0] + reservation.prompt, bill[1] + reservation.completion)
            return await self._send(job, options, reservation, generation)
        finally:
            self.gate.leave()
            reservation.release()  # does nothing when it was settled
            bill[0] += reservation.used[0]
            bill[1] += reservation.used[1]

    async def _send(
        self, job: Job, options: dict[str, Any], reservation: Reservation, generation: int
    ) -> ChatReply:
        if self._client is None:
            self._client = client(self.endpoint.url, self.endpoint.timeout, self.pace.concurrency)
        begin = time.monotonic()
        try:
            if self.pace.stream:
                reply = await stream_chat(
                    self.endpoint, self._client, job.turns, options, job.key, bool(job.schema)
                )
            else:
                reply = await self.endpoint.chat(self._client, job.turns, options, job.key)
        except EndpointError as e:
            if isinstance(e, RateLimited) or (isinstance(e, Unavailable) and e.timeout):
                self.gate.overload(generation)
            if e.billed:
                reservation.settle(None, None)
            raise
        except asyncio.CancelledError:
            reservation.settle(None, None)  # it was sent: somebody pays for it
            raise
        reservation.settle(reply.prompt_tokens, reply.completion_tokens)
        self.gate.success(time.monotonic() - begin, reply.completion_tokens or 1)
        return reply


def prompt_bound(turns: Sequence[Turn]) -> int:
    """More tokens than any byte-level tokenizer makes of a conversation: its bytes and 16 for each header."""
    return sum(len(t.content.encode()) + 16 for t in turns) + 16
