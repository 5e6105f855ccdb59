"""TorchEngine: our own checkpoints and Hugging Face folders, with a KV cache and continuous batching.

All samples of a call share one batch of slots. Every slot writes its next key and value into the same column of
the cache; a slot's own columns are a range [start, column], so prompts of unequal length need no scatter and a
finished slot is refilled at once. A prompt is computed once for all its samples. In fp32 a sample depends on its
request's seed alone, not on its neighbours in the batch: its t-th draw uses the uniform number hash(seed, j, t).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from phikit.engine.base import Counter, EngineInfo, GenRequest, PromptTooLong, ScoreRequest, Usage
from phikit.engine.sampling import pick, uniforms
from phikit.engine.slots import Prompts, Sample, Slots, by_tokens
from phikit.model.logprob import token_logprobs
from phikit.model.transformer import Transformer
from phikit.records.types import Completion, Score, Turn
from phikit.text import chat
from phikit.text.tokenizer import Tokenizer

SLOTS = 256  # samples decoded at once
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
        for batch in by_tokens(sorted(rows, key=len, reverse=True), SCORE_TOKENS):
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

    def _decode(self, requests: Sequence[GenRequest]) -> Iterator[tuple[Sample, Completion]]:
        for s in self._decode_samples(requests):
            yield s, Completion(self._text(s), tuple(s.tokens), tuple(s.logprobs), s.finish)

    def _text(self, sample: Sample) -> str:
        tokens = sample.tokens
        if tokens and tokens[-1] in sample.spec.stop_ids:
            tokens = tokens[:-1]
        return self.tokenizer.decode(tokens)[: sample.cut]

    @torch.inference_mode()
    def _decode_samples(self, requests: Sequence[GenRequest], watch: bool = False) -> Iterator[Sample]:
        """Finished samples; with `watch` every sample after each of its tokens (for streaming)."""
        longest = max((len(r.prompt) + r.max_tokens for r in requests), default=0)
        slots = min(self.slots, sum(r.n for r in requests))
        state = Slots(self.model, slots, min(longest, self.info.context))
        waiting = Prompts(self.model, self._counter, requests)
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

    def _step(self, state: Slots) -> list[Sample]:
        """Samples one token for every live slot, ends those that are done, and runs the others one step on."""
        live = state.live
        logits = F.linear(state.hidden, self.model.head_weight).float()
        temperature = torch.tensor([s.spec.temperature for s in live])
        top_p = torch.tensor([s.spec.top_p for s in live])
        keys, drawn = (
            np.array([s.key for s in live], dtype=np.uint64),
            np.array([len(s.tokens) for s in live]),
        )
        ids, logprobs = pick(logits, temperature, top_p, torch.from_numpy(uniforms(keys, drawn)))
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

    def _ended(self, s: Sample) -> bool:
        if s.tokens[-1] in s.spec.stop_ids:
            s.finish = "stop"
            return True
        if s.spec.stop and self._stopped(s):
            s.finish = "stop"
            return True
        full = len(s.spec.prompt) + len(s.tokens) >= self.info.context
        return len(s.tokens) >= s.spec.max_tokens or full

    def _stopped(self, s: Sample) -> bool:
        """Whether a stop string is complete; notes where it begins. Only the newest tokens are decoded: a
        character is at most four byte tokens."""
        tail = self.tokenizer.decode(s.tokens[-4 * max(map(len, s.spec.stop)) :])
        if not any(x in tail for x in s.spec.stop):
            return False
        text = self.tokenizer.decode(s.tokens)
        s.cut = min(at for at in (text.find(x) for x in s.spec.stop) if at >= 0)
        return True


def _span(r: ScoreRequest) -> range:
    """Positions whose next token is a continuation token."""
    return range(len(r.context) - 1, len(r.context) + len(r.continuation) - 1)


def _settled(text: str, stop: Sequence[str]) -> int:
    """How many characters are final: neither part of a character nor perhaps the begin of a stop string."""
    if text.endswith("\ufffd"):
        return 0
    begins = (n for s in stop for n in range(1, len(s)) if text.endswith(s[:n]))
    return len(text) - max(begins, default=0)
