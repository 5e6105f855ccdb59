"""Exercises by self-revision (appendix D.1.2): plan, exercise, requirements, critique, revision, again.

The requirements ("flavours") are drawn from a list by the seed, so that exercises differ in what they ask of a student.
A critic marks each criterion and advises; the exercise is revised until the sum of the marks stops rising. What the
critic cannot be trusted with is measured: whether the exercise is about its passage and does not repeat itself.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from phikit.records.ids import seed_of
from phikit.records.types import Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder, grounded, repeats, sentence_grammar
from phikit.synth.flows.base import words as words_of
from phikit.synth.flows.rewrite import WH
from phikit.synth.flows.shapes import mark, note, shape, text

FLAVOURS = (
    "needs two steps", "asks for a reason", "has a number in its answer", "compares two things",
    "is about a wrong belief", "asks what would change if one fact were different", "can be answered in one word",
    "asks for an example", "asks for a short calculation", "asks to find a mistake",
)  # fmt: skip
CRITERIA = ("reasoning", "accuracy", "clarity", "requirement")


@dataclass(frozen=True, slots=True)
class _Version:
    draft: dict[str, str]
    marks: dict[str, int]
    advice: str
    total: float  # marks, and what is measured, 0 to 5 more


async def exercise(
    seed: Document, ask: Ask, *, rounds: int = 2, lowest: float = 13, words: int = 30, domain: str = "",
    language: str = "English",
) -> Outcome:  # fmt: skip
    """`seed` is a passage. Accepts a Dialog with the best version where its total (four marks of 1 to 5 and 5 times the
    measured share of words from the passage) is at least `lowest` and a revision, if there was one, did not harm."""
    recorder = Recorder("exercise", seed, ask)
    flavour = random.Random(seed_of(seed.id, "flavour")).choice(FLAVOURS)
    base = {
        "passage": seed.text, "flavour": flavour, "domain": domain or "the subject", "language": language,
        "words": words,
    }  # fmt: skip
    first = await _drafted(recorder, "exercise_write", base, 0)
    if first is None or (reason := _problem(first, seed.text)):
        return recorder.give_up(
            "revision 0: no readable draft" if first is None else f"revision 0: {reason}", str(first)
        )
    versions = [await _criticized(recorder, base, first)]
    for number in range(rounds):
        best = versions[-1]
        values = base | {"draft": _shown(best.draft), "advice": best.advice}
        draft = await _drafted(recorder, "exercise_revise", values, 1 + number)
        if draft is None or _problem(draft, seed.text) or draft["exercise"] == best.draft["exercise"]:
            recorder.reject("revision: unreadable, unchanged or off the passage", str(draft))
            break
        version = await _criticized(recorder, base, draft)
        if version.total <= best.total:
            recorder.reject(
                "revision: no better", f"{best.total:.1f} -> {version.total:.1f}: {_shown(draft)}"
            )
            break
        versions.append(version)
    best = versions[-1]
    if best.total < lowest:
        return recorder.give_up("best version below the bar", f"{best.total:.1f}: {_shown(best.draft)}")
    meta = recorder.meta(
        kind="exercise", flavour=flavour, scores=best.marks, total=round(best.total, 2), domain=domain,
        language=language, grounded=round(grounded(_shown(best.draft), seed.text), 3),
        revisions=[{"text": _shown(v.draft), "total": round(v.total, 2), "advice": v.advice} for v in versions],
    )  # fmt: skip
    asked = f"{seed.text}\n\nExercise: {best.draft['exercise']}"
    turns = (Turn("user", asked), Turn("assistant", best.draft["solution"]))
    return recorder.accept(turns, meta)


async def _drafted(
    recorder: Recorder, name: str, values: dict[str, Any], number: int
) -> dict[str, str] | None:
    """Plan, exercise and solution at once; from a teacher that can be held to a grammar question and solution one by
    one, each in the words of the passage, because a small one repeats the requirement instead of meeting it. None where
    that cannot be read."""
    words = values["words"]
    if not recorder.ask.holds:
        form = shape(plan=text(6 * words, 10), exercise=text(8 * words, 15), solution=text(8 * words, 2))
        return await recorder.tell(name, values, form, seed=number, temperature=0.5, max_tokens=7 * words)
    how = {
        "temperature": 0.5,
        "max_tokens": 2 * words,
        "stop": ("\n",),
        "seed": number,
        "presence_penalty": 0.4,
    }
    values = {"advice": "Ask about the text.", **values}
    held = sentence_grammar(values["passage"], WH, 16, "?")
    asked = await recorder.one("exercise_question", values, held=held, **how)
    values["question"] = asked.text.strip()
    held = sentence_grammar(values["passage"])
    solved = await recorder.one("exercise_solution", values, role="solver", held=held, **how)
    if asked.finish != "stop" or solved.finish != "stop":
        return None
    return {"plan": "", "exercise": values["question"], "solution": solved.text.strip()}


async def _criticized(recorder: Recorder, base: dict[str, Any], draft: dict[str, str]) -> _Version:
    form = shape(**dict.fromkeys(CRITERIA, mark()), advice=note(120, 5))
    told = await recorder.tell(
        "exercise_critique",
        base | {"draft": _shown(draft)},
        form,
        role="critic",
        temperature=0.0,
        max_tokens=90,
    )
    marks = {c: told[c] if told else 1 for c in CRITERIA}
    measured = 5 * grounded(f"{draft['exercise']} {draft['solution']}", recorder.seed.text)
    return _Version(
        draft, marks, told["advice"] if told else "Use the words of the text.", sum(marks.values()) + measured
    )


def _shown(draft: dict[str, str]) -> str:
    return f"Exercise: {draft['exercise']} Solution: {draft['solution']}"


def _problem(draft: dict[str, str], passage: str) -> str | None:
    if len(words_of(draft["exercise"])) < 5 or not words_of(draft["solution"]):
        return "too short"
    if repeats(draft["exercise"], 5) or draft["exercise"].strip() == draft["solution"].strip():
        return "repetition"
    if grounded(draft["exercise"], passage) < 0.4 or grounded(draft["solution"], passage) == 0:
        return "not about the passage"
    if not set(words_of(draft["solution"])) - set(words_of(draft["exercise"])):
        return "the solution repeats the question"
    return None
