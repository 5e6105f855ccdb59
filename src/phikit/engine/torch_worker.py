"""A checkpoint or Hugging Face folder in a process of its own: TorchEngine behind the frames of `wire`.

For the server, which unloads a model for sure by ending its process. Requests take turns, a token at a time; their
results are those of TorchEngine. It ends when stdin closes or its parent is gone.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from phikit.engine import wire
from phikit.engine.base import GenRequest
from phikit.engine.child_end import Replies, Task, serve, step
from phikit.engine.torch_engine import TorchEngine


class Worker:
    def __init__(self, folder: str, threads: int, replies: Replies) -> None:
        import torch

        torch.set_num_threads(threads)
        self.engine = TorchEngine.from_folder(Path(folder))
        self.replies = replies
        self.inbox: SimpleQueue[wire.Request] = SimpleQueue()
        self.tasks: deque[tuple[int, Task]] = deque()

    def run(self) -> None:
        while True:
            try:
                while True:
                    self.accept(self.inbox.get(block=not self.tasks))
            except Empty:
                pass
            self.turn()

    def accept(self, request: wire.Request) -> None:
        if isinstance(request, wire.Cancel):
            for number, task in self.tasks:
                if number in request.ids:
                    task.close()  # type: ignore[attr-defined]
            self.tasks = deque(t for t in self.tasks if t[0] not in request.ids)
        elif isinstance(request, wire.Generate):
            self.tasks.append((request.id, self.generate(request.id, request.request, request.stream)))
        elif isinstance(request, wire.Scoring):
            self.tasks.append((request.id, self.score(request)))
        elif isinstance(request, wire.Embed):
            why = "embeddings of a safetensors model are not offered; `phikit export --to gguf` makes a GGUF of it"
            self.replies.write([wire.Fault(request.id, why, True)])

    def turn(self) -> None:
        """A step of the oldest task, which then goes behind the others."""
        number, task = self.tasks.popleft()
        reply = step(number, task)
        if reply is not None:
            self.replies.write([reply])
        if not isinstance(reply, wire.Fault) and task.gi_frame is not None:  # type: ignore[attr-defined]
            self.tasks.append((number, task))

    def generate(self, number: int, request: GenRequest, stream: bool) -> Task:
        tokens: list[list[int]] = [[] for _ in range(request.n)]
        logprobs: list[list[float]] = [[] for _ in range(request.n)]
        tops: list[list[Any]] = [[] for _ in range(request.n)]
        texts = [""] * request.n
        for k, piece in self.engine.steps(request):
            if stream and piece.finish is None:
                yield wire.Token(
                    number,
                    k,
                    piece.tokens[0],
                    piece.logprobs[0],
                    piece.text,
                    piece.top[0] if piece.top else (),
                )
                continue
            tokens[k] += piece.tokens
            logprobs[k] += piece.logprobs
            tops[k] += piece.top
            texts[k] += piece.text
            if piece.finish is None:
                yield None
            else:
                prefilled = len(request.prompt) if k == 0 else 0
                yield wire.Done(number, k, tokens[k], logprobs[k], texts[k], piece.finish, prefilled, tops[k])

    def score(self, request: wire.Scoring) -> Task:
        before = self.engine.usage.prefilled
        found = self.engine.score_tokens(request.requests)
        rows = [(values.tolist(), greedy.tolist()) for values, greedy in found]
        yield wire.Value(request.id, rows, self.engine.usage.prefilled - before)

    @property
    def vocab(self) -> int:
        return self.engine.info.vocab

    def encode(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        return self.engine.encode_pieces(parts)

    def decode(self, ids: Sequence[int]) -> str:
        return self.engine.decode(ids)

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        return [self.engine.tokenizer.token_bytes(i) for i in ids]


def load(replies: Replies) -> Worker:
    return Worker(sys.argv[1], int(sys.argv[4]), replies)


if __name__ == "__main__":
    serve(load)
