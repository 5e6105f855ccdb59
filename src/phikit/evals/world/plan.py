"""What a task is: items in, engine requests out, outcome rows back. A task knows no engine and does no
I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from phikit.engine.base import Engine, GenRequest, ScoreRequest
from phikit.evals.asking import continuations
from phikit.records.ids import seed_of
from phikit.records.types import Completion, Score, Turn

Kind = Literal["base", "chat"]
Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """`problems` and `documents` cap the items (None: all). `window` is the context in tokens that bits per
    byte are measured with, equal for all checkpoints; None takes the engine's own."""

    problems: int | None = None
    samples: int = 4
    temperature: float = 1.0
    max_tokens: int = 64
    documents: int | None = 50
    window: int | None = None
    preference_samples: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one answer. `id` names the item and is the cluster; rows of two checkpoints pair by (id,
    sample). `weight` is the denominator of a ratio (bytes), 1 elsewhere. `outcome`: right, wrong, unparsed
    (no answer could be read), cut (by max_tokens), or scored where there is no right and wrong."""

    task: str
    metric: str
    id: str
    value: float
    outcome: str
    sample: int = 0
    weight: float = 1.0

    def row(self, checkpoint: str) -> dict[str, Any]:
        return {"checkpoint": checkpoint, **asdict(self)}


@dataclass(frozen=True)
class Generated:
    """Prompts to be answered; `rows` gets each request's completions, in the order of the requests."""

    requests: Sequence[GenRequest]
    rows: Callable[[Sequence[list[Completion]]], list[Row]]


@dataclass(frozen=True)
class Scored:
    """Continuations to be scored; `rows` gets the scores in the order of the requests."""

    requests: Sequence[ScoreRequest]
    rows: Callable[[Sequence[Score]], list[Row]]


Plan = Generated | Scored


class Prompter:
    """How a checkpoint is asked: a chat model by its template, a base model by the question and a line
    break."""

    def __init__(self, engine: Engine, kind: Kind) -> None:
        self.engine, self.kind = engine, kind

    def question(
        self,
        text: str,
        *,
        max_tokens: int,
        n: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        chat: bool = False,
    ) -> GenRequest:
        """The request that asks `text`; a base model's answer also ends at the next line break. `chat` asks a
        base model by the chat template too."""
        base = self.kind == "base" and not chat
        prompt = self.engine.encode(text + "\n") if base else self.engine.render([Turn("user", text)])
        return GenRequest(
            tuple(prompt),
            max_tokens,
            n,
            temperature,
            stop_ids=tuple(self.engine.stop_ids),
            stop=("\n",) if base else (),
            seed=seed,
        )

    def plain(self, text: str, *, max_tokens: int) -> GenRequest:
        """The greedy continuation of plain text, whatever the kind, to the next line break."""
        stop_ids = tuple(self.engine.stop_ids)
        return GenRequest(
            tuple(self.engine.encode(text)), max_tokens, temperature=0.0, stop_ids=stop_ids, stop=("\n",)
        )

    def samples(
        self, items: Sequence[Item], settings: Settings, n: int, *purpose: str, chat: bool = False
    ) -> list[GenRequest]:
        """`n` answers to the `question` of each item at the settings' temperature. The seed depends on the purpose (a
        task's name first) and the item alone, so that checkpoints are compared with common random numbers."""
        return [
            self.question(
                field(i, "question", purpose[0]),
                max_tokens=settings.max_tokens,
                n=n,
                temperature=settings.temperature,
                seed=seed_of(settings.seed, "eval", *purpose, i["id"]),
                chat=chat,
            )
            for i in items
        ]

    def continuation(self, context: str, text: str) -> ScoreRequest:
        """`text` after `context` as plain text, tokenized together; blanks at the end of the context belong to the
        continuation."""
        return continuations(self.engine, context, [text], " ")[0]


def field(item: Item, name: str, task: str) -> Any:
    """A field of an item; ValueError that names the task, the item and what is missing."""
    if item.get(name) is None:
        raise ValueError(
            f"task {task}, item {item.get('id', '?')}: no field {name!r} (it has {sorted(item)})"
        )
    return item[name]
