"""The engine protocol: generate and score. Token ids cross the border, never strings.

An engine is a checkpoint folder (`TorchEngine`), a GGUF in a llama.cpp child process (`LlamaEngine`), an
OpenAI-compatible endpoint (`RemoteEngine`) or a script (`ScriptedEngine`, for tests). Who calls one knows none
of them: `synth`, `preference` and `evals` see this page only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from phikit.records.types import Completion, Finish, Score, Turn


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """`numerics`: exact-fp32 | bf16 | fp32-of-gguf:<type> | gguf:<type> | remote | scripted. Results of
    different classes are only compared statistically. `context` is in tokens."""

    name: str
    context: int
    vocab: int
    numerics: str


@dataclass(frozen=True, slots=True)
class GenRequest:
    """`n` samples from one prompt. temperature 0 is greedy. `seed` decides every sample alone: the result does not
    depend on which other requests share the batch (exactly so in fp32). `stop_ids` end a completion and are
    kept as its last token; `stop` strings end it and are cut from the text. `top_logprobs` asks for the most
    probable alternatives of each sampled token, `prompt_logprobs` for the log-probabilities of the prompt's own
    tokens; an engine that cannot tell raises.

    `top_k`, `min_p` and the penalties change what is drawn (`draw.shaped`), never the log-probabilities told.
    Penalties look at the last `repeat_last` tokens, prompt included; -1: at all."""

    prompt: tuple[int, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    stop_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    seed: int = 0
    grammar: str | None = None  # GBNF; only engines that say so honour it, others raise
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    json_schema: str | None = None  # JSON text; as grammar, and not both
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last: int = 64

    @property
    def is_shaped(self) -> bool:
        """Whether logits are changed before a draw: by top_k and min_p only where there is a choice."""
        return (self.temperature > 0 and (self.top_k > 0 or self.min_p > 0)) or self.has_penalties

    @property
    def has_penalties(self) -> bool:
        some = self.repeat_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0
        return some and self.repeat_last != 0


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens an engine processed since it was opened: prefilled (computed, not reused) and generated."""

    prefilled: int = 0
    generated: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A step of `stream`: the ids it brought, their log-probabilities, and the text that became final with them
    ("" while a character or a stop string is open), `top` as in Completion. `finish` is set on the last piece
    only. Together the pieces are the completion that `generate` gives."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish | None = None
    top: tuple[tuple[tuple[int, float], ...], ...] = ()


class PromptTooLong(ValueError):
    """A prompt (plus one token) does not fit the context: the numbers are in the message. Never cut silently."""


class Engine(Protocol):
    info: EngineInfo

    @property
    def usage(self) -> Usage: ...

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; special-token strings in it are text, not specials."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are left out."""
        ...

    def render(self, turns: Sequence[Turn]) -> list[int]:
        """Ids of a conversation with an open assistant header at its end (the model's own chat template)."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an assistant turn (end of turn, end of text)."""
        ...

    def generate(self, requests: Sequence[GenRequest]) -> Iterator[tuple[int, list[Completion]]]:
        """(request index, its n completions) as they finish, in any order."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Log-likelihood of each continuation given its context, in order."""
        ...

    def close(self) -> None: ...


@dataclass
class Counter:
    """What engines keep to report `usage`."""

    prefilled: int = 0
    generated: int = 0
    extra: dict[str, int] = field(default_factory=dict)

    def usage(self) -> Usage:
        return Usage(self.prefilled, self.generated)
