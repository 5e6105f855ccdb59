"""Grade-school word problems whose answers are checked by execution, with five ways to write the solution.

The ways differ in robustness: an answer at once needs the whole sum in one token's forward pass, a solution
step by step needs one small fact at a time. All are in the data. Which way an answer takes is decided by a few
tokens, and those are what Pivotal Token Search is about (report section 4.3).

Train and held-out problems are disjoint by construction: the *skeleton* of a problem (its numbers and
operations) belongs to one side by its hash, whatever the wording.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from phikit.records.ids import content_id

Side = Literal["train", "heldout"]
Style = Literal["at_once", "steps", "check", "changes_first", "shortcut"]

NAMES = ("Tom", "Ann", "Sam", "Eva", "Max", "Mia", "Ben", "Zoe")
ITEMS = ("apples", "books", "coins", "cards", "pens", "shells")
START = ("{n} has {a} {i}.", "{n} starts with {a} {i}.", "There are {a} {i} in the bag of {n}.")
MORE = ("{n} buys {b} more.", "{n} finds {b} more.", "A friend gives {n} {b}.", "{n} gets {b} more.")
LESS = ("{n} gives away {b}.", "{n} loses {b}.", "{n} sells {b}.", "A friend takes {b}.")
ASK = ("How many {i} does {n} have now?", "How many {i} are there in the end?", "How many {i} are left?")

LEADS: dict[Style, tuple[str, ...]] = {
    "at_once": ("", "So ", "Easy: "),
    "steps": ("Step by step: ", "First ", "Count: "),
    "check": ("Carefully: ", "With a check: "),
    "changes_first": ("Changes first: ", "Together: "),
    "shortcut": ("Quick: ", "First "),
}
HELDOUT_SHARE = 10  # one skeleton in ten is held out


@dataclass(frozen=True, slots=True)
class Problem:
    """`steps` are signed numbers added to `start`, in order; every partial sum is >= 0."""

    question: str
    start: int
    steps: tuple[int, ...]

    @property
    def answer(self) -> int:
        return self.start + sum(self.steps)

    @property
    def skeleton(self) -> str:
        return f"{self.start}" + "".join(f"{s:+d}" for s in self.steps)

    @property
    def id(self) -> str:
        return content_id("problem", self.question)


def side_of(skeleton: str) -> Side:
    """Which side a skeleton belongs to, for ever and at any seed."""
    return "heldout" if int(content_id("skeleton", skeleton)[:8], 16) % HELDOUT_SHARE == 0 else "train"


def problems(
    seed: int, side: Side, *, operand: int = 20, steps: tuple[int, int] = (2, 3)
) -> Iterator[Problem]:
    """An endless stream of distinct problems of one side; operands from 1 to `operand`."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        problem = _draw(rng, operand, rng.randint(*steps))
        if side_of(problem.skeleton) == side and problem.question not in seen:
            seen.add(problem.question)
            yield problem


def _draw(rng: random.Random, operand: int, n_steps: int) -> Problem:
    total = start = rng.randint(1, operand)
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    lines, steps = [rng.choice(START).format(n=name, a=start, i=item)], []
    for _ in range(n_steps):
        b = rng.randint(1, operand)
        step = -b if b <= total and rng.random() < 0.5 else b
        total += step
        steps.append(step)
        lines.append(rng.choice(MORE if step > 0 else LESS).format(n=name, b=abs(step)))
    lines.append(rng.choice(ASK).format(n=name, i=item))
    return Problem(" ".join(lines), start, tuple(steps))


def solve(problem: Problem, style: Style, rng: random.Random) -> str:
    """A correct solution in the given style. `changes_first` needs a non-negative sum of changes and falls
    back to `steps` where there is none; that keeps every line true."""
    if style == "changes_first" and sum(problem.steps) < 0:
        style = "steps"
    lead, end = rng.choice(LEADS[style]), f"The answer is {problem.answer}."
    if style == "at_once":
        return lead + (end if lead != "So " else f"the answer is {problem.answer}.")
    if style == "changes_first":
        lines, total = (
            _lines(problem.steps[0], problem.steps[1:]) if problem.steps[0] >= 0 else _lines(0, problem.steps)
        )
        return lead + " ".join([*lines, f"{problem.start}+{total}={problem.answer}.", end])
    lines, _ = _lines(problem.start, problem.steps)
    if style == "shortcut":  # leaves out the last step: one sum must be done in the head
        lines = lines[:-1]
    if style == "check":
        last = problem.steps[-1]
        lines.append(f"Check: {problem.answer}{-last:+d}={problem.answer - last}.")
    return lead + " ".join([*lines, end])


def _lines(start: int, steps: tuple[int, ...]) -> tuple[list[str], int]:
    total, lines = start, []
    for step in steps:
        lines.append(f"{total}{step:+d}={total + step}.")
        total += step
    return lines, total


def facts(rng: random.Random, count: int, operand: int = 20, top: int = 80) -> list[tuple[str, str]]:
    """`count` single sums as (question, answer): ("37-8=", "29.")."""
    out = []
    for _ in range(count):
        b = rng.randint(1, operand)
        a = rng.randint(0, top - operand)
        if rng.random() < 0.5 and a >= b:
            out.append((f"{a}-{b}=", f"{a - b}."))
        else:
            out.append((f"{a}+{b}=", f"{a + b}."))
    return out
