"""A pool of processes of which it is known what each one does: a worker that dies costs its task one try, no more.

The pool of the standard library breaks as a whole when a worker is killed, and cannot say which task did it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from phikit.jobs.plan import Task
from phikit.jobs.task import RETRYABLE, Outcome, attempt, one_core

# spawn: a forked child of a process that holds torch's thread pools may hang.
_SPAWN = multiprocessing.get_context("spawn")


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    task: Task | None = None


class Pool:
    """Up to `size` processes; a dead one is replaced when there is a task for it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.workers: list[_Worker] = []

    def free(self) -> bool:
        return len(self.workers) < self.size or any(w.task is None for w in self.workers)

    def give(self, task: Task) -> None:
        worker = next((w for w in self.workers if w.task is None), None) or self._start()
        worker.task = task
        with contextlib.suppress(OSError):  # it died idle; `take` finds its end of the pipe closed
            worker.pipe.send(task)

    def take(self, timeout: float | None) -> list[tuple[Task, Outcome]]:
        busy = [w for w in self.workers if w.task is not None]
        ready = wait([w.pipe for w in busy], timeout)
        ended: list[tuple[Task, Outcome]] = []
        for worker in (w for w in busy if w.pipe in ready):
            task, worker.task = worker.task, None
            assert task is not None
            try:
                ended.append((task, worker.pipe.recv()))
            except (EOFError, OSError):
                self.workers.remove(worker)
                ended.append((task, Outcome(task.key, RETRYABLE, reason=_death(worker.process))))
        return ended

    def close(self) -> None:
        for w in self.workers:
            w.pipe.close()
            if w.task is not None:
                w.process.kill()
        for w in self.workers:
            w.process.join()
        self.workers.clear()

    def _start(self) -> _Worker:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, self.folder), daemon=True)
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))
        return self.workers[-1]


def _serve(pipe: Connection, folder: Path) -> None:
    """A worker: a task at a time until the pipe is closed, also by the death of the parent."""
    one_core()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent ends its workers
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        outcome = attempt(folder, task)
        try:
            pipe.send(outcome)
        except OSError:
            return


def _death(process: SpawnProcess) -> str:
    process.join()
    code = process.exitcode or 0
    if code == -signal.SIGKILL:
        return (
            "its worker was killed (signal 9), perhaps for lack of memory: fewer workers, or smaller shards"
        )
    return (
        f"its worker died ({signal.Signals(-code).name})"
        if code < 0
        else f"its worker ended (exit status {code})"
    )
