"""Continuous batching for a server: requests come and go while the tokens of others are drawn.

All samples under way share the decode steps (`slots.py`, `rows.py`). A prompt is computed a CHUNK at a time between
two steps, so that a long one does not hold up the others. What a request is answered does not depend on who else is
there, but for the rounding of fp32 sums.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from phikit.engine.base import GenRequest, Piece
from phikit.engine.pieces import Pieces
from phikit.engine.prefill import Kept
from phikit.engine.prefixes import Groups
from phikit.engine.prompts import Prompts
from phikit.engine.rows import Rows
from phikit.engine.slots import Sample, Slots

if TYPE_CHECKING:
    from phikit.engine.torch_engine import TorchEngine

CHUNK = 256  # tokens of a prompt between two decode steps

Fresh = tuple[Sample, Kept, torch.Tensor]  # a sample, its prompt, the hidden state after it


@dataclass(eq=False)
class _Request:
    """`ready`: its samples that wait for a slot, once the prompt is computed."""

    number: int
    request: GenRequest
    prompts: Prompts
    ready: deque[Fresh] = field(default_factory=deque)


class Live:
    """At most `most` samples at a time; more wait, first come, first served."""

    def __init__(self, engine: TorchEngine, most: int) -> None:
        self.engine, self.most = engine, most
        self.waiting: deque[_Request] = deque()
        self._slots: Slots | None = None  # none while nothing is under way: the memory is given back
        self._owner: dict[Sample, int] = {}
        self._pieces: dict[Sample, Pieces] = {}
        self._gone: set[int] = set()

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self._owner

    def add(self, number: int, request: GenRequest) -> None:
        """Takes a request under a number of the caller's. Raises ValueError as `TorchEngine.generate` does, and for
        prompt_logprobs."""
        engine = self.engine
        engine.check([request])
        if request.prompt_logprobs:
            raise ValueError("a live batch gives no prompt_logprobs; use generate")
        with torch.inference_mode():
            prompts = Prompts(engine.network, engine.counter, [request], engine.info.context)
        prompts.prefill.window = min(prompts.prefill.window, CHUNK)
        self.waiting.append(_Request(number, request, prompts))

    def cancel(self, numbers: Collection[int]) -> None:
        """These say nothing more; their slots are free after the next step."""
        self.waiting = deque(r for r in self.waiting if r.number not in numbers)
        self._gone |= set(self._owner.values()) & set(numbers)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, int, Piece]]:
        """A chunk of the first prompt that waits and a token of every sample: (number, sample, piece)."""
        said = self._admit()
        if self._slots is not None:
            said += self._draw(self._slots)
            if not self._slots.live:
                self._slots = None
        return said

    def _admit(self) -> list[tuple[int, int, Piece]]:
        """Computes prompts, CHUNK tokens or a little more, and admits as far as there is room. Tells of samples that
        end before their first token."""
        said: list[tuple[int, int, Piece]] = []
        fresh: list[tuple[int, Fresh]] = []
        end = self.engine.counter.prefilled + CHUNK
        while self.waiting and len(self._owner) + len(fresh) < self._room(self.waiting[0]):
            first = self.waiting[0]
            if not first.ready:
                if self.engine.counter.prefilled >= end:
                    break
                first.ready += first.prompts.take_window()
            while first.ready and len(self._owner) + len(fresh) < self._room(first):
                one = first.ready.popleft()
                if one[0].limit > 0:
                    fresh.append((first.number, one))
                else:
                    said.append((first.number, one[0].number, Piece("", (), (), "length")))
            if not first.ready and not first.prompts.left:
                self.waiting.popleft()
        if fresh:
            self._slots = self._slots or self._new_slots()
            self._slots.admit([one for _, one in fresh])
            for number, (sample, _, _) in fresh:
                self._owner[sample], self._pieces[sample] = number, Pieces(sample.spec.stop)
        return said

    def _room(self, request: _Request) -> int:
        """Samples at a time, as many as the memory holds if all were as long as the longest of them may become."""
        specs = [request.request, *(s.spec for s in self._owner)]
        longest = max(min(len(r.prompt) + r.max_tokens, self.engine.info.context) for r in specs)
        return max(1, min(self.most, self.engine.room(longest)))

    def _new_slots(self) -> Slots:
        net, context = self.engine.network, self.engine.info.context
        groups = Groups(net, 1, 1, least=1)
        no_closer = torch.zeros(net.config.vocab, dtype=torch.bool)  # every new text is looked at here
        return Slots(Rows(net, groups, None, self.most, context), self.most, [()], [no_closer])

    def _draw(self, slots: Slots) -> list[tuple[int, int, Piece]]:
        engine, said = self.engine, []
        places, ids, ended = slots.draw()
        engine.counter.generated += len(places)
        logprobs = slots.logprobs[places, slots.drawn[places] - 1].tolist()
        for i, (place, token) in enumerate(zip(places.tolist(), ids.tolist())):
            sample = slots.live[place]
            number, pieces = self._owner[sample], self._pieces[sample]
            if number in self._gone:
                ended[i] = True
            else:
                stop = token in sample.spec.stop_ids
                text = pieces.add(b"" if stop else engine.tokenizer.token_bytes(token))
                stop |= pieces.stopped
                finish = "stop" if stop else "length" if ended[i] else None
                if finish:
                    text += pieces.end()
                    ended[i] = True
                top = tuple(sample.top[-1:])
                said.append((number, sample.number, Piece(text, (token,), (logprobs[i],), finish, top)))
            if ended[i]:
                del self._owner[sample], self._pieces[sample]
        self._gone &= set(self._owner.values())
        slots.advance(places, ids, ended)
        return said
