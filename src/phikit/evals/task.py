"""What a task is: a declaration of its data, its prompt, how an answer is produced and how it is graded.

A task does no I/O and knows no engine. `prompts.py` makes its prompts, `run.py` asks them, `summary.py` turns the
records into scores with intervals. docs/evals.md shows a whole task file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from phikit.records.types import Turn

Row = Mapping[str, Any]
Outcome = Literal[
    "right", "wrong", "unparsed", "cut", "timeout", "refused", "too_long", "error", "scored", "not_attempted"
]
OUTCOMES: tuple[str, ...] = Outcome.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Item:
    """One question as the model reads it, without examples. Text is used as it is: no strip, no blank added.

    `choices` are the texts of which one is right (`gold`, its index) where a task scores log-likelihoods.
    `target` is what follows the prompt where the item serves as an example. `reference` is what the grader compares
    an answer with; it must be JSON-able. `group` (subject, language, length) gets a line of its own in the table.
    Items of one `cluster` stand or fall together (questions on one passage); without it each stands alone. `text` is
    what the contamination check looks for in training text, where that is not the prompt."""

    id: str
    prompt: str
    choices: tuple[str, ...] = ()
    gold: int = -1
    target: str = ""
    reference: Any = None
    group: str = ""
    cluster: str = ""
    system: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model gave: a text, or the log-probability of each choice. `finish`: stop | length (cut by max_tokens)
    | refused | error."""

    text: str = ""
    finish: str = "stop"
    tokens: int = 0
    logprobs: tuple[float, ...] = ()
    greedy: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Graded:
    """Values by metric name, one outcome for the counts, what was read as the answer (`said`), and a detail such as
    the error of a program. An outcome other than right, wrong and scored is counted apart in every table."""

    scores: Mapping[str, float]
    outcome: Outcome
    said: str = ""
    detail: str = ""


Grade = Callable[[Item, Answer], Graded]


class Source(Protocol):
    """What `Task.items` may ask for: rows of its pack, seeded randomness, and the model's own token counts (for
    prompts of a given length)."""

    seed: int
    run: int
    length: int | None  # tokens a long-context prompt should fill; None: the task's own
    cutoff: str  # items dated on or after it are fresh; "": not asked

    def rows(self, split: str, pack: str = "") -> Sequence[Row]: ...

    def rng(self, *parts: object) -> random.Random: ...

    def count(self, text: str) -> int: ...

    def used(self, path: Path) -> None:
        """Notes a file that is no pack's, so that its hash is in the report."""
        ...


@dataclass(frozen=True, slots=True)
class Shots:
    """Worked examples before the question: `n` rows of `split` (`a|b`: the first of these splits that is there; which
    one is recorded). `draw`:

    first   the first n, of the item's group where items have groups: lm-eval's `first_n`
    random  n drawn for each item in order by one Random(seed): lm-eval's default
    fixed   n drawn once by Random(seed), the same for all items; where `split` is also the one that is evaluated,
            these rows are not evaluated

    An item is never its own example."""

    n: int
    split: str = "train"
    draw: Literal["first", "random", "fixed"] = "first"
    seed: int = 1234
    joiner: str = "\n\n"


@dataclass(frozen=True, slots=True)
class Choices:
    """Log-likelihood: each choice after the prompt and `delimiter`. Metrics `acc` (highest sum of log-probabilities)
    and `acc_norm` (highest sum per character of the choice), as lm-eval defines them."""

    delimiter: str = " "


@dataclass(frozen=True, slots=True)
class Generate:
    """Generation, then `grade`. `chat`: the prompt is a user turn rendered by the model's own template; else plain
    text that the model continues. `runs` answers an item, by different seeds (at temperature 0 there is only one)."""

    grade: Grade
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    chat: bool = False
    runs: int = 1


