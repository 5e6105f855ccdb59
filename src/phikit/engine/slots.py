"""Samples that are being drawn: their tokens so far, what ends them, and the row each one reads from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from phikit.engine.base import GenRequest
from phikit.engine.draw import shaped
from phikit.engine.prefill import Kept
from phikit.engine.rows import COLUMNS, Rows, grown
from phikit.engine.sampling import pick, uniforms
from phikit.records.types import Finish


@dataclass(eq=False)
class Sample:
    request: int
    number: int
    spec: GenRequest
    limit: int  # most tokens, by max_tokens and the context
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    finish: Finish = "length"
    cut: int | None = None


class Slots:
    """`size` samples at most; `stops[i]` are the token ids that end samples of request i, `closers[i]` the ones after
    which one of its stop strings may be complete. Slot numbers are the first index of the tensors here and do not
    change while a sample lives."""

    def __init__(
        self, rows: Rows, size: int, stops: Sequence[tuple[int, ...]], closers: Sequence[torch.Tensor]
    ) -> None:
        self.rows, self.size, self.vocab = rows, size, rows.net.config.vocab
        self.live: dict[int, Sample] = {}
        self.wants_top = self.is_shaped = False
        self.free = list(range(size))[::-1]
        self.tokens = torch.zeros(size, COLUMNS, dtype=torch.long)
        self.logprobs = torch.zeros(size, COLUMNS)
        self.drawn, self.limit, self.kind, self.closer, self.row = torch.zeros(
            5, size, dtype=torch.long
        ).unbind()
        self.key = np.zeros(size, dtype=np.uint64)
        kinds = {stop: i for i, stop in enumerate(dict.fromkeys(stops))}
        self.kinds = [kinds[stop] for stop in stops]
        self.stop = torch.zeros(max(1, len(kinds)), self.vocab, dtype=torch.bool)
        for stop, i in kinds.items():
            self.stop[i, [t for t in stop if 0 <= t < self.vocab]] = True

        table = {id(c): c for c in closers}
        places = {c: i for i, c in enumerate(table)}
        self.closers = [places[id(c)] for c in closers]
        self.closes = torch.stack(list(table.values())) if table else torch.zeros(1, 0, dtype=torch.bool)

    def may_close(self, slots: torch.Tensor, ids: torch.Tensor) -> list[int]:
        """Which of the drawn tokens may complete a stop string."""
        return self.closes[self.closer[slots], ids].nonzero()[:, 0].tolist()

    def admit(self, fresh: Sequence[tuple[Sample, Kept, torch.Tensor]]) -> None:
        """New samples, each with its prompt and the hidden state after it."""
        opened: dict[tuple[Hashable, ...], int] = {}
        for s, prompt, hidden in fresh:
            r = s.spec
            # What is shaped looks at its own tokens: it shares no row with others.
            how = (prompt, s.request if r.is_shaped else -1, r.temperature, r.top_p)
            if how not in opened:
                opened[how] = self.rows.open(prompt, hidden, len(r.prompt), r.temperature, r.top_p)
            slot = self.free.pop()
            self.live[slot] = s
            self.wants_top |= r.top_logprobs > 0
            self.is_shaped |= r.is_shaped
            self.drawn[slot], self.limit[slot], self.kind[slot] = 0, s.limit, self.kinds[s.request]
            self.closer[slot] = self.closers[s.request]
            self.row[slot], self.key[slot] = opened[how], sample_key(r.seed, s.number)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One token for every sample: slots, ids, and whether a stop id or the limit ends the sample."""
        slots, rows = torch.tensor(list(self.live)), self.rows
        logits = rows.net.logits(rows.hidden[: rows.n])
        drawn, row = self.drawn[slots], self.row[slots]
        u = torch.from_numpy(uniforms(self.key[slots.numpy()], drawn.numpy())).to(logits.device)
        there = row.to(logits.device)
        ids, logprobs = pick(self._shaped(logits), rows.temperature[: rows.n], rows.top_p[: rows.n], u, there)
        if self.is_shaped:  # what is told is the model's own
            logprobs = torch.log_softmax(logits, -1)[there, ids]
        ids, logprobs = ids.cpu(), logprobs.cpu()  # all that leaves the device in a step
        if self.wants_top:
            self._note_top(logits)
        if int(drawn.max()) == self.tokens.shape[1]:
            self.tokens, self.logprobs = (
                grown(x.T, 2 * x.shape[1]).T.contiguous() for x in (self.tokens, self.logprobs)
            )
        self.tokens[slots, drawn] = ids
        self.logprobs[slots, drawn] = logprobs
        self.drawn[slots] = drawn + 1
        return slots, ids, self.stop[self.kind[slots], ids] | (drawn + 1 >= self.limit[slots])

    def read(self, slot: int) -> Sample:
        """The sample of a slot with its tokens so far; says whether the last one is a stop id."""
        s, n = self.live[slot], int(self.drawn[slot])
        s.tokens, s.logprobs = self.tokens[slot, :n].tolist(), self.logprobs[slot, :n].tolist()
        s.finish = "stop" if s.tokens[-1] in s.spec.stop_ids else s.finish
        return s

    def advance(self, slots: torch.Tensor, ids: torch.Tensor, ended: torch.Tensor) -> None:
        """Ends samples and runs the tokens of the others through the network."""
        for slot in slots[ended].tolist():
            del self.live[slot]
            self.free.append(slot)
        self.wants_top = self.wants_top and any(s.spec.top_logprobs for s in self.live.values())
        slots, ids = slots[~ended], ids[~ended]
        # Samples of one row that drew the same token go on as one row.
        paths, mine = np.unique((self.row[slots] * self.vocab + ids).numpy(), return_inverse=True)
        row = self.rows.branch(paths // self.vocab)
        self.row[slots] = torch.from_numpy(row[mine])
        if len(row):
            tokens = np.empty(len(row), dtype=np.int64)
            tokens[row] = paths % self.vocab
            self.rows.advance(torch.from_numpy(tokens))

    def _shaped(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits that are drawn from: those of rows whose requests change them are changed in a copy."""
        if not self.is_shaped:
            return logits
        changed = logits.clone()
        for slot, s in self.live.items():
            if s.spec.is_shaped:
                row, n = int(self.row[slot]), int(self.drawn[slot])
                tokens = [*s.spec.prompt, *self.tokens[slot, :n].tolist()]
                own = shaped(logits[row].cpu().numpy(), s.spec, tokens)
                changed[row] = torch.from_numpy(own).to(logits.device)
        return changed

    def _note_top(self, logits: torch.Tensor) -> None:
        """The most probable tokens of this step, for the samples that ask for them."""
        some = [(slot, s) for slot, s in self.live.items() if s.spec.top_logprobs]
        most = min(max(s.spec.top_logprobs for _, s in some), logits.shape[1])
        rows = self.row[[slot for slot, _ in some]]
        values, ids = torch.log_softmax(logits[rows.to(logits.device)], -1).topk(most)
        for (_, s), v, i in zip(some, values.tolist(), ids.tolist()):
            k = s.spec.top_logprobs
            s.top.append(tuple(zip(i[:k], v[:k])))


def sample_key(seed: int, number: int) -> int:
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
