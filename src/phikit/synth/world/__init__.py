"""The closed world: problems and texts made by program, every answer checked by construction.

Beside the real organic text and the real teacher, this is where each stage of the recipe must move a number:
midtraining recall beyond the base context, SFT format and stopping, pivotal DPO sampled answers, judged DPO
verified preferences. Everything is a pure function of (seed, counts).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from phikit.records.ids import content_id, seed_of
from phikit.records.types import Dialog, Document, Turn
from phikit.synth.world import arithmetic, memory
from phikit.synth.world.arithmetic import Style


@dataclass(frozen=True)
class WorldConfig:
    """Sizes of the closed world. Recall pairs are (least, most) of a document; 3 tokens a pair."""

    operands: int = 20
    steps: tuple[int, int] = (2, 3)
    facts: int = 20_000
    problems: int = 12_000
    echo: int = 12_000
    recall_short: int = 30_000
    recall: int = 5_000
    recall_long: int = 1_500
    icl: int = 4_000
    dialogs: int = 20_000
    questions: int = 2_000
    heldout_problems: int = 1_000
    preference_problems: int = 400
    heldout_items: int = 250
    echo_length: tuple[int, int] = (4, 24)
    short_pairs: tuple[int, int] = (2, 6)
    base_pairs: tuple[int, int] = (16, 30)
    long_pairs: tuple[int, int] = (60, 155)
    test_pairs: tuple[int, int, int] = (38, 78, 158)  # 1x, 2x and 4x of a base context of 128 tokens


# How often each way of solving is written. Text shows all of them; so does SFT, where the at-once habit of
# short web answers is kept on purpose: which way to take is what preference training must find out.
TEXT_STYLES: dict[Style, float] = {
    "steps": 0.35,
    "at_once": 0.2,
    "shortcut": 0.15,
    "check": 0.15,
    "changes_first": 0.15,
}
CHAT_STYLES: dict[Style, float] = {
    "steps": 0.3,
    "at_once": 0.3,
    "shortcut": 0.2,
    "check": 0.1,
    "changes_first": 0.1,
}


def documents(config: WorldConfig, seed: int) -> Iterator[Document]:
    """Pretraining text of sources facts, problems, echo, recall_short, recall, icl."""
    rng = random.Random(seed_of(seed, "facts"))
    for _ in range(config.facts):
        text, spans = "", []
        for question, answer in arithmetic.facts(rng, 5, config.operands):
            text += (" " if text else "") + question
            spans.append([len(text), len(text) + len(answer)])
            text += answer
        yield _document("facts", text, spans)
    rng = random.Random(seed_of(seed, "problems"))
    for problem in _take(
        arithmetic.problems(seed_of(seed, "text"), "train", operand=config.operands, steps=config.steps),
        config.problems,
    ):
        solution = arithmetic.solve(problem, _style(rng, TEXT_STYLES), rng)
        start = len(problem.question) + 1
        yield _document("problems", f"{problem.question}\n{solution}", [(start, start + len(solution))])
    rng = random.Random(seed_of(seed, "echo"))
    for _ in range(config.echo):
        yield _document("echo", *memory.echo_text(rng, rng.randint(*config.echo_length)))
    for name, count, pairs, queries in (
        ("recall_short", config.recall_short, config.short_pairs, 5),
        ("recall", config.recall, config.base_pairs, 8),
    ):
        rng = random.Random(seed_of(seed, name))
        for _ in range(count):
            yield _document(name, *memory.recall_text(rng, rng.randint(*pairs), queries))
    rng = random.Random(seed_of(seed, "icl"))
    for _ in range(config.icl):
        yield _document("icl", *memory.icl_text(rng, rng.randint(8, 24)))


def long_documents(config: WorldConfig, seed: int) -> Iterator[Document]:
    """Midtraining's synthetic long text: recall over documents longer than the base context."""
    rng = random.Random(seed_of(seed, "recall_long"))
    for _ in range(config.recall_long):
        pairs = rng.randint(*config.long_pairs)
        yield _document("recall_long", *memory.recall_text(rng, pairs, min(10, 166 - pairs)))


