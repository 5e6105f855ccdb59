"""TorchEngine: our own checkpoints and Hugging Face folders, with a KV cache and continuous batching.

All samples of a call share one batch of slots. Every slot writes its next key and value into the same column of
the cache; a slot's own columns are a range [start, column], so prompts of unequal length need no scatter and a
finished slot is refilled at once. A prompt is computed once for all its samples. In fp32 a sample depends on its
request's seed alone, not on its neighbours in the batch: its t-th draw uses the uniform number hash(seed, j, t).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from phikit.engine.base import Counter, EngineInfo, GenRequest, PromptTooLong, ScoreRequest, Usage
from phikit.engine.sampling import pick, uniforms
from phikit.model.logprob import token_logprobs
from phikit.model.transformer import KVCache, Transformer
from phikit.records.types import Completion, Finish, Score, Turn
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer

SLOTS = 256  # at 1 M parameters on two cores, 256 reach 90 % of the tokens/s of 1,024
PREFILL_TOKENS = 16_384  # prompts computed in one forward pass
SCORE_TOKENS = 16_384


class TorchEngine:
    """Implements `Engine` on a Transformer in fp32 (numerics exact-fp32)."""

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, name: str = "model", slots: int = SLOTS
    ) -> None:
        self.model, self.tokenizer, self.slots = model.eval(), tokenizer, slots
        c = model.config
        self.info = EngineInfo(name, c.context, c.vocab, "exact-fp32")
        self._counter = Counter()

    @classmethod
    def from_folder(cls, path: Path) -> TorchEngine:
        """A checkpoint folder of ours (with `hf/`) or a Hugging Face folder."""
        from phikit.model.hf import load_hf

        folder = path / "hf" if (path / "hf").is_dir() else path
        model, _ = load_hf(folder)
        return cls(model, Tokenizer.load(folder), name=str(path))

    @property
    def usage(self) -> Usage:
        return self._counter.usage()

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def render(self, turns: Sequence[Turn]) -> list[int]:
        return list(chat.render(self.tokenizer, turns, open_assistant=True).tokens)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return chat.stop_ids(self.tokenizer)

    def close(self) -> None: ...

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        for i, r in enumerate(requests):
            if r.grammar is not None:
                raise ValueError("TorchEngine does not do grammars; use a GGUF engine")
            if not r.prompt or len(r.prompt) + 1 > self.info.context:
                raise PromptTooLong(
                    f"request {i}: a prompt of {len(r.prompt)} tokens; {self.info.name} takes "
                    f"1 to {self.info.context - 1}"
                )
        done: dict[int, dict[int, Completion]] = {i: {} for i in range(len(requests))}
        for sample, completion in self._decode(requests):
            done[sample.request][sample.number] = completion
            if len(done[sample.request]) == requests[sample.request].n:
                ready = done.pop(sample.request)
                yield sample.request, [ready[j] for j in sorted(ready)]

    def stream(self, request: GenRequest) -> Iterator[str]:
        """Pieces of text of one sample as they are generated; together they are the text of `generate`."""
        text, shown = "", 0
        for sample in self._decode_samples([request], watch=True):
            text = self._text(sample)
            if (settled := _settled(text, request.stop)) > shown:
                yield text[shown:settled]
                shown = settled
        if len(text) > shown:
            yield text[shown:]

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """The last token of a continuation is never an input, so continuations that differ only there (the
        letters of a multiple-choice question) share one row."""
        for i, r in enumerate(requests):
            self._check_score(i, r)
        rows: dict[tuple[int, ...], list[int]] = {}  # input row -> requests that need it
        for i, r in enumerate(requests):
            rows.setdefault((r.context + r.continuation)[:-1], []).append(i)
        results: list[Score | None] = [None] * len(requests)
        for batch in _by_tokens(sorted(rows, key=len, reverse=True), SCORE_TOKENS):
            hidden = self._forward(batch)
            users = [(b, i) for b, row in enumerate(batch) for i in rows[row]]
            where = [(b, t) for b, i in users for t in _span(requests[i])]
            row, at = (torch.tensor(x) for x in zip(*where))
            targets = torch.tensor([t for _, i in users for t in requests[i].continuation])
            logprobs, greedy = self._against_head(hidden[row, at], targets)
            a = 0
            for _, i in users:
                z = a + len(requests[i].continuation)
                results[i] = Score(float(logprobs[a:z].sum()), bool(greedy[a:z].all()), z - a)
                a = z
        return results  # type: ignore[return-value]

    def _against_head(self, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """float64 log-probabilities of targets [N], and whether each is the arg-max."""
        head = self.model.head_weight
        best = torch.cat([F.linear(h, head).argmax(-1) for h in hidden.split(4096)])
        return token_logprobs(hidden, head, targets).double(), best == targets

    def _check_score(self, i: int, r: ScoreRequest) -> None:
        n = len(r.context) + len(r.continuation)
        if not r.context or not r.continuation or n > self.info.context:
            raise PromptTooLong(
                f"score request {i}: {len(r.context)} + {len(r.continuation)} tokens; {self.info.name} takes a context "
                f"and a continuation of at least one token, {self.info.context} together"
            )

    def _forward(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        width = max(map(len, rows))
        tokens = torch.tensor([[*r, *[0] * (width - len(r))] for r in rows])
        self._counter.prefilled += sum(map(len, rows))
        return self.model(tokens, torch.arange(width).expand(len(rows), width), None)

    # -- decoding ---------------------------------------------------------------------------------------------

    def _decode(self, requests: Sequence[GenRequest]) -> Iterator[tuple[_Sample, Completion]]:
        for sample in self._decode_samples(requests):
            text = self._text(sample)
            yield sample, Completion(text, tuple(sample.tokens), tuple(sample.logprobs), sample.finish)

    def _text(self, sample: _Sample) -> str:
        tokens = sample.tokens
        if tokens and tokens[-1] in sample.spec.stop_ids:
            tokens = tokens[:-1]
        return self.tokenizer.decode(tokens)[: sample.cut]

    @torch.inference_mode()
    def _decode_samples(self, requests: Sequence[GenRequest], watch: bool = False) -> Iterator[_Sample]:
        """Finished samples; with `watch` every sample after each of its tokens (for streaming)."""
        longest = max((len(r.prompt) + r.max_tokens for r in requests), default=0)
        state = _Slots(
            self.model, min(self.slots, sum(r.n for r in requests)), min(longest, self.info.context)
        )
        waiting = _Prompts(self, requests)
        while True:
            if state.room() and (fresh := waiting.take(state.room())):
                state.admit(fresh)
            if not state.live:
                return
            finished = self._step(state)
            if watch:
                yield from (s for s in state.live if s not in finished)
            yield from finished
            if finished:
                state.drop(finished, more=waiting.left > 0)

    def _step(self, state: _Slots) -> list[_Sample]:
        """Samples one token for every live slot, ends those that are done, and runs the others one step on."""
        live = state.live
        logits = F.linear(state.hidden, self.model.head_weight).float()
        temperature = torch.tensor([s.spec.temperature for s in live])
        top_p = torch.tensor([s.spec.top_p for s in live])
        u = uniforms(
            np.array([s.key for s in live], dtype=np.uint64), np.array([len(s.tokens) for s in live])
        )
        ids, logprobs = pick(logits, temperature, top_p, torch.from_numpy(u))
        finished = []
        for s, token, logprob in zip(live, ids.tolist(), logprobs.tolist()):
            s.tokens.append(token)
            s.logprobs.append(logprob)
            if self._ended(s):
                finished.append(s)
        self._counter.generated += len(live)
        if len(finished) < len(live):
            state.advance(ids)
        return finished

    def _ended(self, s: _Sample) -> bool:
        if s.tokens[-1] in s.spec.stop_ids:
            s.finish = "stop"
            return True
        if s.spec.stop and self._stopped(s):
            s.finish = "stop"
            return True
        full = len(s.spec.prompt) + len(s.tokens) >= self.info.context
        return len(s.tokens) >= s.spec.max_tokens or full

    def _stopped(self, s: _Sample) -> bool:
        """Whether a stop string is complete; notes where it begins. Only the newest tokens are decoded: a
        character is at most four byte tokens."""
        tail = self.tokenizer.decode(s.tokens[-4 * max(map(len, s.spec.stop)) :])
        if not any(x in tail for x in s.spec.stop):
            return False
        text = self.tokenizer.decode(s.tokens)
        s.cut = min(at for at in (text.find(x) for x in s.spec.stop) if at >= 0)
        return True


@dataclass(eq=False)
class _Sample:
    request: int
    number: int
    spec: GenRequest
    key: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish = "length"
    cut: int | None = None


@dataclass
class _Prefilled:
    """A prompt's cache, [layers][K, L, H] pairs, and the hidden state after its last token, [D]."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    hidden: torch.Tensor
    length: int


