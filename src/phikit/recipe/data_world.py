"""The closed world of the data studies: what a web, its rewrites and synthetic data hold, and what is asked.

Reasoning is a word problem of two sums (`synth/world/arithmetic.py`), knowledge is where invented people live and work
(`unknowns_world.py`). The report's reasons for synthetic data (section 2.1) are built in, and nothing else is: the web
answers problems at once and one time in five wrongly, synthetic text works them out line by line; the web tells of
everybody, its rewrites of half of the people, and synthetic exercises, whose seeds are web pages, of a quarter.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from phikit.recipe.unknowns_world import JOBS, LIVES, TOWNS, WHERE, WORK, WORKS, Person, invented_names
from phikit.records.ids import content_id, seed_of
from phikit.records.types import Document
from phikit.synth.world import arithmetic
from phikit.synth.world.arithmetic import Problem, Side

OPERAND, STEPS = 5, (2, 2)  # 500 skeletons, a tenth of them held out
WRONG = 0.2  # of the web's answers
REWRITTEN, EXERCISED = 0.5, 0.25  # of the people
OPTIONS = 4  # towns, or jobs, that a choice question offers


@dataclass(frozen=True)
class World:
    """`people` in the order in which rewrites and exercises reach them."""

    seed: int
    people: Sequence[Person]

    def some(self, share: float) -> Sequence[Person]:
        return self.people[: round(share * len(self.people))]


def make(seed: int, people: int) -> World:
    rng = random.Random(seed)
    names = islice(invented_names(rng), people)
    return World(seed, [Person(n, rng.choice(TOWNS), rng.choice(JOBS), 0) for n in names])


def web(world: World, stream: str, side: Side = "train") -> Iterator[Document]:
    """Endless web text: half pages about people, half questions with an answer and no way to it."""
    rng = random.Random(seed_of(world.seed, "web", stream))
    problems = _problems(world, "web", stream, side=side)
    while True:
        if rng.random() < 0.5:
            p = rng.choice(world.people)
            lines = [
                rng.choice(LIVES).format(n=p.name, t=p.town),
                rng.choice(WORKS).format(n=p.name, j=p.job),
            ]
            rng.shuffle(lines)
            yield Document(" ".join(lines), "web")
        else:
            problem = next(problems)
            answer = problem.answer
            if rng.random() < WRONG:
                answer = max(0, answer + rng.choice((-3, -2, -1, 1, 2, 3)))
            yield answered(problem, f"The answer is {answer}.", "web")


def rewrites(world: World, stream: str, side: Side = "train") -> Iterator[Document]:
    """Endless rewrites of pages: a question about one of the people that they reach, and its answer."""
    rng = random.Random(seed_of(world.seed, "rewrites", stream, side))
    while True:
        yield Document(" ".join(_asked(rng.choice(world.some(REWRITTEN)), rng)), "rewrites")


def synthetic(world: World, stream: str, side: Side = "train") -> Iterator[Document]:
    """Endless synthetic text: worked problems, drills of single sums, and one exercise on a page in ten texts."""
    rng = random.Random(seed_of(world.seed, "synthetic", stream))
    problems = _problems(world, "synthetic", stream, side=side)
    while True:
        kind = rng.random()
        if kind < 0.1:
            p = rng.choice(world.some(EXERCISED))
            page = rng.choice(LIVES).format(n=p.name, t=p.town), rng.choice(WORKS).format(n=p.name, j=p.job)
            yield Document(" ".join((*page, *_asked(p, rng))), "synthetic")
        elif kind < 0.3:
            yield drill(rng, "synthetic")
        else:
            problem = next(problems)
            yield answered(problem, worked(problem, rng), "synthetic")


def worked(problem: Problem, rng: random.Random) -> str:
    """Every sum in order; one time in five with a check."""
    return arithmetic.solve(problem, "check" if rng.random() < 0.2 else "steps", rng)


def drill(rng: random.Random, source: str) -> Document:
    """Five single sums of the size that problems need."""
    text, spans = "", []
    for question, answer in arithmetic.facts(rng, 5, OPERAND, 3 * OPERAND):
        text += (" " if text else "") + question
        spans.append([len(text), len(text) + len(answer)])
        text += answer
    return Document(text, source, {"answers": spans})


def answered(problem: Problem, answer: str, source: str) -> Document:
    """A question, a line break, an answer: the answer is what the loss is about."""
    start = len(problem.question) + 1
    text = f"{problem.question}\n{answer}"
    return Document(
        text, source, {"answers": [[start, len(text)]], "id": problem.id, "gold": str(problem.answer)}
    )


def questions(world: World, count: int, stream: str) -> list[Problem]:
    """Train-side problems to be answered by a model."""
    problems = _problems(world, "questions", stream)
    return [next(problems) for _ in range(count)]


def _problems(world: World, *names: str, side: Side = "train") -> Iterator[Problem]:
    return arithmetic.problems(seed_of(world.seed, *names, "problems"), side, operand=OPERAND, steps=STEPS)


def _asked(p: Person, rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        return rng.choice(WHERE).format(n=p.name), rng.choice(LIVES).format(n=p.name, t=p.town)
    return rng.choice(WORK).format(n=p.name), rng.choice(WORKS).format(n=p.name, j=p.job)


def held_out(world: World, problems: int) -> dict[str, list[dict[str, Any]]]:
    """Items of the scorers of `evals/world`. `arithmetic`: problems with held-out numbers. `people`: home and work of
    each of the people as a statement to complete; `choice`: the same with OPTIONS to choose from (chance is a
    quarter)."""
    rng = random.Random(seed_of(world.seed, "held out"))
    stream = _problems(world, "held out", side="heldout")
    held: dict[str, list[dict[str, Any]]] = {
        "arithmetic": [
            {"id": p.id, "question": p.question, "answer": str(p.answer)}
            for p in (next(stream) for _ in range(problems))
        ],
        "people": [],
        "choice": [],
    }
    for p in world.people:
        for prompt, answer, others in (
            (f"{p.name} lives in", p.town, TOWNS),
            (f"{p.name} works as a", p.job, JOBS),
        ):
            name = content_id("people", prompt)
            options = [answer, *rng.sample([o for o in others if o != answer], OPTIONS - 1)]
            rng.shuffle(options)
            held["people"].append({"id": name, "prompt": prompt, "answer": f" {answer}"})
            held["choice"].append(
                {
                    "id": name,
                    "prompt": prompt,
                    "choices": [f" {o}." for o in options],
                    "gold": options.index(answer),
                }
            )
    return held


def tokenizer_texts(world: World) -> list[str]:
    """What the tokenizer is trained on, the same for every arm. All names are equally frequent."""
    some = [w(world, "tokenizer") for w in (web, synthetic)]
    return [p.name for p in world.people for _ in range(4)] + [
        next(s).text for s in some for _ in range(1500)
    ]


SOURCES = {"web": web, "rewrites": rewrites, "synthetic": synthetic}
