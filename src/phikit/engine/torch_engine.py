"""TorchEngine: our own checkpoints and Hugging Face folders, with a prefix trie and continuous batching.

Every prefix that requests of a call share is computed once (`trie.py`, `prefill.py`). All samples share one batch
of rows (`slots.py`): a finished row is refilled at once, and a prompt is kept once for all its samples
(`prefixes.py`). In fp32 a sample depends on its request's seed alone, not on its neighbours in the batch: its t-th
draw uses the uniform number hash(seed, j, t).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from phikit.engine.base import Counter, EngineInfo, GenRequest, Piece, PromptTooLong, ScoreRequest, Usage
from phikit.engine.chat_files import Spoken, chat_of_folder, chat_of_gguf
from phikit.engine.network import Network
from phikit.engine.pieces import Pieces
from phikit.engine.prefill import Prefill
from phikit.engine.prefixes import Groups
from phikit.engine.prompts import Prompts
from phikit.engine.rows import Rows
from phikit.engine.slots import Sample, Slots
from phikit.engine.targets import Targets
from phikit.engine.template import FileChat
from phikit.engine.trie import build_trie
from phikit.model.assemble import DTypeName
from phikit.model.device import choose_device
from phikit.model.transformer import Transformer
from phikit.records.types import Completion, Score
from phikit.text.tokenizer import Tokenizer

SLOTS = 1024  # samples decoded at once
LARGE_SLOTS = 4096  # on a CUDA device, where a step of many takes hardly longer than one of few
LANES = 16  # samples that share one copy of their prompt
CACHE_BYTES = 4 << 30  # keys and values of the live batch: fewer samples at once where they would need more
FREE = 0.6  # in its place, of a CUDA device's free memory; growing needs the rest for a moment
TokenScores = tuple[np.ndarray, np.ndarray]  # log-probabilities, whether arg-max; of each token
LOGITS = 6  # fp32 numbers of memory for each logit while tokens are drawn


class TorchEngine(Spoken):
    """Implements `Engine` on a Transformer; numerics exact-fp32, or bf16 where the weights are."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        name: str = "model",
        slots: int | None = None,
        cache_bytes: int | None = None,
        *,
        source: str | None = None,
        dialog: FileChat | None = None,
    ) -> None:
        """Runs on the device of the model's weights. `slots` and `cache_bytes` bound the live batch; without them
        they follow from the device. `source` is the numerics class of rounded weights in a file (`gguf:Q4_1`).
        `dialog` renders conversations in place of Phi-4's chat format."""
        self.dialog = dialog
        self.model, self.tokenizer, self.cache_bytes = model.eval(), tokenizer, cache_bytes
        c = model.config
        with torch.inference_mode():
            self.network = Network(model)
        self.slots = slots or (SLOTS if self.network.device.type == "cpu" else LARGE_SLOTS)
        numerics = "bf16" if self.network.dtype == torch.bfloat16 else "exact-fp32"
        if source is not None:  # computed exactly, from weights that the file rounded
            numerics = f"{numerics.removeprefix('exact-')}-of-{source}"
        self.info = EngineInfo(name, c.context, c.vocab, numerics)
        self.counter = Counter()
        self._holders: dict[int, torch.Tensor] = {}  # byte -> tokens that hold it

    @classmethod
    def from_folder(
        cls, path: Path, *, bf16: bool | None = None, device: str | None = None, name: str = ""
    ) -> TorchEngine:
        """A checkpoint folder of ours (with `hf/`) or a Hugging Face folder, called `name`, else by its path. `bf16`
        rounds the weights: twice the speed of large networks on a CPU with bf16 instructions, at another class of
        numerics; without it a CUDA device has bf16 weights and a CPU exact ones. `device` as in `choose_device`."""
        from phikit.model.hf_read import load_hf

        folder = path / "hf" if (path / "hf").is_dir() else path
        place = choose_device(device)
        model, _ = load_hf(folder, dtype=_dtype(bf16, place))
        tokenizer = Tokenizer.load(folder)
        return cls(
            model.to(place), tokenizer, name=name or str(path), dialog=chat_of_folder(folder, tokenizer)
        )

    @classmethod
    def from_gguf(cls, path: Path, *, bf16: bool | None = None, device: str | None = None) -> TorchEngine:
        """A GGUF of architecture phi3 or llama, dequantized: its numerics are fp32-of-gguf:<type>. Raises ValueError
        where the architecture, a key or the tokenizer is of another kind."""
        from phikit.engine.gguf_meta import read_meta
        from phikit.model.gguf_header import read_gguf_header
        from phikit.model.gguf_read import load_gguf
        from phikit.model.gguf_tokenizer import read_tokenizer

        meta = read_meta(path)
        try:
            tokenizer = read_tokenizer(read_gguf_header(path).keys)
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from e
        place = choose_device(device)
        model, _ = load_gguf(path, dtype=_dtype(bf16, place))
        return cls(
            model.to(place), tokenizer, name=f"{path.stem}@{meta.fingerprint}", source=f"gguf:{meta.file_type}",
            dialog=chat_of_gguf(meta, tokenizer),
        )  # fmt: skip

    def stretch(self, context: int) -> None:
        """Takes up to `context` tokens, perhaps more than the network was trained on: RoPE has no end, and what
        becomes of its answers there is for the caller to measure."""
        self.info = replace(self.info, context=context)
        with torch.inference_mode():
            self.network.reach(context)

    @property
    def usage(self) -> Usage:
        return self.counter.usage()

    def encode_pieces(self, pieces: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of pieces (text, special) of a rendered conversation."""
        return (self.dialog or FileChat(self.tokenizer, None, ())).encode_pieces(pieces)

    def close(self) -> None: ...

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        self.check(requests)
        done: dict[int, dict[int, Completion]] = {i: {} for i in range(len(requests))}
        prompts = Prompts(self.network, self.counter, requests, self.info.context)
        for s in self._decode(requests, prompts):
            echo = prompts.prompt_logprobs(s.spec)
            done[s.request][s.number] = Completion(
                self._text(s), tuple(s.tokens), tuple(s.logprobs), s.finish, tuple(s.top), echo
            )
            if len(done[s.request]) == requests[s.request].n:
                ready = done.pop(s.request)
                yield s.request, [ready[j] for j in sorted(ready)]

    def stream(self, request: GenRequest) -> Iterator[Piece]:
        """One sample, token by token; sample 0 of what `generate` gives for the request."""
        if request.n != 1:
            raise ValueError("stream gives one sample; use generate or steps")
        for _, piece in self.steps(request):
            yield piece

    def steps(self, request: GenRequest) -> Iterator[tuple[int, Piece]]:
        """The n samples of a request token by token: (sample, piece)."""
        self.check([request])
        if request.prompt_logprobs:
            raise ValueError("steps gives no prompt_logprobs; use generate")
        pieces = [Pieces(request.stop) for _ in range(request.n)]
        prompts = Prompts(self.network, self.counter, [request], self.info.context)
        for s in self._decode([request], prompts, watch=True):
            token, finish = s.tokens[-1], None
            text = pieces[s.number].add(
                b"" if token in request.stop_ids else self.tokenizer.token_bytes(token)
            )
            if s.finish == "stop" or len(s.tokens) == s.limit:
                text, finish = text + pieces[s.number].end(), s.finish
            yield s.number, Piece(text, (token,), (s.logprobs[-1],), finish, tuple(s.top[-1:]))

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Every token that requests share from their beginning is computed once. The last token of a continuation
        is never an input, so continuations that differ only there (the letters of a multiple-choice question)
        cost nothing beyond their context."""
        return [
            Score(float(values.sum()), bool(greedy.all()), len(values))
            for values, greedy in self.score_tokens(requests)
        ]

    def score_tokens(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """As `score`, for each token of each continuation: its log-probability, and whether it was the arg-max."""
        steps = self.score_windows(requests)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    @torch.inference_mode()
    def score_windows(self, requests: Sequence[ScoreRequest]) -> Generator[int, None, list[TokenScores]]:
        """`score_tokens` in steps, a window each; yields how many tokens it computed."""
        for i, r in enumerate(requests):
            self._check_score(i, r)
        inputs = [(r.context + r.continuation)[:-1] for r in requests]
        trie = build_trie(inputs, [len(r.context) - 1 for r in requests])
        targets = Targets(self.network)
        for i, (r, nodes) in enumerate(zip(requests, trie.nodes)):
            targets.add(i, nodes, r.continuation)
        targets.ready()
        for first, hidden in Prefill(self.network, trie, self.counter):
            targets.take(first, hidden)
            yield len(hidden)
        spans = [targets.spans[i] for i in range(len(requests))]
        return [(targets.values[s], targets.greedy[s]) for s in spans]

    def check(self, requests: Sequence[GenRequest]) -> None:
        for i, r in enumerate(requests):
            if r.grammar is not None or r.json_schema is not None:
                raise ValueError("TorchEngine does not do grammars nor JSON schemas; use a GGUF engine")
            if not r.prompt or len(r.prompt) + 1 > self.info.context:
                raise PromptTooLong(
                    f"request {i}: a prompt of {len(r.prompt)} tokens; {self.info.name} takes "
                    f"1 to {self.info.context - 1}"
                )

    def _check_score(self, i: int, r: ScoreRequest) -> None:
        n = len(r.context) + len(r.continuation)
        if not r.context or not r.continuation or n > self.info.context:
            raise PromptTooLong(
                f"score request {i}: {len(r.context)} + {len(r.continuation)} tokens; {self.info.name} takes a context "
                f"and a continuation of at least one token, {self.info.context} together"
            )

    # -- decoding ---------------------------------------------------------------------------------------------

    def _text(self, sample: Sample) -> str:
        tokens = sample.tokens
        if tokens and tokens[-1] in sample.spec.stop_ids:
            tokens = tokens[:-1]
        return self.tokenizer.decode(tokens)[: sample.cut]

    @torch.inference_mode()
    def _decode(
        self, requests: Sequence[GenRequest], prompts: Prompts, watch: bool = False
    ) -> Iterator[Sample]:
        """Finished samples; with `watch` every sample after each of its tokens (for streaming)."""
        texts = any(r.stop for r in requests)
        state = self._slots(requests, prompts)
        while True:
            fresh = prompts.take(len(state.free))
            yield from (
                s for s, _, _ in fresh if s.limit == 0
            )  # asked for the prompt's log-probabilities alone
            state.admit([f for f in fresh if f[0].limit > 0])
            if not state.live:
                if not prompts.left:
                    return
                continue
            slots, ids, ended = state.draw()
            self.counter.generated += len(slots)
            for i in range(len(slots)) if watch else state.may_close(slots, ids) if texts else ():
                s = state.read(int(slots[i]))
                if s.finish == "length" and self._stopped(s):
                    s.finish = "stop"
                    ended[i] = True
            if watch:
                yield from state.live.values()
            else:
                yield from [state.read(slot) for slot in slots[ended].tolist()]
            state.advance(slots, ids, ended)

    def _slots(self, requests: Sequence[GenRequest], prompts: Prompts) -> Slots:
        samples, unique = sum(r.n for r in requests), len({r.prompt for r in requests})
        lanes = max(1, min(LANES, samples // max(1, unique)))
        longest = max((len(r.prompt) for r in requests), default=1) - prompts.since
        answers = (min(r.max_tokens, self.info.context - len(r.prompt)) for r in requests)
        most = max(answers, default=0)
        size = max(1, min(self.slots, samples, self.room(most + 2 * longest // lanes + 1)))
        rows = Rows(self.network, Groups(self.network, lanes, longest), prompts.root, size, most + 1)
        return Slots(rows, size, [r.stop_ids for r in requests], self._closers([r.stop for r in requests]))

    def _closers(self, stops: Sequence[tuple[str, ...]]) -> list[torch.Tensor]:
        """For each request, [V] bool: the tokens that hold the last byte of one of its stop strings. None of these can
        be complete after another token, so that a text is looked at no oftener."""
        known: dict[tuple[str, ...], torch.Tensor] = {}
        for stop in dict.fromkeys(stops):
            known[stop] = torch.zeros(self.info.vocab, dtype=torch.bool)
            if stop and not self.tokenizer.is_byte_level:
                known[stop].fill_(True)
            else:
                for byte in {s.encode()[-1] for s in stop if s}:
                    known[stop] |= self._with_byte(byte)
        return [known[stop] for stop in stops]

    def _with_byte(self, byte: int) -> torch.Tensor:
        """[V] bool: the tokens that hold a byte. Looked for once: every call of a search has the same stop strings."""
        if byte not in self._holders:
            found = torch.zeros(self.info.vocab, dtype=torch.bool)
            ids = range(min(self.info.vocab, self.tokenizer.vocab_size))
            found[[t for t in ids if byte in self.tokenizer.token_bytes(t)]] = True
            self._holders[byte] = found
        return self._holders[byte]

    def room(self, positions: int) -> int:
        """How many samples of so many positions the memory holds."""
        row, device = self.network.cache_bytes * positions, self.network.device
        if self.cache_bytes is not None or device.type == "cpu":
            return (self.cache_bytes or CACHE_BYTES) // row
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(FREE * free) // (row + 4 * LOGITS * self.info.vocab)

    def _stopped(self, s: Sample) -> bool:
        """Whether a stop string is complete; notes where it begins. Only the newest tokens are decoded: a
        character is at most four byte tokens."""
        if not s.spec.stop:
            return False
        tail = self.tokenizer.decode(s.tokens[-4 * max(map(len, s.spec.stop)) :])
        if not any(x in tail for x in s.spec.stop):
            return False
        text = self.tokenizer.decode(s.tokens)
        s.cut = min(at for at in (text.find(x) for x in s.spec.stop) if at >= 0)
        return True


def _dtype(bf16: bool | None, device: torch.device) -> DTypeName:
    return "bf16" if (device.type == "cuda" if bf16 is None else bf16) else "fp32"