class _Prompts:
    """Samples that wait, in order; prompts are computed shortly before they are needed, equal ones once."""

    def __init__(self, engine: TorchEngine, requests: Sequence[GenRequest]) -> None:
        self.engine, self.requests = engine, requests
        self.queue = deque((i, j) for i, r in enumerate(requests) for j in range(r.n))
        self.ready: dict[tuple[int, ...], _Prefilled] = {}

    @property
    def left(self) -> int:
        return len(self.queue)

    def take(self, n: int) -> list[tuple[_Sample, _Prefilled]]:
        fresh = []
        while self.queue and len(fresh) < n:
            i, j = self.queue[0]
            spec = self.requests[i]
            if spec.prompt not in self.ready:
                if fresh:  # compute the next prompts in one pass, when slots are free again
                    break
                self._prefill()
            self.queue.popleft()
            fresh.append((_Sample(i, j, spec, _key(spec.seed, j)), self.ready[spec.prompt]))
        return fresh

    def _prefill(self) -> None:
        prompts: dict[tuple[int, ...], None] = {}
        tokens = 0
        for i, _ in self.queue:
            p = self.requests[i].prompt
            if p in prompts:
                continue
            tokens += len(p)
            if prompts and tokens > PREFILL_TOKENS:
                break
            prompts[p] = None
        self.ready = {}
        # Sorted by length in groups of similar size: right padding is computed and thrown away.
        for group in _by_tokens(sorted(prompts, key=len), PREFILL_TOKENS // 4):
            self.ready.update(_prefill(self.engine, group))


def _prefill(engine: TorchEngine, prompts: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], _Prefilled]:
    model, width = engine.model, max(map(len, prompts))
    caches = _caches(model, len(prompts), width)
    tokens = torch.tensor([[*p, *[0] * (width - len(p))] for p in prompts])
    mask = torch.ones(width, width, dtype=torch.bool).tril()[None, None]
    hidden = model.extend(tokens, torch.arange(width).expand(len(prompts), width), caches, 0, mask)
    engine._counter.prefilled += sum(map(len, prompts))
    return {
        p: _Prefilled(
            [c.k[b, :, : len(p)] for c in caches],
            [c.v[b, :, : len(p)] for c in caches],
            hidden[b, len(p) - 1],
            len(p),
        )
        for b, p in enumerate(prompts)
    }


