"""The teacher client: what synthesis flows, judges and the quality classifier ask.

with open_teacher("smollm2", log=Path("runs/nano/synth/requests"), budget=Budget(tokens=50_000)) as teacher:
    answers = teacher.run(teacher.chat(turns(("user", "Name a tree.")), n=4))
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from phikit.ask.backends import PENALTIES, EngineBackend, HttpBackend, Job, Pace, lanes_of
from phikit.ask.budget import Budget, Prices
from phikit.ask.log import Entry, RequestLog, State, request_key
from phikit.engine.base import Engine
from phikit.engine.endpoint import KEY_VARIABLE, Endpoint
from phikit.jobs.run import LOCAL
from phikit.records.ids import seed_of
from phikit.records.types import Finish, Turn

T = TypeVar("T")
_FINISH: dict[State, Finish] = {
    "ok": "stop", "truncated": "length", "refused": "refused", "retryable": "error", "final": "error",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """`finish`: stop | length (cut) | refused | error (`error` says why, text is empty). `key` finds the
    request in the log. `replayed`: it was in the log and cost nothing."""

    text: str
    finish: Finish
    key: str
    replayed: bool
    error: str = ""


class Teacher:
    """Answers from a local engine or an endpoint, each logged before it is returned.

    The log key is the model's identity, the exact payload and the sample index. So a second run is free, a
    higher `n` asks only the new samples, and a higher `max_tokens` asks again only what was cut. A failed row
    gives an answer with finish "error"; what stops everything is raised: BudgetExhausted, EndpointDown,
    EngineCrashed, Refused (wrong key, address or model), ValueError (a bad grammar).

    `lanes` and `batch` are for engines: see EngineBackend. `prices` are those of this teacher where the budget is
    shared. `whole`: the budget is that of the log, so what earlier runs spent counts. The teacher owns the log, the
    caller the engine."""

    def __init__(
        self,
        source: Engine | Endpoint,
        log: Path,
        *,
        budget: Budget | None = None,
        pace: Pace | None = None,
        prices: Prices | None = None,
        whole: bool = False,
        lanes: int = 1,
        batch: int = 32,
    ) -> None:
        self.budget = budget or Budget()
        if isinstance(source, Endpoint):
            self.backend: EngineBackend | HttpBackend = HttpBackend(
                source, self.budget, pace or Pace(), prices
            )
        else:
            self.backend = EngineBackend(source, self.budget, lanes=lanes, batch=batch)
        self.log = RequestLog(log)
        if whole:
            self.budget.charge(*self.log.spent(), prices)
        self._asking: dict[str, asyncio.Task[Entry]] = {}
        self._counts: dict[str, int] = dict.fromkeys(
            ("asked", "replayed", "truncated", "refused", "failed"), 0
        )
        self.engines = 1  # that answer at once
        self._owned: Engine | None = None

    @property
    def model(self) -> str:
        """The identity of the model in log keys: a GGUF's name and content fingerprint, or url#model."""
        return self.backend.name

    @property
    def holds(self) -> bool:
        """Whether answers can be held to a GBNF grammar. An endpoint takes a JSON schema only."""
        return isinstance(self.backend, EngineBackend)

    def role(self, name: str) -> Teacher:
        """This teacher plays every role (see `ask.cast`)."""
        return self

    async def chat(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int = 128,
        temperature: float = 0.7,
        n: int = 1,
        seed: int = 0,
        grammar: str | None = None,
        schema: Mapping[str, Any] | None = None,
        stop: Sequence[str] = (),
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
    ) -> list[Answer]:
        """n answers to a conversation, in sample order. `schema` (see `ask.structured`) binds the output to
        JSON where the backend can; read the text with `structured.read_json` all the same. The penalties are those of
        the OpenAI API; local engines count the last 64 tokens, prompt included."""
        if grammar and schema:
            raise ValueError("chat: give a grammar or a schema, not both")
        payload = {
            "turns": [[t.role, t.content] for t in turns], "temperature": temperature, "seed": seed,
            "grammar": grammar, "schema": dict(schema) if schema else None, "stop": list(stop),
        }  # fmt: skip
        penalties = zip(PENALTIES, (presence_penalty, frequency_penalty))
        payload |= {k: v for k, v in penalties if v}  # a request without them has the key it always had
        samples = [self._sample(payload, tuple(turns), k, max_tokens) for k in range(n)]
        if n == 1:
            return [await samples[0]]
        tasks = [asyncio.ensure_future(s) for s in samples]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def run(self, flow: Coroutine[Any, Any, T]) -> T:
        """Runs an async flow to its end from ordinary code, and closes connections after it."""
        return run_and_leave(flow, self)

    async def leave(self) -> None:
        """Call before the event loop ends, unless `run` is used. What was answered is on disk when this returns."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.backend.leave()
        await asyncio.to_thread(self.log.flush)

    def counts(self) -> dict[str, float]:
        """Requests asked, replayed, truncated, refused, failed; tokens (and money) spent by this teacher."""
        spent: dict[str, float] = {**self._counts, "tokens": self.budget.tokens}
        if isinstance(self.backend, HttpBackend):
            spent["retries"] = self.backend.retries
        if self.budget.money:
            spent["money"] = round(self.budget.money, 6)
        return spent

    def close(self) -> None:
        self.backend.close()
        if self._owned is not None:
            self._owned.close()
        self.log.close()

    def __enter__(self) -> Teacher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _sample(
        self, payload: dict[str, Any], turns: tuple[Turn, ...], sample: int, max_tokens: int
    ) -> Answer:
        key = request_key(self.model, payload, sample)
        while True:
            entry = self.log.get(key)
            if entry is not None and entry.answers(max_tokens):
                self._counts["replayed"] += 1
                return self._answer(entry, replayed=True)
            if (other := self._asking.get(key)) is None:
                break
            await asyncio.wait([other])  # the same request is under way: look again when it is done
        job = Job(
            key=key, turns=turns, max_tokens=max_tokens, temperature=payload["temperature"],
            seed=seed_of(payload["seed"], sample), grammar=payload["grammar"], schema=payload["schema"],
            stop=tuple(payload["stop"]),
            penalties={k: payload[k] for k in PENALTIES if k in payload},
            keep=lambda e: self.log.append(e, self.model, payload, sample),
            going=lambda prompt, completion: self.log.asking(key, prompt, completion),
        )  # fmt: skip
        task = asyncio.ensure_future(self.backend.ask(job))
        self._asking[key] = task
        try:
            entry = await task
        finally:
            if self._asking.get(key) is task:
                del self._asking[key]
        self._counts["asked"] += 1
        return self._answer(entry, replayed=False)

    def _answer(self, entry: Entry, *, replayed: bool) -> Answer:
        name = {"truncated": "truncated", "refused": "refused", "retryable": "failed", "final": "failed"}
        if entry.state in name:
            self._counts[name[entry.state]] += 1
        return Answer(entry.text, _FINISH[entry.state], entry.key, replayed, entry.error)


def run_and_leave(flow: Coroutine[Any, Any, T], *teachers: Teacher) -> T:
    """Runs an async flow to its end; then the teachers leave the event loop."""

    async def main() -> T:
        try:
            return await flow
        finally:
            await asyncio.gather(*(t.leave() for t in teachers))

    return asyncio.run(main())


def open_teacher(
    spec: str,
    *,
    log: Path,
    budget: Budget | None = None,
    pace: Pace | None = None,
    prices: Prices | None = None,
    whole: bool = False,
    role: str = "",
    parallel: int = 4,
    context: int | None = None,
    threads: int | None = None,
    on: str = LOCAL,
    replicas: int = 0,
    gpus: int = 1,
) -> Teacher:
    """The teacher of "smollm2", a .gguf, a checkpoint folder, "vllm:FOLDER" or "http(s)://host/v1#model". `parallel`
    and `threads` are for GGUF, `context` for GGUF and vLLM; `gpus` share an engine of vLLM. `on`: `local`, or where on
    Ray engines run, `replicas` of them (see `ask.fleet`); an endpoint runs where it runs. Its key is read from
    PHIKIT_API_KEY_<ROLE> where that is set, else PHIKIT_API_KEY. Closing it closes the engine too."""
    if spec.startswith(("http://", "https://")):
        endpoint = Endpoint.from_spec(spec)
        if role and (own := f"{KEY_VARIABLE}_{role.upper()}") in os.environ:
            endpoint = replace(endpoint, key_variable=own)
        return Teacher(endpoint, log, budget=budget, pace=pace, prices=prices, whole=whole)
    if on != LOCAL:
        from phikit.ask.fleet import Fleet

        fleet = Fleet(
            spec, on, replicas=replicas, parallel=parallel, context=context, threads=threads, gpus=gpus
        )
        teacher = Teacher(fleet, log, budget=budget, whole=whole, lanes=fleet.lanes, batch=fleet.batch)
        teacher.engines, teacher._owned = fleet.replicas, fleet
        return teacher
    from phikit.engine.open import open_engine

    engine = open_engine(spec, parallel=parallel, context=context, threads=threads, gpus=gpus)
    lanes, batch = lanes_of(engine)
    teacher = Teacher(engine, log, budget=budget, whole=whole, lanes=lanes, batch=batch)
    teacher._owned = engine
    return teacher
