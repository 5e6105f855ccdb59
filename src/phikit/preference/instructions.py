"""Instruction-following data whose form can be checked by a program (report section 8: strict formats are a weakness).

A task gets one to three constraints that do not contradict each other, stated in words in the prompt. Replies that
keep all of them become SFT dialogs, and pairs of a reply that does with one that does not become preference pairs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from phikit.preference.judged import Marks, PairCounts, Reply, pairs
from phikit.preference.rollouts import Question
from phikit.records.ids import content_id
from phikit.records.types import Dialog, Preference, Turn
from phikit.verify.constraints import keeps


@dataclass(frozen=True, slots=True)
class Constraint:
    """A kind of `verify.constraints` with its arguments, and how the prompt says it."""

    kind: str
    args: Mapping[str, Any]
    words: str

    def kept(self, text: str) -> bool:
        return keeps(self.kind, text, **self.args)


@dataclass(frozen=True, slots=True)
class Instruction:
    """A prompt with its constraints; as a Question it has no reference answer."""

    task: str
    constraints: tuple[Constraint, ...]

    @property
    def prompt(self) -> str:
        return " ".join([self.task, *(c.words for c in self.constraints)])

    @property
    def question(self) -> Question:
        return Question(content_id("instruction", self.prompt), self.prompt, "", "instruction")

    def kept(self, text: str) -> list[bool]:
        """For each constraint whether `text` keeps it."""
        return [c.kept(text) for c in self.constraints]


_END = ("Is there anything else?", "That is all.", "Done.", "Thank you for asking.")
_START = ("Certainly.", "In short:", "Here it is:", "My reply:")
_COMMON = ("very", "also", "because", "really", "important", "many", "can", "good")
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def _at(rng: random.Random, kind: str, relation: str, number: int, unit: str) -> Constraint:
    said = {
        "at least": f"at least {number}",
        "less than": f"fewer than {number}",
        "exactly": f"exactly {number}",
    }
    name = f"num_{unit}"
    return Constraint(kind, {name: number, "relation": relation}, f"Use {said[relation]} {unit}.")


def _words(rng: random.Random, task: str) -> Constraint:
    relation = rng.choice(("at least", "less than"))
    return _at(rng, "length_constraints:number_words", relation, rng.choice((10, 20, 40, 60, 100)), "words")


def _sentences(rng: random.Random, task: str) -> Constraint:
    relation = rng.choice(("at least", "less than", "exactly"))
    return _at(rng, "length_constraints:number_sentences", relation, rng.randint(2, 5), "sentences")


def _bullets(rng: random.Random, task: str) -> Constraint:
    n = rng.randint(2, 5)
    return Constraint(
        "detectable_format:number_bullet_lists", {"num_bullets": n},
        f"Answer in exactly {_NUMBERS[n]} bullet points, each on a line of its own that begins with `* `.",
    )  # fmt: skip


def _paragraphs(rng: random.Random, task: str) -> Constraint:
    n = rng.randint(2, 4)
    words = f"Write exactly {_NUMBERS[n]} paragraphs and divide them by a line that holds only `***`."
    return Constraint("length_constraints:number_paragraphs", {"num_paragraphs": n}, words)


def _forbidden(rng: random.Random, task: str) -> Constraint:
    chosen = sorted(rng.sample(_COMMON, rng.randint(1, 3)))
    words = (
        f"Do not use the words {', '.join(chosen)}."
        if len(chosen) > 1
        else f"Do not use the word {chosen[0]}."
    )
    return Constraint("keywords:forbidden_words", {"forbidden_words": chosen}, words)


def _included(rng: random.Random, task: str) -> Constraint:
    chosen = sorted(
        rng.sample(("however", "example", "together", "reason", "always", "finally"), rng.randint(1, 2))
    )
    words = f"Your answer must contain {' and '.join(repr(w) for w in chosen)}."
    return Constraint("keywords:existence", {"keywords": chosen}, words)


def _title(rng: random.Random, task: str) -> Constraint:
    return Constraint(
        "detectable_format:title", {}, "Give it a title in double angular brackets, as <<title>>."
    )


def _highlights(rng: random.Random, task: str) -> Constraint:
    n = rng.randint(1, 3)
    words = f"Highlight at least {_NUMBERS[n]} part{'s' if n > 1 else ''} of it with *asterisks*."
    return Constraint("detectable_format:number_highlighted_sections", {"num_highlights": n}, words)


def _placeholders(rng: random.Random, task: str) -> Constraint:
    n = rng.randint(1, 3)
    words = (
        f"Leave at least {_NUMBERS[n]} placeholder{'s' if n > 1 else ''} in square brackets, such as [name]."
    )
    return Constraint("detectable_content:number_placeholders", {"num_placeholders": n}, words)


def _postscript(rng: random.Random, task: str) -> Constraint:
    return Constraint(
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        "Add a postscript that starts with P.S.",
    )


def _end(rng: random.Random, task: str) -> Constraint:
    phrase = rng.choice(_END)
    return Constraint(
        "startend:end_checker", {"end_phrase": phrase}, f'End with "{phrase}" and nothing after it.'
    )


def _start(rng: random.Random, task: str) -> Constraint:
    phrase = rng.choice(_START)
    return Constraint("startend:start_checker", {"start_phrase": phrase}, f'Begin with "{phrase}"')


def _fixed(kind: str, words: str) -> Callable[[random.Random, str], Constraint]:
    return lambda rng, task: Constraint(kind, {}, words)


# Name -> (maker, what it rules out besides itself). JSON is alone: nothing else can be asked of its form.
MAKERS: Mapping[str, tuple[Callable[[random.Random, str], Constraint], tuple[str, ...]]] = {
    "words": (_words, ()),
    "sentences": (_sentences, ("bullets",)),
    "bullets": (_bullets, ("sentences", "paragraphs", "start", "end", "quotation", "postscript", "title")),
    "paragraphs": (_paragraphs, ("bullets", "highlights")),
    "forbidden": (_forbidden, ()),
    "included": (_included, ("upper_case",)),
    "title": (_title, ("start", "quotation", "bullets")),
    "highlights": (_highlights, ("paragraphs",)),
    "placeholders": (_placeholders, ()),
    "postscript": (_postscript, ("end", "quotation", "bullets", "upper_case", "lower_case")),
    "end": (_end, ("postscript", "quotation", "bullets", "upper_case", "lower_case")),
    "start": (_start, ("title", "quotation", "bullets", "upper_case", "lower_case")),
    "quotation": (_fixed("startend:quotation", "Put the whole answer in double quotation marks."),
                  ("title", "postscript", "end", "start", "bullets")),
    "lower_case": (_fixed("change_case:english_lowercase", "Write in lower case only, without any capital letter."),
                   ("upper_case", "postscript", "end", "start")),
    "upper_case": (_fixed("change_case:english_capital", "Write in capital letters only."),
                   ("lower_case", "postscript", "end", "start", "included")),
    "no_comma": (_fixed("punctuation:no_comma", "Do not use any commas."), ()),
    "json": (_fixed("detectable_format:json_format", "Answer with one JSON object and nothing else."), ("*",)),
}  # fmt: skip


def instructions(tasks: Sequence[str], seed: int, *, most: int = 3) -> Iterator[Instruction]:
    """An endless stream of different prompts: a task with one to `most` constraints that go together."""
    if not tasks:
        raise ValueError("instructions need at least one task")
    rng, seen = random.Random(seed), set()
    while True:
        task, names = rng.choice(tasks), list(MAKERS)
        rng.shuffle(names)
        chosen: list[str] = []
        wanted = rng.randint(1, most)
        for name in names:
            if len(chosen) < wanted and not any(_clash(name, c) for c in chosen):
                chosen.append(name)
        made = Instruction(task, tuple(MAKERS[n][0](rng, task) for n in chosen))
        if made.prompt not in seen:
            seen.add(made.prompt)
            yield made


def _clash(a: str, b: str) -> bool:
    rules = {a: MAKERS[a][1], b: MAKERS[b][1]}
    return "*" in rules[a] + rules[b] or b in rules[a] or a in rules[b]


def dialogs(made: Iterable[Instruction], replies: Mapping[str, Sequence[Reply]]) -> Iterator[Dialog]:
    """One SFT dialog for each instruction with a reply that keeps all its constraints (the first such reply)."""
    for i in made:
        good = next((r for r in replies[i.question.id] if r.stopped and all(i.kept(r.text))), None)
        if good is not None:
            meta = {"kind": "instruction", "constraints": [c.kind for c in i.constraints]}
            yield Dialog((Turn("user", i.prompt), Turn("assistant", good.text)), "instruction", meta)


def instruction_pairs(
    made: Iterable[Instruction], replies: Mapping[str, Sequence[Reply]], *, most: int, counts: PairCounts
) -> list[Preference]:
    """Pairs of replies to one prompt: one that keeps all constraints over one that does not. Two broken replies give
    none, however little is broken. `meta["broken"]` holds the kinds that the rejected one broke."""
    out: list[Preference] = []
    for i in made:
        some = replies[i.question.id]
        kept = [i.kept(r.text) for r in some]
        broken = {r.tokens: [c.kind for c, ok in zip(i.constraints, k) if not ok] for r, k in zip(some, kept)}
        marks = [Marks(5.0 if all(k) else 1.0, 3.0, 3.0) for k in kept]
        for p in pairs(i.question, some, marks, most=most, counts=counts):
            meta = {**p.meta, "by": "constraints", "broken": broken[p.rejected_ids]}
            out.append(replace(p, meta=meta))
    return out