class _Slots:
    """The live batch: caches [B, K, S, H] a layer, all slots at the same column."""

    def __init__(self, model: Transformer, slots: int, longest: int) -> None:
        self.model, self.size, self.longest = model, slots, longest
        self.capacity = 2 * longest + 1  # room to refill before the columns must be moved down
        self.caches = _caches(model, slots, self.capacity)
        self.column = longest  # prompts are placed to end here
        self.live: list[_Sample] = []
        self.start = torch.zeros(0, dtype=torch.long)  # first own column of each live slot
        self.position = torch.zeros(0, dtype=torch.long)
        self.hidden = torch.zeros(0, model.config.width)

    def room(self) -> int:
        return self.size - len(self.live)

    def admit(self, fresh: Sequence[tuple[_Sample, _Prefilled]]) -> None:
        first = len(self.live)
        for b, (_, p) in enumerate(fresh, first):
            for c, k, v in zip(self.caches, p.keys, p.values):
                c.k[b, :, self.column - p.length : self.column] = k
                c.v[b, :, self.column - p.length : self.column] = v
        lengths = torch.tensor([p.length for _, p in fresh])
        self.live += [s for s, _ in fresh]
        self.start = torch.cat([self.start, self.column - lengths])
        self.position = torch.cat([self.position, lengths])
        self.hidden = torch.cat([self.hidden, torch.stack([p.hidden for _, p in fresh])])

    def advance(self, ids: torch.Tensor) -> None:
        """Runs one token for every live slot (finished ones too: they are dropped right after)."""
        if self.column + 1 > self.capacity:
            self._move_down()
        n, low = len(self.live), int(self.start.min())
        caches = [KVCache(c.k[:n, :, low:], c.v[:n, :, low:]) for c in self.caches]
        at = self.column - low
        columns = torch.arange(low, self.column + 1)
        mask = (columns[None] >= self.start[:, None])[:, None, None]
        self.hidden = self.model.extend(ids[:, None], self.position[:, None], caches, at, mask)[:, 0]
        self.column += 1
        self.position = self.position + 1

    def drop(self, finished: Sequence[_Sample], *, more: bool) -> None:
        """Frees the slots of finished samples. Live slots move up to stay the first rows."""
        gone = {id(s) for s in finished}
        keep = [b for b, s in enumerate(self.live) if id(s) not in gone]
        n = len(keep)
        holes = [b for b in range(n) if id(self.live[b]) in gone]
        movers = [b for b in keep if b >= n]
        order = list(range(n))
        for hole, mover in zip(holes, movers):
            order[hole] = mover
            for c in self.caches:
                low = int(self.start[mover])
                c.k[hole, :, low : self.column] = c.k[mover, :, low : self.column]
                c.v[hole, :, low : self.column] = c.v[mover, :, low : self.column]
        self.live = [self.live[b] for b in order]
        index = torch.tensor(order, dtype=torch.long)
        self.start, self.position, self.hidden = self.start[index], self.position[index], self.hidden[index]

    def _move_down(self) -> None:
        """Moves the live columns to the low end, with room below the new column for the longest prompt."""
        low, high = int(self.start.min()), self.column
        self.column = max(high - low, self.longest)
        shift = high - self.column
        for c in self.caches:
            for x in (c.k, c.v):
                x[:, :, low - shift : self.column] = x[:, :, low:high].clone()
        self.start = self.start - shift


