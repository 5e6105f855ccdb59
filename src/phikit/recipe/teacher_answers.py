"""What a small teacher writes in study `revision`: answers as they come, validated, self-revised, and both.

The critic is a rubric that knows no reference answer (are sums shown, is each true, does the stated answer come out of
one?), as in the report's self-revision; the validator is the verified answer, as in its rejection sampling (report
section 2.2). A revision keeps what stands before the first thing criticised and lets the teacher go on from there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from phikit.recipe import data_world
from phikit.records.ids import seed_of
from phikit.records.types import Document
from phikit.synth.world.arithmetic import Problem
from phikit.verify import math_answer, worked

QUESTIONS, ROUNDS, MAX_TOKENS = 1500, 3, 48
_SENTENCE = re.compile(r"[^.]*\.\s*|[^.]+$")


@dataclass(frozen=True)
class Draft:
    text: str
    ended: bool  # by itself, not by MAX_TOKENS


def answer_sets(
    world: data_world.World, engine: Any, seed: int
) -> tuple[dict[str, list[Document]], dict[str, Any]]:
    """({set: documents}, counts). The sets are `raw`, `validated`, `revised`, `revised_validated`, and `gold`, the
    same questions worked by program. What a validator rejects stays in the others."""
    problems = data_world.questions(world, QUESTIONS, "teacher")
    drafts = _write(engine, problems, [""] * len(problems), seed_of(seed, "first"))
    versions, open_in = [list(drafts)], []
    for number in range(ROUNDS):
        now = list(versions[-1])
        open_ = [i for i, d in enumerate(now) if criticism(d) is not None]
        open_in.append(len(open_))
        kept = [now[i].text[: criticism(now[i])].rstrip() for i in open_]
        new = _write(engine, [problems[i] for i in open_], kept, seed_of(seed, "revision", number))
        for i, draft in zip(open_, new):
            if better(draft, now[i]):
                now[i] = draft
        versions.append(now)
    rng, last = random.Random(seed_of(seed, "gold")), versions[-1]
    raw = list(zip(problems, drafts))
    revised = list(zip(problems, last))
    sets = {
        "raw": _documents(raw, "raw"),
        "validated": _documents([x for x in raw if valid(*x)], "validated"),
        "revised": _documents(revised, "revised"),
        "revised_validated": _documents([x for x in revised if valid(*x)], "revised_validated"),
        "gold": [data_world.answered(p, data_world.worked(p, rng), "gold") for p in problems],
    }
    right = [sum(valid(p, d) for p, d in zip(problems, v)) for v in versions]
    return sets, {"questions": len(problems), "criticised": open_in, "valid_after_round": right}


def valid(problem: Problem, draft: Draft) -> bool:
    """Ended, the right answer, and no false sum on the way."""
    w = worked.points(draft.text, str(problem.answer))
    return draft.ended and w.right is True and w.sums_true == w.sums_total


def criticism(draft: Draft) -> int | None:
    """Where the first thing to mend begins, by the rubric alone; None where there is nothing."""
    results = [r for _, r in worked.sums(draft.text)]
    if not results:
        return 0  # no way to the answer is shown
    at = 0
    for sentence in _SENTENCE.findall(draft.text):
        if not all(true for true, _ in worked.sums(sentence)):
            return at
        if worked.states_answer(sentence):
            stated = math_answer.parse_number(math_answer.extract_answer(sentence) or "")
            rest = draft.text[at + len(sentence) :].strip()
            return at if stated is None or stated[0] not in results or rest else None
        at += len(sentence)
    return 0 if worked.repeats(draft.text) or not draft.ended else at  # it does not say what the answer is


def better(new: Draft, old: Draft) -> bool:
    """Whether a revision improved: nothing is criticised any more, or the first thing is further on."""
    a, b = criticism(new), criticism(old)
    return a is None or (b is not None and a > b)


def _write(engine: Any, problems: Sequence[Problem], begun: Sequence[str], seed: int) -> list[Draft]:
    """Each answer from where it was begun, one sample at temperature 1."""
    from phikit.evals.world.plan import Prompter

    ask = Prompter(engine, "base")
    requests = []
    for p, text in zip(problems, begun):
        r = ask.question(p.question, max_tokens=MAX_TOKENS, temperature=1.0, seed=seed_of(seed, p.id))
        requests.append(replace(r, prompt=tuple(engine.encode(f"{p.question}\n{text}"))))
    drafts = [Draft("", False)] * len(requests)
    for index, (c, *_) in engine.generate(requests):
        drafts[index] = Draft((begun[index] + c.text).strip(), c.finish == "stop")
    return drafts


def _documents(answered: Sequence[tuple[Problem, Draft]], name: str) -> list[Document]:
    return [data_world.answered(p, d.text, name) for p, d in answered if d.text]