def dialogs(config: WorldConfig, seed: int) -> Iterator[Dialog]:
    """SFT conversations: one question, one correct answer in one of the ways to solve."""
    rng = random.Random(seed_of(seed, "dialogs"))
    stream = arithmetic.problems(seed_of(seed, "chat"), "train", operand=config.operands, steps=config.steps)
    for problem in _take(stream, config.dialogs):
        style = _style(rng, CHAT_STYLES)
        turns = (Turn("user", problem.question), Turn("assistant", arithmetic.solve(problem, style, rng)))
        yield Dialog(
            turns, "arithmetic", {"answer": str(problem.answer), "style": style, "skeleton": problem.skeleton}
        )


def questions(config: WorldConfig, seed: int) -> Iterator[dict[str, Any]]:
    """Train-side questions without solutions: what pivotal search and judged pairs sample from."""
    stream = arithmetic.problems(
        seed_of(seed, "questions"), "train", operand=config.operands, steps=config.steps
    )
    for p in _take(stream, config.questions):
        yield {
            "id": p.id,
            "question": p.question,
            "answer": str(p.answer),
            "kind": "math",
            "skeleton": p.skeleton,
        }


def heldout(config: WorldConfig, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Test sets by task. Problems have skeletons of the held-out side; no question is in two sets."""
    stream = arithmetic.problems(
        seed_of(seed, "heldout"), "heldout", operand=config.operands, steps=config.steps
    )
    rows = [
        {"id": p.id, "question": p.question, "answer": str(p.answer), "skeleton": p.skeleton}
        for p in _take(stream, config.heldout_problems + config.preference_problems)
    ]
    tests = {"arithmetic": rows[: config.heldout_problems], "preference": rows[config.heldout_problems :]}
    for name, pairs in zip(("recall_1x", "recall_2x", "recall_4x"), config.test_pairs):
        rng = random.Random(seed_of(seed, "test", name))
        tests[name] = [_item(memory.recall_item(rng, pairs)) for _ in range(config.heldout_items)]
    rng = random.Random(seed_of(seed, "test", "icl"))
    tests["icl"] = [_item(memory.icl_item(rng, 18)) for _ in range(config.heldout_items)]
    rng = random.Random(seed_of(seed, "test", "choice"))
    stream = arithmetic.problems(seed_of(seed, "choice"), "heldout", operand=config.operands, steps=(1, 1))
    tests["choice"] = [_choice(p, rng) for p in _take(stream, config.heldout_items)]
    return tests


def references(tests: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, str]]:
    """(item id, text) of the test sets, for decontamination of every other source."""
    for task, rows in tests.items():
        for row in rows:
            text = row.get("question") or row["prompt"]
            yield f"{task}/{row['id']}", f"{text} {row.get('answer', '')}".strip()


def _choice(p: arithmetic.Problem, rng: random.Random) -> dict[str, Any]:
    """A one-step problem with four candidate answers; wrong ones are near misses."""
    near = [p.answer + d for d in (-10, -2, -1, 1, 2, 10) if p.answer + d >= 0]
    options = [p.answer, *rng.sample(near, 3)]
    rng.shuffle(options)
    prompt = f"{p.question}\n{p.start}{p.steps[0]:+d}="
    return {
        "id": p.id,
        "prompt": prompt,
        "choices": [f"{o}." for o in options],
        "gold": options.index(p.answer),
    }


def _item(item: memory.Item) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": content_id("item", item.prompt),
        "prompt": item.prompt,
        "answer": item.answer,
    }
    return row | ({"choices": list(item.choices)} if item.choices else {})


def _document(name: str, text: str, spans: Sequence[Sequence[int]]) -> Document:
    return Document(text, name, {"answers": [list(s) for s in spans], "path": f"world/{name}"})


def _style(rng: random.Random, weights: dict[Style, float]) -> Style:
    return rng.choices(list(weights), list(weights.values()))[0]


def _take(stream: Iterator, n: int) -> Iterator:
    return (next(stream) for _ in range(n))