def _caches(model: Transformer, rows: int, columns: int) -> list[KVCache]:
    c = model.config
    shape = (rows, c.kv_heads, columns, c.head_dim)
    return [KVCache(torch.zeros(shape), torch.zeros(shape)) for _ in range(c.layers)]


def _by_tokens(rows: Sequence[tuple[int, ...]], most: int) -> Iterator[list[tuple[int, ...]]]:
    """Runs of rows whose padded size stays under `most` tokens."""
    batch: list[tuple[int, ...]] = []
    longest = 0
    for row in rows:
        if batch and max(longest, len(row)) * (len(batch) + 1) > most:
            yield batch
            batch, longest = [], 0
        batch.append(row)
        longest = max(longest, len(row))
    if batch:
        yield batch


def _span(r: ScoreRequest) -> range:
    """Positions whose next token is a continuation token."""
    return range(len(r.context) - 1, len(r.context) + len(r.continuation) - 1)


def _settled(text: str, stop: Sequence[str]) -> int:
    """How many characters no later token changes: an unfinished character waits for its other bytes, and what may
    be the begin of a stop string for its end."""
    if text.endswith("\ufffd"):
        return 0
    begins = (n for s in stop for n in range(1, len(s)) if text.endswith(s[:n]))
    return len(text) - max(begins, default=0)


def _key(seed: int, number: int) -> int:
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
