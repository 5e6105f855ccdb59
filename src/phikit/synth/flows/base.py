"""What every flow shares: the part of a teacher it needs, its prompts, its outcome.

A flow is `async def flow(seed, ask, ...) -> Outcome`: ordinary asynchronous Python with the prompts beside it
in `synth/prompts`. It asks through a `Recorder`, which keeps each prompt and answer for the data card and the
request keys for `phikit trace`.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Protocol

from phikit.ask.structured import ReadCounts, chat_json
from phikit.records.ids import content_id
from phikit.records.types import Dialog, Document, Turn

PROMPTS = Path(__file__).resolve().parent.parent / "prompts"
_HEAD = re.compile(r"^== (system|user|assistant)\n", re.MULTILINE)


class Answer(Protocol):
    """One answer: its text without the stop string, why it ended, and the key of its request in the log."""

    @property
    def text(self) -> str: ...
    @property
    def finish(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def replayed(self) -> bool: ...


class Ask(Protocol):
    """The part of `ask.Teacher` (or `ask.cast.Cast`) that a flow needs. Raises
    `phikit.ask.budget.BudgetExhausted`."""

    @property
    def holds(self) -> bool:
        """Whether answers can be held to a GBNF grammar; an endpoint takes a JSON schema only."""
        ...

    def role(self, name: str) -> Ask:
        """Who plays the role: writer, solver, critic or judge."""
        ...

    async def chat(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int = 128,
        temperature: float = 0.7,
        n: int = 1,
        seed: int = 0,
        grammar: str | None = None,
        schema: Mapping[str, Any] | None = None,
        stop: Sequence[str] = (),
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
    ) -> Sequence[Answer]: ...


class TeacherFailed(RuntimeError):
    """The teacher gave no answer to a prompt: `error` or `refused`, and the prompt's name."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed gave. `rejected` holds (reason, detail); `steps` (prompt, answer) in the order asked."""

    accepted: tuple[Document | Dialog, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    steps: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A template of turns: `== system`, `== user`, `== assistant` lines part them, `$name` is filled in.
    Earlier user and assistant turns are worked examples. `version` is the hash of the file."""

    name: str
    version: str
    turns: tuple[Turn, ...]

    def fill(self, **values: object) -> tuple[Turn, ...]:
        """The turns with every `$name` replaced; KeyError names one without a value."""
        return tuple(Turn(t.role, Template(t.content).substitute(values)) for t in self.turns)


@functools.cache
def prompt(name: str) -> Prompt:
    """The template `synth/prompts/<name>.md`; ValueError where it is not turns that end with the user's."""
    text = (PROMPTS / f"{name}.md").read_text(encoding="utf-8")
    before, *parts = _HEAD.split(text)
    turns = tuple(Turn(role, body.strip()) for role, body in zip(parts[::2], parts[1::2]))  # type: ignore
    if before.strip() or not turns or turns[-1].role != "user":
        raise ValueError(
            f"synth/prompts/{name}.md: begin with '== system' or '== user' and end with a user's turn"
        )
    return Prompt(name, content_id("prompt", text)[:12], turns)


@dataclass
class Recorder:
    """Asks for one flow and one seed, and keeps what was asked."""

    flow: str
    seed: Document
    ask: Ask
    steps: list[tuple[str, str]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    reads: ReadCounts = field(default_factory=ReadCounts)

    async def say(
        self,
        name: str,
        values: Mapping[str, object],
        *,
        role: str = "writer",
        held: str | None = None,
        **options: Any,
    ) -> list[Answer]:
        """The answers to prompt `name` filled with `values`; `options` go to `Ask.chat`. `held`: a GBNF grammar that
        keeps a small local model on its task; an endpoint answers freely, and every check of the flow stands either
        way. Raises TeacherFailed where no answer came."""
        template = prompt(name)
        turns = template.fill(**values)
        ask = self.ask.role(role)
        if held is not None and ask.holds:
            options["grammar"] = held
        answers = list(await ask.chat(turns, **options))
        self.versions[name] = template.version
        self._keep(turns, answers)
        if all(a.finish in ("error", "refused") for a in answers):
            raise TeacherFailed(answers[0].finish if answers else "error", name)
        return answers

    async def one(self, name: str, values: Mapping[str, object], **options: Any) -> Answer:
        """The one answer of `say`, or the first of several."""
        return (await self.say(name, values, **options))[0]

    async def tell(
        self,
        name: str,
        values: Mapping[str, object],
        schema: Mapping[str, Any],
        *,
        role: str = "writer",
        **options: Any,
    ) -> Any | None:
        """The JSON value of `schema` that answers a prompt; None where two answers could not be read, or where a string
        is as long as the schema allows: the grammar cut it. Raises TeacherFailed where no answer came."""
        template = prompt(name)
        turns = template.fill(**values)
        value, answer = await chat_json(self.ask.role(role), turns, schema, self.reads, **options)
        self.versions[name] = template.version
        self._keep(turns, [answer])
        if answer.finish in ("error", "refused"):
            raise TeacherFailed(answer.finish, name)
        if value is not None and _filled(value, schema):
            self.reads.drop("cut")
            return None
        return value

    def _keep(self, turns: Sequence[Turn], answers: Sequence[Answer]) -> None:
        for answer in answers:
            self.steps.append((turns[-1].content, answer.text))
            if answer.key not in self.keys:
                self.keys.append(answer.key)

    def reject(self, reason: str, detail: str = "") -> None:
        self.rejected.append((reason, detail[:400]))

    def give_up(self, reason: str, detail: str = "") -> Outcome:
        """The outcome of a seed that gives nothing: this is why."""
        self.reject(reason, detail)
        return self.outcome()

    def meta(self, **scores: Any) -> dict[str, Any]:
        """What an accepted row knows: its flow, prompt versions, request keys so far, and scores."""
        known = {
            "flow": self.flow,
            "prompts": dict(sorted(self.versions.items())),
            "requests": list(self.keys),
        }
        return {**known, **scores}

    def accept(self, turns: Sequence[Turn], meta: Mapping[str, Any]) -> Outcome:
        """The outcome of a seed that gives one conversation."""
        return self.outcome(Dialog(tuple(turns), "synthetic", dict(meta), (self.seed.id,)))

    def outcome(self, *accepted: Document | Dialog) -> Outcome:
        """What the seed gave. A record that says what a prompt's example says, and its seed does not, is rejected: a
        small teacher likes to copy."""
        kept = []
        for record in accepted:
            if run := self._copied(record):
                self.reject("copies the prompt's example", run)
            else:
                kept.append(record)
        return Outcome(tuple(kept), tuple(self.rejected), tuple(self.steps))

    def _copied(self, record: Document | Dialog, n: int = 6) -> str:
        """The first n words in a row that an answer shares with an example of its prompts, or ""."""
        if isinstance(record, Dialog):
            own = " ".join(t.content for t in record.turns if t.role == "assistant")
        else:
            own = record.text
        shown = " ".join(
            t.content for name in self.versions for t in prompt(name).turns if t.role == "assistant"
        )
        examples, seed = _runs(words(shown), n), _runs(words(self.seed.text), n)
        return next((" ".join(r) for r in _runs(words(own), n) if r in examples and r not in seed), "")


def _runs(w: Sequence[str], n: int) -> dict[tuple[str, ...], None]:
    return dict.fromkeys(tuple(w[i : i + n]) for i in range(len(w) - n + 1))


def _filled(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether some long string of a value (no `shapes.note`) has the greatest length that its schema allows."""
    if isinstance(value, str):
        return "description" not in schema and len(value) >= schema.get("maxLength", len(value) + 1) >= 40
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        return any(_filled(v, inner[k]) for k, v in value.items() if k in inner)
    return isinstance(value, list) and any(_filled(v, schema.get("items", {})) for v in value)


def gbnf_text(text: str) -> str:
    """A GBNF string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def span_grammar(passage: str, longest: int = 6) -> str:
    """GBNF: 1 to `longest` words in a row of one clause of a passage, not begun or ended by a function
    word."""
    found: dict[str, None] = {}
    for clause in re.split(r"[.,;:()!?](?:\s|$)|[\"\u201c\u201d]", passage):
        tokens = clause.split()
        good = [bool(content_words(t)) for t in tokens]
        for i in range(len(tokens)):
            for j in range(i, min(i + longest, len(tokens))):
                if good[i] and good[j]:
                    found[" ".join(tokens[i : j + 1])] = None
    return "root ::= (" + " | ".join(map(gbnf_text, found)) + ') "\\n"'


def sentence_grammar(passage: str, first: Sequence[str] = (), most: int = 18, end: str = ".") -> str:
    """GBNF: a sentence of 4 to `most` words, each a function word or a word of the passage. A small teacher
    drifts to other subjects after few words; this keeps it on the passage, though not to what the passage
    says."""
    plain = [t.strip(".,;:()\"'*`?!\u201c\u201d") for t in passage.split()]
    have = sorted({t for t in plain if t} | {t[:1].lower() + t[1:] for t in plain if t} | _FUNCTION)
    starts = sorted(first) or sorted({t[:1].upper() + t[1:] for t in have if t[:1].isalpha()})
    either = lambda ws: " | ".join(map(gbnf_text, ws))
    rules = [f'root ::= first (" " word){{3,{most - 1}}} {gbnf_text(end)}', f"first ::= {either(starts)}"]
    return "\n".join([*rules, f"word ::= {either(have)}"])


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order."""
    plain = " ".join(text.split())
    return [s for s in re.split(r"(?<=[.!?])\s+(?=[\"'(A-Z0-9])", plain) if s]


def numbered(parts: Sequence[str]) -> str:
    """One part a line, each with its number, from 1."""
    return "\n".join(f"{i}. {part}" for i, part in enumerate(parts, 1))


def words(text: str) -> list[str]:
    """Lower-case words and numbers; thousands separators are dropped."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", text.lower()))


# Function words, and words that speak about the task instead of the passage.
_FUNCTION = frozenset(
    words(
        """
        a an and are as at be been by can could did do does for from had has have he her his how i if in into
        is it its may more not of on one or other our she so some such than that the their them then there
        these they this those to two was we were what when where which while who why will with would
        """
    )
)
_COMMON = _FUNCTION | frozenset(
    words(
        """
        you your passage text following question answer mean means called used use describe explain says
        according also about
        """
    )
)


def content_words(text: str) -> list[str]:
    """The words that carry meaning: no function words, nothing shorter than two characters except numbers."""
    return [w for w in words(text) if w not in _COMMON and (len(w) > 1 or w.isdigit())]


def grounded(text: str, passage: str) -> float:
    """The share of the content words of `text` that occur in `passage` (a plural counts as its singular)."""
    have = {w.removesuffix("s") for w in words(passage)}
    found = [w.removesuffix("s") in have for w in content_words(text)]
    return sum(found) / len(found) if found else 0.0


def supported(question: str, answer: str, source: str) -> float:
    """The share of what an answer adds to its question (content words) that stands in `source`; 0 where it adds
    nothing."""
    asked = content_words(question)
    return grounded(" ".join(w for w in content_words(answer) if w not in asked), source)


def exchange_turns(passage: str, exchanges: Sequence[tuple[str, str]]) -> list[Turn]:
    """Questions and answers about a passage as turns; the first question shows it."""
    turns: list[Turn] = []
    for i, (question, answer) in enumerate(exchanges):
        asked = f"{passage}\n\n{question}" if i == 0 else question
        turns += [Turn("user", asked), Turn("assistant", answer)]
    return turns


def alike(a: str, b: str) -> bool:
    """Whether two sentences have most of their words in common."""
    one, two = set(words(a)), set(words(b))
    return len(one & two) >= 0.7 * max(len(one | two), 1)


def repeats(text: str, n: int = 4) -> bool:
    """Whether a text loops: some n words in a row occur twice, or one sentence does."""
    w = words(text)
    grams = Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1))
    sentences = Counter(" ".join(words(s)) for s in re.split(r"(?<=[.!?])\s+", text) if words(s))
    return any(c > 1 for c in grams.values()) or any(c > 1 for c in sentences.values())
