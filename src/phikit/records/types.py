"""What flows through the recipe: frozen records whose id is a hash of their content.

Every record can be a JSON row (`to_row`, `from_row`); `parents` names the records it was made from, so that
`phikit trace` can walk from a preference pair or a shard back to the source file and the teacher call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from phikit.records.ids import content_id

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "refused", "error"]
PairKind = Literal["pivotal", "judged", "unknown", "safety"]


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `source` is the source name of the mixture (code, text, ...); `meta` holds path, licence, scores."""

    text: str
    source: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id("doc", self.source, self.text))


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Dialog:
    """A conversation; assistant turns are what SFT trains on. `meta` may hold `answer`, `kind`, scores."""

    turns: tuple[Turn, ...]
    source: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", tuple(_turn(t) for t in self.turns))
        if not self.id:
            object.__setattr__(
                self, "id", content_id("dialog", self.source, *(f"{t.role}:{t.content}" for t in self.turns))
            )


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine generated: text without the stop token, its ids (stop token included when one was
    sampled), the log-probability of each id under the sampling distribution's temperature-1 model, and why
    it ended (`stop`: a stop token or string; `length`: cut by max_tokens). Where the request asked for them:
    `top`, for each id the most probable (id, log-probability) pairs in its place, and `prompt_logprobs`, of the
    prompt's second to last token."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    top: tuple[tuple[tuple[int, float], ...], ...] = ()
    prompt_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """Log-likelihood of a given continuation: sum of natural-log probabilities over `tokens` tokens;
    `greedy` tells whether every token was the arg-max."""

    logprob: float
    greedy: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class Preference:
    """A pair for DPO. The context is the rendered `prompt` turns with an open assistant header, then
    `prefix_ids`. A pivotal pair has one-token `chosen_ids`/`rejected_ids` and no end of turn; a judged pair
    has whole answers that end with the end-of-turn token (report section 4.2, 4.3)."""

    prompt: tuple[Turn, ...]
    prefix_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen: str
    rejected: str
    kind: PairKind
    meta: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", tuple(_turn(t) for t in self.prompt))
        for name in ("prefix_ids", "chosen_ids", "rejected_ids"):
            object.__setattr__(self, name, tuple(int(i) for i in getattr(self, name)))
        if not self.id:
            key = [f"{t.role}:{t.content}" for t in self.prompt]
            key += [str(self.prefix_ids), str(self.chosen_ids), str(self.rejected_ids)]
            object.__setattr__(self, "id", content_id("pair", *key))


Record = Document | Dialog | Preference
R = TypeVar("R")


def to_row(record: Any) -> dict[str, Any]:
    """A JSON-able dict of a record; tuples become lists, turns become `{role, content}`."""
    row: dict[str, Any] = {}
    for f in fields(record):
        value = getattr(record, f.name)
        if f.name in ("turns", "prompt"):
            value = [{"role": t.role, "content": t.content} for t in value]
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        row[f.name] = value
    return row


def from_row(kind: type[R], row: Mapping[str, Any]) -> R:
    """The record of a row written by `to_row`. Unknown columns are an error that names them."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(row) - known):
        raise ValueError(f"a {kind.__name__} row has unknown columns {unknown}; known are {sorted(known)}")
    return kind(**{k: _tuples(v) for k, v in row.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _turn(value: Turn | Mapping[str, Any]) -> Turn:
    return value if isinstance(value, Turn) else Turn(value["role"], value["content"])


def turns(*pairs: Sequence[str]) -> tuple[Turn, ...]:
    """`turns(("user", "Hi"), ("assistant", "Hello"))` for short code and tests."""
    return tuple(Turn(role, content) for role, content in pairs)  # type: ignore[arg-type]
