"""A loaded model: a child process of its own, asked from the event loop.

The process speaks `engine.wire`: llama.cpp for a GGUF, TorchEngine for a folder of safetensors. Ending it gives
the memory back for sure; its crash is an error of the requests under way, nothing more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from phikit.engine import wire
from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.child import Child, EngineCrashed
from phikit.serve.facts import Facts
from phikit.serve.refusal import Refusal, bad

CHARACTERS = 256  # of text that a token can stand for; the longest of common vocabularies are runs of spaces
_LARGE = 1 << 14  # bytes of a request that go into a pipe without waiting


class _Inbox:
    """Replies of the child's reader thread, taken on the event loop: one wake-up for however many have come."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.replies: deque[wire.Reply] = deque()
        self.event = asyncio.Event()
        self.woken = False

    def put(self, reply: wire.Reply) -> None:
        self.replies.append(reply)
        if not self.woken:
            self.woken = True
            try:
                self.loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the loop has ended: nobody waits any more
                return

    def _wake(self) -> None:
        self.woken = False
        self.event.set()

    async def get(self) -> wire.Reply:
        while not self.replies:
            self.event.clear()
            if self.replies:
                break
            await self.event.wait()
        return self.replies.popleft()


class Worker:
    """Made by `start`. `context` tokens for each of `parallel` samples. What is asked of it raises a Refusal where the
    engine refuses or fails, EngineCrashed where its process has ended."""

    def __init__(self, facts: Facts, context: int, parallel: int, child: Child) -> None:
        self.facts, self.context, self.parallel, self.child = facts, context, parallel, child
        self._spelled: dict[int, bytes] = {i: text.encode() for text, i in facts.specials.items()}

    @classmethod
    async def start(cls, facts: Facts, context: int, parallel: int, threads: int) -> Worker:
        """Loads the model. Raises ValueError with what the engine said."""
        program = "llama_worker" if facts.kind == "gguf" else "torch_worker"
        child = await asyncio.to_thread(Child, facts.path, context, parallel, threads, program)
        return cls(facts, context, parallel, child)

    @property
    def is_alive(self) -> bool:
        return self.child.dead is None

    @property
    def pid(self) -> int:
        return self.child.process.pid

    async def generate(self, request: GenRequest) -> AsyncIterator[wire.Token | wire.Done]:
        """Every token of every sample as it comes, a Done for each sample at its end. Closing the iterator stops the
        work."""
        inbox = _Inbox()
        [number] = await self._send(lambda i: wire.Generate(i, request, True), inbox, 5 * len(request.prompt))
        left = request.n
        try:
            while left:
                reply = await inbox.get()
                self._check(reply)
                if isinstance(reply, wire.Done):
                    left -= 1
                    if not left:
                        self.child.forget([number])
                        number = 0
                assert isinstance(reply, wire.Token | wire.Done)
                yield reply
        finally:
            if number:
                self.child.cancel([number])

    async def score(
        self, requests: Sequence[ScoreRequest]
    ) -> tuple[list[tuple[list[float], list[bool]]], int]:
        """For each request the log-probability of each token and whether it was the arg-max; tokens computed."""
        size = 5 * sum(len(r.context) + len(r.continuation) for r in requests)
        value = await self._ask(lambda i: wire.Scoring(i, list(requests)), size)
        return [(list(values), list(greedy)) for values, greedy in value.value], value.prefilled

    async def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """Vectors of length 1, and tokens computed."""
        value = await self._ask(lambda i: wire.Embed(i, list(texts)), sum(map(len, texts)), "input")
        return value.value, value.prefilled

    async def encode(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of all parts; in a part with True special-token strings are tokens. Raises a Refusal for a text so long
        that no tokens could be few enough: it is not worth the time to count them."""
        size = sum(len(text) for text, _ in parts)
        if size > CHARACTERS * self.context:
            raise Refusal(
                400, f"the prompt has {size:,} characters, more than the context of {self.context} tokens can hold",
                code="context_length_exceeded",
            )  # fmt: skip
        return (await self._ask(lambda i: wire.Encode(i, list(parts)), size)).value if parts else []

    async def decode(self, ids: Sequence[int]) -> str:
        return (await self._ask(lambda i: wire.Decode(i, list(ids)))).value

    async def spell(self, ids: Sequence[int]) -> dict[int, bytes]:
        """The bytes of tokens, which may be parts of characters; special tokens are their names."""
        if unknown := [i for i in set(ids) if i not in self._spelled]:
            value = (await self._ask(lambda i: wire.Spell(i, unknown))).value
            self._spelled.update(zip(unknown, value))
        return {i: self._spelled[i] for i in ids}

    async def stop(self) -> None:
        await asyncio.to_thread(self.child.close)

    async def _ask(
        self, make: Callable[[int], wire.Request], size: int = 0, param: str | None = None
    ) -> wire.Value:
        inbox = _Inbox()
        [number] = await self._send(make, inbox, size)
        try:
            reply = await inbox.get()
        except asyncio.CancelledError:
            self.child.cancel([number])
            raise
        self._check(reply, param)
        assert isinstance(reply, wire.Value)
        return reply

    def _check(self, reply: wire.Reply, param: str | None = None) -> None:
        try:
            self.child.check(reply)
        except ValueError as e:
            raise bad(str(e), param) from e
        except EngineCrashed:
            raise  # the lease tells of it
        except RuntimeError as e:
            raise Refusal(500, str(e)) from e

    async def _send(self, make: Callable[[int], wire.Request], inbox: Any, size: int) -> list[int]:
        """A large request is written by a thread: the pipe may have to wait for the process to read."""
        if size < _LARGE:
            return self.child.send([make], inbox)
        return await asyncio.to_thread(self.child.send, [make], inbox)
