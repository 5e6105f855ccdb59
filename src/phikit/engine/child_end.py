"""The child's end of the pipe: requests from stdin, replies to what stdout was, for every engine in a process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Protocol

from phikit.engine import wire

_PARENT_CHECK = 2.0  # seconds
Task = Iterator[wire.Reply | None]  # a request at work: a step for each item


class Worker(Protocol):
    """`encode`, `decode` and `spell` answer what needs no turn, while `run` works on what comes into the inbox."""

    @property
    def inbox(self) -> SimpleQueue[wire.Request]: ...

    @property
    def vocab(self) -> int: ...

    def encode(self, parts: Sequence[tuple[str, bool]]) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def spell(self, ids: Sequence[int]) -> list[bytes]: ...

    def run(self) -> None: ...


class Replies:
    """Writes whole frames from any thread. Made before anything prints: from then on stdout goes to stderr."""

    def __init__(self) -> None:
        self.out = os.dup(1)
        os.dup2(2, 1)  # what a library prints must not mix with the replies
        self.lock = threading.Lock()

    def write(self, replies: Sequence[wire.Reply]) -> None:
        data = memoryview(wire.frames(replies))
        with self.lock:
            while data:
                data = data[os.write(self.out, data) :]


def serve(make: Callable[[Replies], Worker]) -> None:
    """Makes the worker, says whether it is ready, and runs it. The process ends when stdin closes or the parent is
    gone."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes stdin
    replies = Replies()
    try:
        worker = make(replies)
    except Exception as e:
        replies.write([wire.Fault(0, f"{type(e).__name__}: {e}", True)])
        return
    replies.write([wire.Ready()])
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    threading.Thread(target=_read, args=(worker, replies), daemon=True).start()
    try:
        worker.run()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # llama.cpp's own threads would make an ordinary exit an abort


def step(number: int, task: Task) -> wire.Reply | None:
    """What the next step of request `number` says, if anything."""
    try:
        return next(task, None)
    except (ValueError, RuntimeError) as e:
        return wire.Fault(number, str(e), isinstance(e, ValueError))


def _read(worker: Worker, replies: Replies) -> None:
    """Ends the process at once when stdin closes: running batches and llama.cpp's destructors are not waited for."""
    import msgspec

    decoder = msgspec.msgpack.Decoder(wire.Request)
    while (body := wire.read_frame(sys.stdin.buffer)) is not None:
        request = decoder.decode(body)
        if isinstance(request, wire.Encode | wire.Decode | wire.Spell):
            try:
                reply = wire.Value(request.id, _light(worker, request))
            except Exception as e:  # one text that cannot be tokenized must not end the reading of others
                reply = wire.Fault(request.id, f"{e}", isinstance(e, ValueError))
            replies.write([reply])
        else:
            worker.inbox.put(request)
    os._exit(0)


def _light(worker: Worker, request: wire.Encode | wire.Decode | wire.Spell) -> list[int] | str | list[bytes]:
    """The answer to what needs no turn."""
    if isinstance(request, wire.Encode):
        return worker.encode(request.parts)
    if any(not 0 <= i < worker.vocab for i in request.ids):
        raise ValueError(f"a token id is not in 0 to {worker.vocab - 1}")
    return worker.spell(request.ids) if isinstance(request, wire.Spell) else worker.decode(request.ids)


def _watch(parent: int) -> None:
    """Another process may hold the write end of stdin (a fork of the parent), so the parent is looked for too."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK)
    os._exit(0)
