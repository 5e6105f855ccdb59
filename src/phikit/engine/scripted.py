"""ScriptedEngine: what a model says is a Python function. For tests of everything that calls an engine."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from phikit.engine.base import Counter, EngineInfo, GenRequest, PromptTooLong, ScoreRequest, Usage
from phikit.records.ids import seed_of
from phikit.records.types import Completion, Finish, Score, Turn

SPECIALS = ("<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|endoftext|>")
VOCAB = 256 + len(SPECIALS)
_IDS = {text: 256 + i for i, text in enumerate(SPECIALS)}
_LOG_SAID = math.log(0.99)  # the scripted token
_LOG_OTHER = math.log(0.01 / (VOCAB - 1))  # any other


class ScriptedEngine:
    """Ids are UTF-8 bytes; 256 and above are special tokens; conversations render as Phi-4's do.

    `script(prompt)` gets the prompt as text with specials shown and returns the answer; with `seeded=True` it
    is called as `script(prompt, seed)`, another seed for each of the n samples, and may differ by it. Each
    scripted token has probability 0.99. A grammar is accepted: the script is trusted to obey it."""

    def __init__(
        self,
        script: Callable[..., str],
        *,
        context: int = 1 << 16,
        seeded: bool = False,
        name: str = "scripted",
    ) -> None:
        self.info = EngineInfo(name, context, VOCAB, "scripted")
        self._script, self._seeded = script, seeded
        self._counter = Counter()
        self.prompts: list[str] = []  # every prompt the script saw, in order

    @property
    def usage(self) -> Usage:
        return self._counter.usage()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return (_IDS["<|im_end|>"], _IDS["<|endoftext|>"])

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")

    def render(self, turns: Sequence[Turn]) -> list[int]:
        start, sep, end = (_IDS[s] for s in SPECIALS[:3])
        ids: list[int] = []
        for turn in turns:
            ids += [start, *self.encode(turn.role), sep, *self.encode(turn.content), end]
        return [*ids, start, *self.encode("assistant"), sep]

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        for index, request in enumerate(requests):
            if request.top_logprobs or request.prompt_logprobs:
                raise ValueError("ScriptedEngine has no top_logprobs and no prompt_logprobs")
            if len(request.prompt) + 1 > self.info.context:
                raise PromptTooLong(f"a prompt of {len(request.prompt)} tokens, context {self.info.context}")
            self._counter.prefilled += len(request.prompt)
            yield index, [self._sample(request, k) for k in range(request.n)]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Token by token against the scripted answer to the context (seed 0) followed by the end of turn."""
        scores = []
        for request in requests:
            said = [*self._say(request.context, 0), self.stop_ids[0]]
            hits = [t == said[j] if j < len(said) else False for j, t in enumerate(request.continuation)]
            scores.append(Score(sum(_LOG_SAID if h else _LOG_OTHER for h in hits), all(hits), len(hits)))
            self._counter.prefilled += len(request.context) + len(request.continuation)
        return scores

    def close(self) -> None:
        return None

    def _say(self, prompt: Sequence[int], seed: int) -> bytes:
        text = b"".join(bytes([i]) if i < 256 else SPECIALS[i - 256].encode() for i in prompt).decode(
            "utf-8", "replace"
        )
        self.prompts.append(text)
        return (self._script(text, seed) if self._seeded else self._script(text)).encode()

    def _sample(self, request: GenRequest, k: int) -> Completion:
        answer = self._say(request.prompt, seed_of(request.seed, k))
        finish: Finish = "stop"
        ids = [*answer, self.stop_ids[0]]
        if request.stop and (m := re.search("|".join(re.escape(s) for s in request.stop).encode(), answer)):
            ids, answer = list(answer[: m.end()]), answer[: m.start()]
        ends = [j for j, t in enumerate(ids) if t in request.stop_ids]
        if ends:
            ids = ids[: ends[0] + 1]
            answer = bytes(t for t in ids[:-1] if t < 256)
        if len(ids) > request.max_tokens:
            ids, finish = ids[: request.max_tokens], "length"
            answer = bytes(t for t in ids if t < 256)
        self._counter.generated += len(ids)
        text = answer.decode("utf-8", "replace")
        return Completion(text, tuple(ids), (_LOG_SAID,) * len(ids), finish)
