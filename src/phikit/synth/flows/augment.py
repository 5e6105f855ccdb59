"""Rewrite and augment (report section 2.2): a passage as an exercise, a discussion, or a structured reasoning task.

One prompt a form; a teacher that can be held to a grammar writes a discussion line by line, each in the words of the
passage and none like the one before, because a small one that writes it at once loops. The checks are the same for all:
every part speaks about the passage, no part repeats another, and a critic who sees passage and result gives it at least
`least` of 5 for being faithful and for being useful.
"""

from __future__ import annotations

from typing import Any, Literal

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import (
    Ask,
    Outcome,
    Recorder,
    alike,
    grounded,
    numbered,
    repeats,
    sentence_grammar,
    sentences,
)
from phikit.synth.flows.base import (
    words as words_of,
)
from phikit.synth.flows.shapes import mark, shape, some, text

Form = Literal["exercise", "discussion", "reasoning"]


async def augment(
    seed: Document, ask: Ask, *, form: Form = "exercise", domain: str = "", language: str = "English", words: int = 30,
    least: int = 3, words_in_text: float = 0.5,
) -> Outcome:  # fmt: skip
    """`seed` is a passage. `words`: about how long each part may be. Accepts one Dialog."""
    recorder = Recorder(f"augment {form}", seed, ask)
    parts = sentences(seed.text)
    if form == "reasoning" and len(parts) < 2:
        return recorder.give_up("fewer than two sentences", seed.text)
    values = {
        "passage": numbered(parts) if form == "reasoning" else seed.text, "domain": domain or "the subject",
        "language": language, "words": words,
    }  # fmt: skip
    if form == "discussion" and ask.holds:
        draft = await _line_by_line(recorder, values)
    else:
        draft = await recorder.tell(
            f"augment_{form}", values, _shape(form, words, len(parts)), temperature=0.3, max_tokens=8 * words
        )
    if draft is None:
        return recorder.give_up("no readable draft")
    said = [v for v in draft.values() if isinstance(v, str)]
    if reason := _problem(said, seed.text, words_in_text):
        return recorder.give_up(reason, " / ".join(said))
    values = {"passage": seed.text, "draft": "\n".join(said)}
    marks = await recorder.tell(
        "augment_check",
        values,
        shape(faithful=mark(), useful=mark()),
        role="critic",
        temperature=0.0,
        max_tokens=24,
    )
    if marks is None or min(marks.values()) < least:
        return recorder.give_up("the critic marks it low", f"{marks}: {' / '.join(said)}")
    share = grounded(" ".join(said), seed.text)
    meta = recorder.meta(kind=form, scores=marks, grounded=round(share, 3), domain=domain, language=language)
    return recorder.accept(_turns(form, seed.text, draft, parts), meta)


_LINES = {
    "first_says": "say what the text is about.",
    "second_objects": "object, with a fact of the text.",
    "first_replies": "answer the objection.",
    "both_agree": "say what both agree on.",
}


async def _line_by_line(recorder: Recorder, values: dict[str, Any]) -> dict[str, str] | None:
    """The parts of a discussion, each the first of three drafts that ended, does not loop and differs from what was
    said; None where a line has none."""
    said: dict[str, str] = {}
    held = sentence_grammar(values["passage"])
    for part, task in _LINES.items():
        so_far = " ".join(said.values()) or "nothing"
        drafts = await recorder.say(
            "augment_line", values | {"said": so_far, "task": task}, n=3, temperature=0.7,
            max_tokens=2 * values["words"] + 16, stop=("\n",), held=held, presence_penalty=0.6,
        )  # fmt: skip
        good = (d.text.strip() for d in drafts if d.finish == "stop")
        line = next((t for t in good if not repeats(t) and not any(alike(t, x) for x in said.values())), None)
        if line is None:
            recorder.reject(f"no line that {part.replace('_', ' ')}", " / ".join(d.text for d in drafts))
            return None
        said[part] = line
    return said


def _shape(form: Form, words: int, sentences: int) -> dict[str, Any]:
    long = text(7 * words, 15)
    if form == "exercise":
        return shape(question=long, hint=long, answer=text(7 * words, 2))
    if form == "discussion":
        return shape(first_says=long, second_objects=long, first_replies=long, both_agree=long)
    return shape(claim=long, evidence=some(mark(1, sentences), 1, 3), therefore=long)


def _turns(form: Form, passage: str, draft: dict[str, Any], parts: list[str]) -> tuple[Turn, ...]:
    if form == "exercise":
        return (
            Turn("user", f"{passage}\n\nExercise: {draft['question']}"),
            Turn("assistant", f"{draft['hint']}\n\nAnswer: {draft['answer']}"),
        )
    if form == "discussion":
        told = f"A: {draft['first_says']}\nB: {draft['second_objects']}\nA: {draft['first_replies']}"
        told += f"\n\nBoth agree: {draft['both_agree']}"
        return (Turn("user", f"{passage}\n\nLet two students discuss this."), Turn("assistant", told))
    used = [parts[i - 1] for i in dict.fromkeys(draft["evidence"])]
    told = "\n".join(
        [f"Claim: {draft['claim']}", *(f"Evidence: {p}" for p in used), f"Therefore: {draft['therefore']}"]
    )
    return (
        Turn("user", f"{passage}\n\nWhat does the text claim, and on what evidence?"),
        Turn("assistant", told),
    )


def _problem(said: list[str], passage: str, share: float) -> str | None:
    if any(repeats(s) for s in said):
        return "repetition"
    if len({" ".join(words_of(s)) for s in said}) < len(said):
        return "two parts say the same"
    if grounded(" ".join(said), passage) < share:
        return "not about the passage"
    if any(len(words_of(s)) < 3 for s in said[:-1]) or not words_of(said[-1]):
        return "a part is too short"
    return None
