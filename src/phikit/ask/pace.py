"""How fast to ask an endpoint: an adaptive limit (AIMD), waits between attempts, and a circuit breaker."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import deque

START = 16  # requests at once before anything is known of an endpoint


class Gate:
    """At most `limit` requests at once. The limit doubles with each run of `limit` successes until the first
    overload, then grows by one a run; it is halved on overload, once for all requests that were under way
    together. An overload is what the endpoint says (429, time-out), or what `Load` sees."""

    def __init__(self, most: int, start: int = START) -> None:
        self.most = most
        self.limit = max(1, min(start, most))
        self.under_way = 0
        self.generation = 0  # how often the limit was halved
        self.load = Load()
        self._successes = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    async def enter(self, *, first: bool = False) -> int:
        """Waits for a place; returns the generation to hand to `overload`. `first`: before all who wait, for
        what was begun already, so that a dead endpoint is noticed before every row was tried once."""
        while self.under_way >= self.limit:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            (self._queue.appendleft if first else self._queue.append)(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # the place this one was woken for goes to the next
                raise
        self.under_way += 1
        return self.generation

    def leave(self) -> None:
        self.under_way -= 1
        self._wake()

    def success(self, seconds: float = 0.0, tokens: int = 1) -> None:
        """`seconds`: how long the request took; `tokens` it gave."""
        if self.load.overloaded(seconds, tokens, self.limit):
            self.overload(self.generation)
            return
        if self.generation == 0 and self.limit < self.most:
            self.limit += 1
            self._wake()
            return
        self._successes += 1
        if self._successes >= self.limit and self.limit < self.most:
            self.limit += 1
            self._successes = 0
            self._wake()

    def overload(self, generation: int) -> None:
        self._successes = 0
        if generation == self.generation:
            self.limit = max(1, self.limit // 2)
            self.generation += 1

    def _wake(self) -> None:
        free = self.limit - self.under_way
        while free > 0 and self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1


class Load:
    """Sees an endpoint that queues instead of saying 429: over a window of requests both of these hold, the time a
    request takes is `SLOWER` times the best seen, and the tokens a second are below `WORSE` of the best seen. Either
    alone is no overload: a batching server is slower at each request and faster in all."""

    SLOWER, WORSE = 3.0, 0.8

    def __init__(self) -> None:
        self._window: list[tuple[float, int]] = []
        self._begin = time.monotonic()
        self._latency = float("inf")  # best median of a window
        self._rate = 0.0  # best tokens a second of a window

    def overloaded(self, seconds: float, tokens: int, limit: int) -> bool:
        self._window.append((seconds, tokens))
        if len(self._window) < max(16, 2 * limit):
            return False
        now = time.monotonic()
        latency = statistics.median(s for s, _ in self._window)
        rate = sum(t for _, t in self._window) / max(now - self._begin, 1e-9)
        self._window, self._begin = [], now
        slow = latency > self.SLOWER * self._latency and rate < self.WORSE * self._rate
        # The best fades: prompts and endpoints change over a long run.
        self._latency, self._rate = min(latency, self._latency * 1.05), max(rate, self._rate * 0.95)
        return slow and limit > 1


def jittered(seconds: float) -> float:
    """What an endpoint told many to wait at once: a little later each, never earlier."""
    return seconds * random.uniform(1.0, 1.25)


def backoff(attempt: int, base: float, cap: float) -> float:
    """Seconds before attempt number `attempt` (1, 2, ...): exponential with jitter, so that many do not
    return at the same moment."""
    return min(cap, base * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)


class EndpointDown(RuntimeError):
    """Too many requests in a row failed for good; the message holds the last error."""


class Breaker:
    """Opens after `limit` final failures without a success between them; then every request fails at once."""

    def __init__(self, limit: int, name: str) -> None:
        self.limit, self.name = limit, name
        self.failures = 0
        self.last = ""

    def success(self) -> None:
        self.failures = 0

    def failure(self, error: str) -> None:
        self.failures += 1
        self.last = error

    def check(self) -> None:
        if self.failures >= self.limit:
            raise EndpointDown(
                f"{self.name}: {self.failures} requests in a row failed for good; the last: {self.last}. "
                "Mend the endpoint and run again: what was answered is replayed for free"
            )
