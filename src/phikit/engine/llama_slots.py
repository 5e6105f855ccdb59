"""Continuous batching over llama.cpp's sequences. Runs in the child process of LlamaEngine.

Every step computes one token of each sample that is under way and, in the room that is left, the next part of the
prompts that wait. The n samples of a request share one computation of its prompt, and a prompt that begins as
another slot's tokens do takes that part of the cache over instead of computing it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from phikit.engine.base import GenRequest
from phikit.engine.draw import best, log_total, pick, sample_key, shaped, uniform
from phikit.engine.llama_c import Context, Grammar, Model
from phikit.engine.pieces import Pieces
from phikit.engine.wire import Alternatives, Done, Fault, Reply, Token
from phikit.records.types import Finish

_SHARE = 16  # a common beginning longer by this many tokens is worth a copy, or waiting for


@dataclass(eq=False)
class Job:
    """A request, and what its samples share: logits after the prompt, once they are known."""

    id: int
    request: GenRequest
    stream: bool
    left: deque[int] = field(default_factory=deque)  # samples not begun
    first: np.ndarray | None = None
    cancelled: bool = False


@dataclass(eq=False)
class Sample:
    job: Job
    number: int
    key: int
    pieces: Pieces
    grammar: Grammar | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[Alternatives] = field(default_factory=list)
    prefilled: int = 0


@dataclass(eq=False)
class Slot:
    """One sequence of the cache: the first `held` of `tokens` are computed. It keeps them after its sample."""

    index: int
    tokens: list[int] = field(default_factory=list)
    held: int = 0
    sample: Sample | None = None
    used: int = 0  # the step it was last used in


class Slots:
    def __init__(
        self, model: Model, count: int, length: int, batch: int, say: Callable[[Reply], None]
    ) -> None:
        self.model, self.length, self.say = model, length, say
        self.context = Context(model, sequences=count, length=length, batch=batch, outputs=count)
        self.slots = [Slot(i) for i in range(count)]
        self.jobs: deque[Job] = deque()  # with samples not begun
        self.steps = 0

    def try_out(self) -> None:
        """Computes one token, so that a file which makes llama.cpp fail does so now. Raises ValueError."""
        if not np.isfinite(log_total(self.context.decode([0], [0], [0], [True])[0])):
            raise ValueError("the network gives numbers that are not finite")
        self.context.clear()

    def add(self, job: Job) -> None:
        job.left.extend(range(job.request.n))
        self.jobs.append(job)

    def cancel(self, ids: set[int]) -> None:
        self.jobs = deque(j for j in self.jobs if j.id not in ids)
        for slot in self.slots:
            if slot.sample and slot.sample.job.id in ids:
                slot.sample.job.cancelled = True
                self._release(slot)

    @property
    def busy(self) -> bool:
        return bool(self.jobs) or any(s.sample for s in self.slots)

    def step(self) -> None:
        """Begins what has room, computes one batch and takes a token for every sample that got logits."""
        self.steps += 1
        self._admit()
        self._close_gap()
        batch = self._plan()
        if not batch:
            return
        tokens, positions, sequences, wanted = [], [], [], []
        for slot, count in batch:
            end = slot.held + count
            tokens += slot.tokens[slot.held : end]
            positions += range(slot.held, end)
            sequences += [slot.index] * count
            wanted += [False] * (count - 1) + [end == len(slot.tokens)]
        try:
            logits = self.context.decode(tokens, positions, sequences, wanted)
        except RuntimeError as e:
            self._fail([slot for slot, _ in batch], str(e))
            return
        row = 0
        for slot, count in batch:
            slot.held += count
            slot.used = self.steps
            if slot.held < len(slot.tokens):
                continue
            assert slot.sample
            job = slot.sample.job
            if not slot.sample.tokens and job.left and job.first is None:
                job.first = logits[row].copy()
            self._take(slot, logits[row])
            row += 1

    def _plan(self) -> list[tuple[Slot, int]]:
        """(slot, tokens to compute), by slot: samples under way first, prompts as far as the batch has room."""
        room = self.context.batch
        counts: dict[int, int] = {}
        active = [s for s in self.slots if s.sample]
        for slot in sorted(active, key=lambda s: len(s.tokens) - s.held > 1):
            if count := min(len(slot.tokens) - slot.held, room):
                counts[slot.index] = count
                room -= count
        return [(s, counts[s.index]) for s in active if s.index in counts]

    def _admit(self) -> None:
        free = [s for s in self.slots if s.sample is None]
        for job in list(self.jobs):
            while job.left and free:
                slot = self._begin(job, free)
                if slot is None:  # waits for a prompt that is being computed
                    break
                free.remove(slot)
                if slot.sample is None:  # ended with its first token, or failed
                    free.append(slot)
            if not free:
                break
        self.jobs = deque(j for j in self.jobs if j.left)

    def _begin(self, job: Job, free: list[Slot]) -> Slot | None:
        prompt = list(job.request.prompt)
        # All but the last token at most, whose logits are needed, unless they are known.
        most = len(prompt) - (job.first is None)
        longest, source = -1, None
        slot = free[0]
        for one in sorted(free, key=lambda s: (s.held > 0, s.used, s.index)):
            if (shared := min(_common(one.tokens, one.held, prompt), most)) > longest:
                slot, longest = one, shared
        for other in self.slots:
            if other.sample is None:
                continue
            begin = len(other.sample.job.request.prompt)
            planned = min(_common(other.tokens, max(begin, other.held), prompt), most)
            if planned < longest + _SHARE and not (planned == most > longest and job.first is not None):
                continue
            if min(other.held, planned) < planned:  # being computed there
                return None
            source, longest = other, planned
        if job.first is None and len(job.left) < job.request.n and self._computing(job):
            return None
        if source is not None:
            slot = min(free, key=lambda s: (s.held > 0, s.used, s.index))
            self._copy(source, slot)
        slot.held = self.context.cut(slot.index, longest)
        slot.tokens, slot.used = prompt, self.steps
        number = job.left.popleft()
        try:
            grammar = grammar_of(self.model, job.request)
        except ValueError as e:
            job.left.clear()
            self.say(Fault(job.id, str(e), True))
            return slot
        pieces = Pieces(job.request.stop)
        slot.sample = Sample(job, number, sample_key(job.request.seed, number), pieces, grammar)
        slot.sample.prefilled = len(prompt) - slot.held
        if job.first is not None and slot.held == len(prompt):
            self._take(slot, job.first)
        return slot

    def _copy(self, source: Slot, target: Slot) -> None:
        self.context.copy(source.index, target.index)
        target.tokens, target.held = list(source.tokens), source.held

    def _close_gap(self) -> None:
        """llama.cpp computes neighbouring sequences in one pass and others in passes of their own, so the last
        sample moves into a gap when nobody waits for a slot."""
        active = [s for s in self.slots if s.sample]
        if self.jobs or len(active) < 2 or active[-1].index - active[0].index == len(active) - 1:
            return
        last = active[-1]
        gap = next(s for s in self.slots[active[0].index :] if s.sample is None)
        self._copy(last, gap)
        gap.sample, last.sample = last.sample, None
        last.tokens = last.tokens[: last.held]

    def _computing(self, job: Job) -> bool:
        return any(s.sample and s.sample.job is job and not s.sample.tokens for s in self.slots)

    def _take(self, slot: Slot, logits: np.ndarray) -> None:
        """Draws the next token of the slot's sample from logits [vocab]."""
        sample = slot.sample
        assert sample
        request, t = sample.job.request, len(sample.tokens)
        drawn = shaped(logits, request, slot.tokens) if request.is_shaped else logits
        with np.errstate(all="ignore"):  # what is not finite is refused next
            token, total = pick(drawn, request.temperature, request.top_p, uniform(sample.key, t))
            total = total if drawn is logits else log_total(logits)
        if not np.isfinite(total):
            self._fail([slot], "the network gives numbers that are not finite")
            return
        if sample.grammar and not sample.grammar.allows(token):
            # An allowed first draw or a draw among the allowed: together that is the masked distribution.
            masked = sample.grammar.mask(logits)
            if request.is_shaped:
                masked = shaped(masked, request, slot.tokens)
            if not np.isfinite(masked.max()):
                self._fail([slot], "the grammar allows no token here")
                return
            token, _ = pick(masked, request.temperature, request.top_p, uniform(sample.key ^ 1, t))
        sample.tokens.append(token)
        sample.logprobs.append(float(logits[token]) - total)
        if request.top_logprobs:
            sample.top.append(tuple(best(logits, total, request.top_logprobs)))
        slot.tokens.append(token)
        ended = token in request.stop_ids or (sample.grammar is not None and self.model.ends(token))
        said = "" if ended else sample.pieces.add(self.model.piece(token))
        if sample.grammar and not ended:
            sample.grammar.accept(token)
        finish: Finish | None = "stop" if ended or sample.pieces.stopped else None
        if finish is None and (len(sample.tokens) >= request.max_tokens or len(slot.tokens) >= self.length):
            finish = "length"
        if finish is None:
            if sample.job.stream:
                top = sample.top[-1] if sample.top else ()
                self.say(Token(sample.job.id, sample.number, token, sample.logprobs[-1], said, top))
            return
        rest = said + sample.pieces.end()
        # A stream has had all tokens but the last one.
        begin = len(sample.tokens) - 1 if sample.job.stream else 0
        text = rest if sample.job.stream else sample.pieces.text
        done = (
            sample.tokens[begin:],
            sample.logprobs[begin:],
            text,
            finish,
            sample.prefilled,
            sample.top[begin:],
        )
        self.say(Done(sample.job.id, sample.number, *done))
        self._release(slot)

    def _release(self, slot: Slot) -> None:
        if slot.sample and slot.sample.grammar:
            slot.sample.grammar.free()
        slot.sample = None
        slot.tokens = slot.tokens[: slot.held]

    def _fail(self, slots: list[Slot], why: str) -> None:
        for job in {s.sample.job for s in slots if s.sample}:
            self.say(Fault(job.id, why, False))
            self.cancel({job.id})
        for slot in slots:
            slot.held, slot.tokens = self.context.cut(slot.index, 0), []


def grammar_of(model: Model, request: GenRequest) -> Grammar | None:
    """Raises ValueError where the request's grammar or schema is not one."""
    if request.json_schema is not None:
        return Grammar(model, request.json_schema, schema=True)
    return Grammar(model, request.grammar, schema=False) if request.grammar is not None else None


def _common(held: list[int], count: int, prompt: list[int]) -> int:
    """How many of the first `count` tokens of `held` begin `prompt`."""
    high = min(count, len(prompt))
    if held[:high] == prompt[:high]:
        return high
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if held[low:middle] == prompt[low:middle] else (low, middle)
    return low
