"""Held-out items for HELMET's categories at multiples of the base context (report section 3.3, table 6), each with an
answer that needs no judge. Recall is in `memory.py`; here are the other five.

Their parts are what the closed world is made of: pairs of syllables, labelled patterns, word problems. As many parts as
fit fill the length in the tokens of the model under test. The tasks themselves are never trained on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import islice, product
from typing import Any

from phikit.records.ids import content_id, seed_of
from phikit.synth.world import memory
from phikit.synth.world.arithmetic import ITEMS, NAMES, problems
from phikit.synth.world.memory import SYLLABLES
from phikit.text.fill import fill

MULTIPLES = (2, 4)
TEMPLATE = 16  # tokens left for a chat template
VALUE, SUMMARY, SOLUTION = 2, 16, 64  # tokens of an answer
TABLE = 6  # pairs of a document of `rag`
RELEVANT = 3  # documents of a query; values of a subject
Row = dict[str, Any]
Count = Callable[[str], int]


def items(seed: int, n: int, context: int, count: Count) -> dict[str, list[Row]]:
    """`n` items of each task `rag_2x` ... `summ_4x`. Prompt, answer and chat template have at most that multiple of
    `context` tokens by `count`. A pure function of its arguments."""
    found: dict[str, list[Row]] = {}
    for k, (name, make) in product(MULTIPLES, _MAKERS.items()):
        rng = random.Random(seed_of(seed, "test", f"{name}_{k}x"))
        found[f"{name}_{k}x"] = [make(rng, k * context, count) for _ in range(n)]
    return found


def rag(rng: random.Random, room: int, count: Count) -> Row:
    """{prompt, answer}: many documents, each a small table of codes; one of them holds the key that is asked for."""
    keys = rng.sample(SYLLABLES, len(SYLLABLES) // TABLE * TABLE)
    pairs = [(k, rng.choice(SYLLABLES)) for k in keys]
    documents = [f"Codes:{_listed(pairs[i : i + TABLE])}.\n" for i in range(0, len(pairs), TABLE)]
    key, answer = rng.choice(pairs[:TABLE])
    prompt = _filled(rng, documents, 1, "", f"Ask: {key}", room - VALUE, count)
    return _row(prompt, prompt=prompt, answer=f" {answer}")


def rerank(rng: random.Random, room: int, count: Count) -> Row:
    """{prompt, choices, relevant}: what each document is about and its id; the ids are to be ranked for a subject that
    RELEVANT of them are about."""
    ids = rng.sample(SYLLABLES, len(SYLLABLES))
    query, *others = rng.sample(SYLLABLES, 1 + len(ids) // RELEVANT)
    about = [query] * RELEVANT + [rng.choice(others) for _ in ids[RELEVANT:]]
    parts = [f" {a} {i}," for a, i in zip(about, ids)]
    prompt = _filled(rng, parts, RELEVANT, "Codes:", f".\nAsk: {query}", room - VALUE, count)
    shown = [i for a, i in zip(about, ids) if f" {a} {i}," in prompt or f" {a} {i}." in prompt]
    return _row(
        prompt,
        prompt=prompt,
        choices=[f" {i}" for i in shown],
        relevant=[1.0] * RELEVANT + [0.0] * (len(shown) - RELEVANT),
    )


def icl(rng: random.Random, room: int, count: Count) -> Row:
    """{prompt, answer, choices}: task `icl` with as many examples as fit."""
    examples = room // count(" ka mo A,")
    while count((item := memory.icl_item(rng, examples)).prompt) > room - VALUE:
        examples -= 1
    return _row(item.prompt, prompt=item.prompt, answer=item.answer, choices=list(item.choices))


def qa(rng: random.Random, room: int, count: Count) -> Row:
    """{question, answer, max_tokens}: a word problem among others that are not asked; its answer has to be worked
    out."""
    asked, *_ = islice(problems(rng.getrandbits(60), "heldout"), 1)
    others = problems(rng.getrandbits(60), "train")
    told = {(who := _named(asked.question, NAMES), what := _named(asked.question, ITEMS)): asked}
    while len(told) < len(NAMES) * len(ITEMS):  # one of each: the question is about a single one
        p = next(others)
        told.setdefault((_named(p.question, NAMES), _named(p.question, ITEMS)), p)
    parts = [p.question[: p.question.rindex("How many")].strip() + "\n" for p in told.values()]
    question = f"How many {what} does {who} have now?"
    text = _filled(rng, parts, 1, "", question, room - SOLUTION - TEMPLATE, count)
    return _row(text, question=text, answer=str(asked.answer), max_tokens=SOLUTION)


def summ(rng: random.Random, room: int, count: Count) -> Row:
    """{prompt, facts, max_tokens}: codes of which one key has RELEVANT, all of which are to be said."""
    keys = rng.sample(SYLLABLES, len(SYLLABLES) - RELEVANT + 1)
    values = rng.sample(SYLLABLES, len(SYLLABLES))
    parts = [f" {k} {v}," for k, v in zip([keys[0]] * (RELEVANT - 1) + keys, values)]
    prompt = _filled(rng, parts, RELEVANT, "Codes:", f".\nAsk: {keys[0]}", room - SUMMARY, count)
    return _row(prompt, prompt=prompt, facts=values[:RELEVANT], max_tokens=SUMMARY)


_MAKERS = {"rag": rag, "rerank": rerank, "icl": icl, "qa": qa, "summ": summ}


def _filled(
    rng: random.Random, parts: Sequence[str], needed: int, head: str, tail: str, room: int, count: Count
) -> str:
    """`head`, as many parts as fit, `tail`. The first `needed` parts are there in any case, at places drawn once."""
    places = [rng.random() for _ in range(needed)]

    def build(n: int) -> str:
        listed = list(parts[needed:n])
        for part, place in zip(parts, places):
            listed.insert(int(place * (len(listed) + 1)), part)
        return head + "".join(listed).removesuffix(",") + tail

    return fill(count, room, [count(p) for p in parts], needed, build)


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    return ",".join(f" {k} {v}" for k, v in pairs)


def _named(text: str, names: Sequence[str]) -> str:
    return next(n for n in names if n in text)


def _row(text: str, **fields: Any) -> Row:
    return {"id": content_id("item", text), **fields}
