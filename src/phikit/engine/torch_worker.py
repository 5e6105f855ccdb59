"""A checkpoint or Hugging Face folder in a process of its own: TorchEngine behind the frames of `wire`.

For the server, which unloads a model for sure by ending its process. Requests are decoded together (`live.py`), and
scores are computed a window at a time in between; the results are those of TorchEngine. It ends when stdin closes or
its parent is gone.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from phikit.engine import wire
from phikit.engine.base import GenRequest, Piece
from phikit.engine.child_end import Replies, Task, serve, step
from phikit.engine.live import Live
from phikit.engine.torch_engine import TorchEngine


@dataclass
class _Answer:
    """What a request has said so far, where it is not streamed; `left` samples have not ended."""

    request: GenRequest
    stream: bool
    left: int
    said: dict[int, list[Piece]] = field(default_factory=dict)


class Worker:
    def __init__(self, folder: str, parallel: int, threads: int, replies: Replies) -> None:
        import torch

        torch.set_num_threads(threads)
        self.engine = TorchEngine.from_folder(Path(folder))
        self.replies = replies
        self.inbox: SimpleQueue[wire.Request] = SimpleQueue()
        self.live = Live(self.engine, max(1, parallel))
        self.answers: dict[int, _Answer] = {}
        self.scores: deque[tuple[int, Task]] = deque()

    def run(self) -> None:
        while True:
            try:
                while True:
                    self.accept(self.inbox.get(block=self.live.is_idle and not self.scores))
            except Empty:
                pass
            if replies := [*self.decode_step(), *self.score_step()]:
                self.replies.write(replies)

    def accept(self, request: wire.Request) -> None:
        if isinstance(request, wire.Cancel):
            self.live.cancel(request.ids)
            self.scores = deque(s for s in self.scores if s[0] not in request.ids)
            for number in request.ids:
                self.answers.pop(number, None)
        elif isinstance(request, wire.Generate):
            try:
                self.live.add(request.id, request.request)
            except (ValueError, RuntimeError) as e:
                self.replies.write([wire.Fault(request.id, str(e), isinstance(e, ValueError))])
            else:
                self.answers[request.id] = _Answer(request.request, request.stream, request.request.n)
        elif isinstance(request, wire.Scoring):
            self.scores.append((request.id, self.score(request)))
        elif isinstance(request, wire.Embed):
            why = "embeddings of a safetensors model are not offered; `phikit export --to gguf` makes a GGUF of it"
            self.replies.write([wire.Fault(request.id, why, True)])

    def decode_step(self) -> list[wire.Reply]:
        """A token of every sample under way. Where it fails, all requests under way do: they share it."""
        try:
            pieces = self.live.step()
        except (ValueError, RuntimeError) as e:
            failed, self.answers = list(self.answers), {}
            self.live = Live(self.engine, self.live.most)
            return [wire.Fault(number, str(e), False) for number in failed]
        return [r for number, k, piece in pieces if (r := self.told(number, k, piece)) is not None]

    def told(self, number: int, k: int, piece: Piece) -> wire.Reply | None:
        """What is said of a sample's next piece."""
        answer = self.answers.get(number)
        if answer is None:  # cancelled in this step
            return None
        if answer.stream and piece.finish is None:
            top = piece.top[0] if piece.top else ()
            return wire.Token(number, k, piece.tokens[0], piece.logprobs[0], piece.text, top)
        said = answer.said.setdefault(k, [])
        said.append(piece)
        if piece.finish is None:
            return None
        answer.left -= 1
        if not answer.left:
            del self.answers[number]
        return wire.Done(
            number, k, [t for p in said for t in p.tokens], [x for p in said for x in p.logprobs],
            "".join(p.text for p in said), piece.finish, len(answer.request.prompt) if k == 0 else 0,
            [x for p in said for x in p.top],
        )  # fmt: skip

    def score_step(self) -> list[wire.Reply]:
        """A window of the oldest request for scores."""
        if not self.scores:
            return []
        number, task = self.scores[0]
        reply = step(number, task)
        if reply is not None:
            self.scores.popleft()
        return [] if reply is None else [reply]

    def score(self, request: wire.Scoring) -> Task:
        windows, computed = self.engine.score_windows(request.requests), 0
        while True:
            try:
                computed += next(windows)
            except StopIteration as end:
                rows = [(values.tolist(), greedy.tolist()) for values, greedy in end.value]
                break
            yield None
        yield wire.Value(request.id, rows, computed)

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
    return Worker(sys.argv[1], int(sys.argv[3]), int(sys.argv[4]), replies)


if __name__ == "__main__":
    serve(load)
