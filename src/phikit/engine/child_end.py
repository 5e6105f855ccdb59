"""The child's end of the pipe: requests from stdin, replies to what stdout was, for every engine in a process."""

from __future__ import annotations

import os
import sys
import threading
import time
from queue import SimpleQueue
from typing import Protocol

from phikit.engine import llama_wire as wire

_PARENT_CHECK = 2.0  # seconds


class Worker(Protocol):
    @property
    def inbox(self) -> SimpleQueue[wire.Request]: ...

    @property
    def replies(self) -> Replies: ...

    def light(self, request: wire.Encode | wire.Decode | wire.Spell) -> wire.Reply:
        """The answer to what needs no turn. May raise; a ValueError is the request's fault."""
        ...


class Replies:
    """Writes whole frames from any thread. Made before anything prints: from then on stdout goes to stderr."""

    def __init__(self) -> None:
        self.out = os.dup(1)
        os.dup2(2, 1)  # what a library prints must not mix with the replies
        self.lock = threading.Lock()

    def write(self, replies: list[wire.Reply]) -> None:
        data = memoryview(wire.frames(replies))
        with self.lock:
            while data:
                data = data[os.write(self.out, data) :]


def listen(worker: Worker, parent: int) -> None:
    """Fills the worker's inbox from now on. The process ends when stdin closes or `parent` is gone."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    threading.Thread(target=_read, args=(worker,), daemon=True).start()


def _read(worker: Worker) -> None:
    """Ends the process at once when stdin closes: running batches and llama.cpp's destructors are not waited for."""
    import msgspec

    decoder = msgspec.msgpack.Decoder(wire.Request)
    while (body := wire.read_frame(sys.stdin.buffer)) is not None:
        request = decoder.decode(body)
        if isinstance(request, wire.Encode | wire.Decode | wire.Spell):
            try:
                reply = worker.light(request)
            except Exception as e:  # one text that cannot be tokenized must not end the reading of others
                reply = wire.Fault(request.id, f"{e}", isinstance(e, ValueError))
            worker.replies.write([reply])
        else:
            worker.inbox.put(request)
    os._exit(0)


def _watch(parent: int) -> None:
    """Another process may hold the write end of stdin (a fork of the parent), so the parent is looked for too."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK)
    os._exit(0)
