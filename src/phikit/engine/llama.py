"""LlamaEngine: a GGUF through llama.cpp in a child process.

Generation is our own batching and sampling over llama.cpp's network, so that seeds, stops and log-probabilities
mean what they mean in TorchEngine. Scores come from the logits at the continuation's own positions, computed with
f32 attention in a context of their own: the same request gives the same bits whatever was asked before or beside
it. What is left between these numbers and the same weights in torch is llama.cpp's own arithmetic, which rounds
activations to 8 bits before it multiplies them with quantized weights: hence `numerics` "gguf:<type>".
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

from phikit.engine import wire
from phikit.engine.base import (
    Counter,
    EngineInfo,
    GenRequest,
    Piece,
    PromptTooLong,
    ScoreRequest,
    Usage,
)  # fmt: skip
from phikit.engine.child import Child, EngineCrashed
from phikit.engine.gguf_meta import read_meta
from phikit.engine.template import ChatTemplate
from phikit.records.types import Completion, Score, Turn

__all__ = ["DEFAULT_CONTEXT", "EngineCrashed", "LlamaEngine"]

DEFAULT_CONTEXT = 4096


class LlamaEngine:
    """`context` tokens for each of `parallel` slots (default: the trained context, at most 4096).
    Thread-safe: calls from several threads share the slots. `threads` defaults to the number of cores.

    The child's memory is the weights, a cache of `parallel` x `context` tokens, and from the first score or
    embedding on one more sequence of `context` tokens for each of the two. When the child dies, the calls that wait
    raise EngineCrashed and the next call starts it again."""

    def __init__(
        self, path: Path, *, context: int | None = None, parallel: int = 1, threads: int | None = None
    ) -> None:
        self.meta = read_meta(Path(path))
        if context is not None and not 1 <= context <= self.meta.context:
            raise ValueError(f"{path}: context must be 1 to {self.meta.context} tokens, not {context}")
        if not 1 <= parallel <= 256:
            raise ValueError(f"parallel must be 1 to 256, not {parallel}")
        self.parallel = parallel
        self.info = EngineInfo(
            name=f"{self.meta.path.stem}@{self.meta.fingerprint}",
            context=context or min(self.meta.context, DEFAULT_CONTEXT),
            vocab=self.meta.vocab,
            numerics=f"gguf:{self.meta.file_type}",
        )
        self._threads = threads or os.cpu_count() or 1
        self._counter = Counter()
        self._lock = threading.Lock()  # the counter
        self._starting = threading.Lock()
        self._closed = False
        self._template: ChatTemplate | None = None
        self._child = self._start()

    @property
    def usage(self) -> Usage:
        with self._lock:
            return self._counter.usage()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.meta.stop_ids

    @property
    def pid(self) -> int:
        """Of the child process."""
        return self._child.process.pid

    def encode(self, text: str) -> list[int]:
        return self._live().ask(lambda i: wire.Encode(i, [(text, False)])).value if text else []

    def decode(self, ids: Sequence[int]) -> str:
        specials = set(self.meta.specials.values())
        plain = [int(i) for i in ids if i not in specials]
        return self._live().ask(lambda i: wire.Decode(i, plain)).value if plain else ""

    def render(self, turns: Sequence[Turn]) -> list[int]:
        """The GGUF's own template. Special-token strings inside a turn stay text: nobody can forge a turn."""
        if not self.meta.template:
            raise ValueError(
                f"{self.meta.path}: this GGUF has no chat template; it is a base model: use encode()"
            )
        if self._template is None:
            meta = self.meta
            self._template = ChatTemplate(meta.template or "", meta.bos, meta.eos, tuple(meta.specials))
        return self.encode_pieces(list(self._template.render(turns)))

    def encode_pieces(self, pieces: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of pieces (text, special) of a rendered conversation."""
        return self._live().ask(lambda i: wire.Encode(i, list(pieces))).value

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        """Results as they finish. Raises PromptTooLong, ValueError (bad grammar or schema) and EngineCrashed.
        The samples of a request share one computation of its prompt. A generator that is closed early stops the
        work that is left."""
        for request in requests:
            self._check_request(request)
        given = self._prompts([k for k, r in enumerate(requests) if r.prompt_logprobs], requests)
        for k, request in enumerate(requests):
            if request.max_tokens == 0:
                yield k, [Completion("", (), (), "length", (), given.get(k, ()))] * request.n
        asked = [k for k, r in enumerate(requests) if r.max_tokens]
        child, replies = self._live(), SimpleQueue()
        ids = child.send([lambda i, k=k: wire.Generate(i, requests[k], False) for k in asked], replies)
        index = dict(zip(ids, asked))
        parts: dict[int, dict[int, Completion]] = {number: {} for number in ids}
        try:
            while parts:
                reply = replies.get()
                child.check(reply)
                assert isinstance(reply, wire.Done)
                self._count(reply.prefilled, len(reply.tokens))
                done = parts[reply.id]
                done[reply.sample] = Completion(
                    reply.text, tuple(reply.tokens), tuple(reply.logprobs), reply.finish, tuple(reply.top),
                    given.get(index[reply.id], ()),
                )  # fmt: skip
                if len(done) == requests[index[reply.id]].n:
                    del parts[reply.id]
                    child.forget([reply.id])
                    yield index[reply.id], [done[k] for k in range(len(done))]
        finally:
            child.cancel(list(parts))

    def stream(self, request: GenRequest) -> Iterator[Piece]:
        """One sample, token by token; sample 0 of what `generate` gives for the request. Closing the generator
        stops the work in the child before its next batch. Raises as `generate` does."""
        self._check_request(request)
        if request.n != 1 or request.max_tokens == 0 or request.prompt_logprobs:
            raise ValueError("stream gives one sample of some tokens and no prompt_logprobs; use generate")
        child, replies = self._live(), SimpleQueue()
        ids = child.send([lambda i: wire.Generate(i, request, True)], replies)
        try:
            while True:
                reply = replies.get()
                child.check(reply)
                if isinstance(reply, wire.Token):
                    self._count(0, 1)
                    top = (reply.top,) if reply.top else ()
                    yield Piece(reply.text, (reply.token,), (reply.logprob,), None, top)
                    continue
                assert isinstance(reply, wire.Done)
                child.forget(ids)
                ids = []
                self._count(reply.prefilled, len(reply.tokens))
                top = tuple(reply.top)
                yield Piece(reply.text, tuple(reply.tokens), tuple(reply.logprobs), reply.finish, top)
                return
        finally:
            child.cancel(ids)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Shared beginnings are computed once. The numbers of a request depend on nothing else."""
        for request in requests:
            if not request.context:
                raise ValueError("score: the context is empty; begin it with the model's start token")
            self._check(len(request.context) + len(request.continuation), len(request.context))
            self._check_ids((*request.context, *request.continuation))
        if not requests:
            return []
        reply = self._live().ask(lambda i: wire.Scoring(i, list(requests)))
        self._count(reply.prefilled, 0)
        return [Score(math.fsum(logprobs), all(greedy), len(greedy)) for logprobs, greedy in reply.value]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text: pooled as the GGUF says, by the mean over its tokens where it says
        nothing. Raises ValueError for a text that does not fit the context."""
        if not texts:
            return []
        reply = self._live().ask(lambda i: wire.Embed(i, list(texts)))
        self._count(reply.prefilled, 0)
        return reply.value

    def close(self) -> None:
        """Ends the child process and with it gives the model's memory back."""
        with self._starting:
            self._closed = True
            self._child.close()

    def _start(self) -> Child:
        return Child(self.meta.path, self.info.context, self.parallel, self._threads)

    def _live(self) -> Child:
        if self._child.dead is None:
            return self._child
        with self._starting:
            if self._closed:
                raise ValueError(f"{self.info.name}: the engine is closed")
            if self._child.dead is not None:
                self._child.close()
                self._child = self._start()
            return self._child

    def _prompts(self, which: list[int], requests: Sequence[GenRequest]) -> dict[int, tuple[float, ...]]:
        """Log-probabilities of the prompts of some requests, as `score` computes them."""
        asked = [ScoreRequest(requests[k].prompt[:1], requests[k].prompt[1:]) for k in which]
        if not asked:
            return {}
        reply = self._live().ask(lambda i: wire.Scoring(i, asked))
        self._count(reply.prefilled, 0)
        return {k: tuple(logprobs) for k, (logprobs, _) in zip(which, reply.value)}

    def _check_request(self, request: GenRequest) -> None:
        if not request.prompt:
            raise ValueError("generate: the prompt is empty; begin it with the model's start token")
        if request.n < 1 or request.max_tokens < 0:
            raise ValueError(
                f"generate: n must be at least 1 and max_tokens 0, not {request.n} and {request.max_tokens}"
            )
        if request.grammar is not None and request.json_schema is not None:
            raise ValueError("generate: give a grammar or a JSON schema, not both")
        self._check(len(request.prompt) + 1, len(request.prompt))
        self._check_ids(request.prompt)

    def _check(self, needed: int, prompt: int) -> None:
        if needed > self.info.context:
            raise PromptTooLong(
                f"{self.info.name}: a prompt of {prompt} tokens needs {needed} in all, the context "
                f"is {self.info.context} tokens; shorten the prompt or open the model with a larger context"
            )

    def _check_ids(self, ids: Sequence[int]) -> None:
        if min(ids) < 0 or max(ids) >= self.info.vocab:
            raise ValueError(
                f"{self.info.name}: token ids go from 0 to {self.info.vocab - 1}, not {min(ids)} to {max(ids)}"
            )

    def _count(self, prefilled: int, generated: int) -> None:
        with self._lock:
            self._counter.prefilled += prefilled
            self._counter.generated += generated
