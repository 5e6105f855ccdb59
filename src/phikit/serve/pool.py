"""The models in memory: loaded when asked for, unloaded when not, one worker process for each.

A request takes a `Lease` of its model for as long as it computes. A model that nobody leases is unloaded after its
`keep_alive`, or before where another needs its place (the one unused for longest first). Of all requests together
`max_queue` may be under way or wait; one more is refused with 503.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from phikit.engine.child import EngineCrashed
from phikit.serve import machine
from phikit.serve.durations import FOREVER
from phikit.serve.facts import Facts, facts
from phikit.serve.prompt import Renderer, renderer
from phikit.serve.refusal import Refusal, bad, no_model
from phikit.serve.sampling import context_of
from phikit.serve.settings import Settings
from phikit.serve.worker import Worker
from phikit.store.names import BadName
from phikit.store.store import Entry, ModelNotFound, Parts, Store

DEFAULT_CONTEXT = 4096


@dataclass(eq=False)
class Loaded:
    """A model in memory. `expires` on the clock of `time.monotonic`."""

    entry: Entry
    parts: Parts
    facts: Facts
    renderer: Renderer
    worker: Worker
    size: int
    users: int = 0
    used: float = field(default_factory=time.monotonic)
    keep_alive: float = 300.0
    expires: float = FOREVER
    timer: asyncio.TimerHandle | None = None
    closing: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """What a request has of its model. `load_ns`: how long it waited for the model."""

    model: Loaded
    load_ns: int

    @property
    def worker(self) -> Worker:
        return self.model.worker


class Pool:
    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        # By digest: names of the same manifest share one process.
        self.loaded: dict[str, Loaded] = {}
        self.under_way = 0
        self.crashes = 0
        self._change = asyncio.Condition()  # of `loaded` and `users`
        self._loading = asyncio.Lock()  # one model at a time
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_closed = False

    def entry(self, name: str) -> Entry:
        """The stored model of a request. Raises a Refusal."""
        try:
            return self.store.find(name)
        except ModelNotFound as e:
            raise no_model(name) from e
        except BadName as e:
            raise bad(str(e), "model") from e
        except ValueError as e:
            raise Refusal(500, str(e)) from e

    @asynccontextmanager
    async def lease(
        self, name: str, *, keep_alive: float | None = None, context: int = 0
    ) -> AsyncIterator[Lease]:
        """The model, loaded with room for `context` tokens at least (0: as set). Raises a Refusal: no such model,
        queue full, not enough memory, a file that cannot be loaded."""
        if self.under_way >= self.settings.max_queue or self.is_closed:
            raise Refusal(
                503, "server busy, please try again. maximum pending requests exceeded", code="busy"
            )
        self.under_way += 1
        begin = time.monotonic_ns()
        try:
            model = await self._take(self.entry(name), context)
            keep = self.settings.keep_alive if keep_alive is None else keep_alive
            model.keep_alive = keep
            try:
                yield Lease(model, time.monotonic_ns() - begin)
            except EngineCrashed as e:
                self.crashes += 1
                raise Refusal(
                    500, f"the model's process ended: {e}; the next request starts it again", code="crashed"
                ) from e
            finally:
                await asyncio.shield(self._give_back(model))
        finally:
            self.under_way -= 1

    async def unload(self, name: str) -> None:
        """Unloads a model as soon as its last request has ended."""
        entry = self.entry(name)
        if (model := self.loaded.get(entry.digest)) is not None:
            model.keep_alive = 0.0
            if not model.users:
                await self._close(model)

    async def forget(self, entry: Entry) -> None:
        """A model of the store was replaced or removed: what is loaded of it ends with its last request."""
        if (model := self.loaded.pop(entry.digest, None)) is not None:
            model.closing = True
            if not model.users:
                await model.worker.stop()

    async def close(self) -> None:
        """Ends every worker."""
        self.is_closed = True
        models = list(self.loaded.values())
        self.loaded.clear()
        for model in models:
            if model.timer:
                model.timer.cancel()
        await asyncio.gather(*(m.worker.stop() for m in models))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, entry: Entry, context: int) -> Loaded:
        while (model := self._ready(entry.digest, context)) is None:
            # In a task of its own: a client that goes while the model is loading must not leave half of it behind.
            task = asyncio.ensure_future(self._bring(entry, context))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            await asyncio.shield(task)
        model.users += 1
        model.used = time.monotonic()
        if model.timer:
            model.timer.cancel()
            model.timer = None
        return model

    def _ready(self, digest: str, context: int) -> Loaded | None:
        model = self.loaded.get(digest)
        if model is None or model.closing or not model.worker.is_alive or context > model.worker.context:
            return None
        return model

    async def _bring(self, entry: Entry, context: int) -> None:
        """Loads the model, in place of one that ended or that has too little context."""
        async with self._loading:
            if self._ready(entry.digest, context) is not None:
                return
            if (old := self.loaded.get(entry.digest)) is not None:
                old.closing = True  # no new users
                if old.worker.is_alive:
                    await self._until(lambda: old.users == 0)
                await self._close(old)
            self._rest(await self._load(entry, context))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it

    async def _give_back(self, model: Loaded) -> None:
        model.users -= 1
        model.used = time.monotonic()
        if not model.users:
            if model.closing or model.keep_alive <= 0 or not model.worker.is_alive:
                await self._close(model)
            else:
                self._rest(model)
        async with self._change:
            self._change.notify_all()

    def _rest(self, model: Loaded) -> None:
        """Nobody uses the model: from now on its keep_alive runs."""
        model.expires = time.monotonic() + model.keep_alive
        if model.keep_alive != FOREVER:
            loop = asyncio.get_running_loop()
            model.timer = loop.call_later(min(model.keep_alive, 1e8), self._expire, model)

    def _expire(self, model: Loaded) -> None:
        if not model.users and self.loaded.get(model.entry.digest) is model:
            del self.loaded[model.entry.digest]  # at once: a request that comes now loads it anew
            task = asyncio.ensure_future(self._close(model))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _close(self, model: Loaded) -> None:
        if self.loaded.get(model.entry.digest) is model:
            del self.loaded[model.entry.digest]
        if model.timer:
            model.timer.cancel()
        await model.worker.stop()
        async with self._change:
            self._change.notify_all()

    async def _until(self, condition: Callable[[], bool]) -> None:
        try:
            async with self._change, asyncio.timeout(self.settings.request_time):
                await self._change.wait_for(condition)
        except TimeoutError as e:
            raise Refusal(503, "server busy: every model in memory is in use", code="busy") from e

    async def _load(self, entry: Entry, context: int) -> Loaded:
        try:
            parts = await asyncio.to_thread(self.store.runnable, entry)
            known = await asyncio.to_thread(facts, parts.weights)
        except (ValueError, OSError) as e:
            raise Refusal(500, f"unable to load model: {e}") from e
        own = await asyncio.to_thread(renderer, known, parts)
        wanted = context or context_of(parts.parameters) or self.settings.context or DEFAULT_CONTEXT
        if context > known.context:
            raise bad(
                f"num_ctx {context} is more than the model's own context of {known.context} tokens", "num_ctx"
            )
        size = min(wanted, known.context) if known.kind == "gguf" else known.context
        parallel = 1 if known.embedding_only else self.settings.parallel
        while len(self.loaded) >= self.settings.max_loaded:
            await self._make_room()
        parallel, need = await self._fit(entry, known, size, parallel)
        threads = self.settings.threads or machine.cores()
        try:
            worker = await Worker.start(known, size, parallel, threads)
        except (ValueError, OSError, EngineCrashed) as e:
            raise Refusal(500, f"unable to load model: {e}") from e
        if self.is_closed:
            await worker.stop()
            raise Refusal(503, "the server is shutting down", code="busy")
        keep = self.settings.keep_alive or 1.0  # until its first request takes it
        model = Loaded(entry, parts, known, own, worker, need, keep_alive=keep)
        self.loaded[entry.digest] = model
        return model

    async def _fit(self, entry: Entry, known: Facts, context: int, parallel: int) -> tuple[int, int]:
        """(slots, bytes) that fit the memory; others are unloaded for it, and slots given up. Raises a Refusal."""
        while True:
            need, (total, free) = machine.needs(known, context, parallel), machine.memory()
            if not total or need <= free:
                return parallel, need
            if any(not m.users for m in self.loaded.values()):
                await self._make_room()
            elif parallel > 1:
                parallel //= 2
            else:
                raise Refusal(
                    500, f"model requires more system memory ({machine.show(need)}) than is available "
                    f"({machine.show(free)}): {entry.name} with {context} tokens of context"
                )  # fmt: skip

    async def _make_room(self) -> None:
        """Unloads the model that was unused for longest, waiting for one where all are in use."""
        await self._until(lambda: any(not m.users for m in self.loaded.values()) or not self.loaded)
        idle = [m for m in self.loaded.values() if not m.users]
        if idle:
            await self._close(min(idle, key=lambda m: m.used))
