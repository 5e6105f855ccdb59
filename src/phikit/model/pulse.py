"""Who is missing, when ranks that train together lose one another.

A collective that fails says that a connection broke or that time ran out, not whose fault it was. So each rank counts
up in the store at which the ranks met, from a thread of its own: one whose count stands still is gone or hangs as a
whole, and one that ended by an error of its own has written it there.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

EVERY = 1.0  # seconds from one count to the next
MISSED = 4  # counts that a rank may be late
PATIENCE = timedelta(seconds=10)  # with the store
ENDED, LEFT = "!", "?"  # by an error of its own; since another is missing


class RankLost(RuntimeError):
    """Other ranks do not answer; names them. The same command goes on from the newest checkpoint."""


class Pulse:
    """`at` is what this rank does: others read it where nobody is missing."""

    def __init__(self) -> None:
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        # A connection of its own: an operation that waits on the other one must not stop the counting.
        store = dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
        store.set_timeout(PATIENCE)
        self._store = dist.PrefixStore("pulse", store)  # type: ignore[attr-defined]
        self._place = f"{socket.gethostname()}, process {os.getpid()}"
        self._count, self.at, self._words = 0, "start", ""
        self._over = threading.Event()
        self._say()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()
        atexit.register(self.end)  # no thread may be in the store while the interpreter ends

    def _run(self) -> None:
        with suppress(RuntimeError):  # the store's host is gone: collectives fail as well, and say so
            while not self._over.wait(EVERY):
                self._count += 1
                self._say()

    def _say(self, words: str | None = None) -> None:
        """Count, place and doing; `words`: why this rank ends."""
        if words is not None:
            self._words = words.replace("\n", " ")[:2000]
        self._store.set(str(self.rank), "\n".join((str(self._count), self._place, self.at, self._words)))

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        atexit.unregister(self.end)

    def _read(self) -> list[list[str]]:
        """Count, place, doing and last words of each rank."""
        keys = [str(r) for r in range(self.ranks)]
        if self._store.check(keys):
            return [v.decode().split("\n") for v in self._store.multi_get(keys)]
        empty = ["", "not started", "", ""]
        return [self._store.get(k).decode().split("\n") if self._store.check([k]) else empty for k in keys]

    def missing(self) -> str:
        """Which ranks are gone or late, in words; takes some seconds. Empty: none is."""
        try:
            before = self._read()
            time.sleep(MISSED * EVERY)
            now = self._read()
        except RuntimeError:
            host = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
            return f"rank 0: the store at {host} does not answer"
        gone, left, behind = [], [], []
        for rank, (old, (count, place, at, words)) in enumerate(zip(before, now)):
            who = f"rank {rank} ({place})"
            if rank == self.rank:
                continue
            if words.startswith(ENDED):
                gone.append(f"{who} ended: {words[1:]}")
            elif words.startswith(LEFT):
                left.append(words[1:])
            elif old[0] == count:
                gone.append(f"{who} does not answer")
            elif at != self.at:
                behind.append(f"{who} is at {at}")
        return "; ".join(gone or left[:1] or behind)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Raises RankLost in place of the error of a collective that failed for want of a rank."""
        self._say("")
        try:
            yield
        except Exception as e:
            if not _of_a_collective(e):
                self._say(f"{ENDED}{type(e).__name__}: {e}")
                raise
            found = self.missing() or f"a collective failed, but no rank is missing: {e}"
            with suppress(RuntimeError):
                self._say(LEFT + found)
            raise RankLost(f"{self.at}: {found}") from e


def _of_a_collective(e: Exception) -> bool:
    """gloo's errors have no class of their own; those of a checkpoint's writer are wrapped."""
    text = str(e).lower()
    return isinstance(e, dist.DistError) or any(name in text for name in ("gloo", "nccl"))