@dataclass(frozen=True, slots=True)
class Judge:
    """Grading by another model, after all answers are there: `ask` makes the judge's conversation, `read` its verdict
    of the judge's text (an outcome `unparsed` where it cannot be read). `votes` verdicts at `temperature`, averaged;
    the outcome is the most frequent. `schema` holds the judge's text to JSON where its backend can. `swapped` asks the
    same with the two answers that are compared in the other order: both orders count alike, and both must be
    readable."""

    ask: Callable[[Item, Answer], Sequence[Turn]]
    read: Callable[[Item, Answer, str], Graded]
    max_tokens: int = 512
    votes: int = 1
    temperature: float = 0.0
    schema: Mapping[str, Any] | None = None
    swapped: Judge | None = None


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation with a simulated user, played by the judge's model (report section 7): `turns` answers of the
    model under test, the first to the item's prompt. `ask(item, conversation)` are the turns that make the simulator
    write the next user turn. The item's answer is the conversation from the first answer on (`talk.py`)."""

    ask: Callable[[Item, Sequence[Turn]], Sequence[Turn]]
    turns: int = 3
    max_tokens: int = 160


@dataclass(frozen=True)
class Task:
    """`item` makes an item of a row of `split`; or `items` makes them all (generated and permuted data), anew for each
    run where `per_run`. `head` stands before the examples. The first of `metrics` is the task's score. `derived`
    metrics are functions of the other metrics' means (an F1 of shares, points of 150); their intervals are jackknife
    ones. `per_item` metrics are (least number of runs, function of the first metric's values over an item's runs), such
    as pass@k; with fewer runs they are left out. `contrast` names two groups whose difference gets a line of its own;
    `cutoff` (a date, YYYY-MM-DD) is for tasks that tell fresh items from old ones. `ungraded` are the values, by
    outcome, of an answer that could not be graded (too_long, error, refused, or unparsed by the judge), where they are
    not 0: of a metric that is better when lower, the worst. `tests` says that grading runs programs, which needs the
    sandbox."""

    name: str
    title: str
    suite: str
    pack: str
    output: Choices | Generate
    metrics: tuple[str, ...]
    item: Callable[[Row], Item] | None = None
    items: Callable[[Source], Iterable[Item]] | None = None
    split: str = "test"
    shots: Shots | None = None
    head: str | Callable[[Item], str] = ""
    derived: Mapping[str, Callable[[Mapping[str, float]], float]] = field(default_factory=dict)
    per_item: Mapping[str, tuple[int, Callable[[Sequence[float]], float]]] = field(default_factory=dict)
    judge: Judge | None = None
    talk: Talk | None = None
    contrast: tuple[str, str] | None = None
    cutoff: str = ""
    ungraded: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    per_run: bool = False
    tests: bool = False
    length: int | None = None
    version: int = 1
    note: str = ""  # what differs from the published protocol, shown in the report

    def __post_init__(self) -> None:
        if (self.item is None) == (self.items is None):
            raise ValueError(f"task {self.name}: give `item` (of a row) or `items` (of a source), not both")
        if self.shots is not None and self.item is None:
            raise ValueError(f"task {self.name}: examples are made by `item`; `items` builds its own prompts")
        if not self.metrics:
            raise ValueError(f"task {self.name}: name at least one metric")
        if (
            isinstance(self.output, Generate)
            and self.runs > 1
            and not self.output.temperature
            and not self.per_run
        ):
            raise ValueError(
                f"task {self.name}: {self.runs} runs at temperature 0 are one; raise temperature"
            )

    @property
    def runs(self) -> int:
        return self.output.runs if isinstance(self.output, Generate) else 1

    @property
    def by_item(self) -> dict[str, Callable[[Sequence[float]], float]]:
        """The `per_item` metrics that the number of runs allows."""
        return {name: value for name, (least, value) in self.per_item.items() if self.runs >= least}

    @property
    def kind(self) -> str:
        if isinstance(self.output, Choices):
            return "log-likelihood"
        return "chat" if self.output.chat else "completion"


def age(date: str, cutoff: str) -> str:
    """The group of an item where fresh ones are told from old ones; both dates are YYYY-MM-DD. An item without a date
    is neither."""
    return "undated" if not date else "fresh" if date >= cutoff else "old"
