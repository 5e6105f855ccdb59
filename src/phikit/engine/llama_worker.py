"""The child process of LlamaEngine: frames of `wire` on stdin and stdout, llama.cpp inside.

An assert in ggml aborts this process, not its parent. Tokenization is answered at once; generation, scores and
embeddings take turns, a batch at a time. It ends when stdin closes or its parent is gone.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from phikit.engine import wire
from phikit.engine.child_end import Replies, Task, serve, step
from phikit.engine.llama_c import Model
from phikit.engine.llama_score import Embedder, Scorer
from phikit.engine.llama_slots import Job, Slots

_BATCH = 512
_LARGE = 4_000_000_000  # bytes of a model file above which a batch is smaller, so that others wait less
_PATIENCE = 60  # seconds for loading and a first token, and one more for every ...
_SLOWEST = 20_000_000  # bytes of the file


class Worker:
    def __init__(self, path: str, context: int, parallel: int, threads: int, replies: Replies) -> None:
        self.model = Model(path, threads)
        self.length, self.replies = context, replies
        self.outbox: list[wire.Reply] = []
        self.inbox: SimpleQueue[wire.Request] = SimpleQueue()
        batch = _BATCH if os.path.getsize(path) < _LARGE else _BATCH // 4
        # A batch must hold a token of every sample.
        self.slots = Slots(self.model, parallel, context, max(batch, parallel), self.outbox.append)
        self.slots.try_out()
        self.tasks: deque[tuple[int, Task]] = deque()
        self.scorer: Scorer | None = None
        self.embedder: Embedder | None = None

    def run(self) -> None:
        while True:
            try:
                while True:
                    self.accept(self.inbox.get(block=not self.slots.busy and not self.tasks))
            except Empty:
                pass
            if self.slots.busy:
                self.slots.step()
            if self.tasks:
                self.turn()
            self.flush()

    def accept(self, request: wire.Request) -> None:
        if isinstance(request, wire.Cancel):
            self.slots.cancel(set(request.ids))
            self.tasks = deque(t for t in self.tasks if t[0] not in request.ids)
        elif isinstance(request, wire.Generate):
            self.slots.add(Job(request.id, request.request, request.stream))
        elif isinstance(request, wire.Scoring):
            self.tasks.append((request.id, self.score(request)))
        elif isinstance(request, wire.Embed):
            self.tasks.append((request.id, self.embed(request)))

    def turn(self) -> None:
        """One batch of the oldest score or embedding request."""
        number, task = self.tasks[0]
        reply = step(number, task)
        if reply is not None:
            self.outbox.append(reply)
            self.tasks.popleft()

    def score(self, request: wire.Scoring) -> Task:
        self.scorer = self.scorer or Scorer(self.model, self.length)
        computed = 0
        for found in self.scorer.score(request.requests):
            if isinstance(found, int):
                computed += found
                yield None
            else:
                yield wire.Value(request.id, found, computed)

    def embed(self, request: wire.Embed) -> Task:
        self.embedder = self.embedder or Embedder(self.model, self.length)
        vectors, computed = [], 0
        for i, text in enumerate(request.texts):
            ids = self.model.encode(text, special=False, whole=True)
            if not ids or len(ids) > self.length:
                raise ValueError(
                    f"text {i} has {len(ids)} tokens; an embedding takes 1 to {self.length} (the context)"
                )
            vectors.append(self.embedder.embed(ids))
            computed += len(ids)
            yield None
        yield wire.Value(request.id, vectors, computed)

    @property
    def vocab(self) -> int:
        return self.model.n_vocab

    def encode(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        return [i for text, special in parts for i in self.model.encode(text, special=special)]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.spell(ids)).decode("utf-8", "replace")

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        return list(map(self.model.piece, ids))

    def flush(self) -> None:
        if self.outbox:
            self.replies.write(self.outbox)
            self.outbox.clear()


def load(replies: Replies) -> Worker:
    path, context, parallel, threads = sys.argv[1], *(int(a) for a in sys.argv[2:5])
    signal.alarm(_PATIENCE + os.path.getsize(path) // _SLOWEST)  # some damaged files make llama.cpp loop
    worker = Worker(path, context, parallel, threads, replies)
    signal.alarm(0)
    return worker


if __name__ == "__main__":
    serve(load)
