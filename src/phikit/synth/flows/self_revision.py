"""Self-revision (report section 2.2 and appendix D.1.2): answer, critique by a rubric, revise, until it stops
improving.

The critic gives integer scores from 1 to 5 and one piece of advice; a fourth score, 1 to 5 too, is measured:
the share of content words that occur in the passage. A revision counts as better where the total rises, and a
row is accepted where at least one revision was better and the best one is grounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder, content_words, grounded, repeats, sentence_grammar

RUBRIC = ("accuracy", "coverage", "brevity")
_GRAMMAR = (
    "root ::= "
    + ' "\\n" '.join(f'"{name}: " [1-5]' for name in RUBRIC)
    + r' "\nadvice: " [A-Z] [^\n]{10,60} "\n"'
)


@dataclass(frozen=True, slots=True)
class _Version:
    text: str
    scores: tuple[int, ...]
    advice: str
    grounded: float

    @property
    def total(self) -> int:
        return sum(self.scores) + 1 + round(4 * self.grounded)


async def self_revision(
    seed: Document, ask: Ask, *, rounds: int = 2, lowest: int = 8, words_in_text: float = 0.7
) -> Outcome:
    """`seed` is a short passage. Accepts a Dialog with the last better revision whose total is at least
    `lowest` (of 20) and of whose content words at least `words_in_text` occur in the passage."""
    recorder = Recorder("self_revision", seed, ask)
    passage = seed.text
    first = await recorder.one(
        "revision_answer", {"passage": passage}, temperature=0.7, max_tokens=40, stop=("\n", ". ")
    )
    if reason := _problem(first.text, first.finish):
        return recorder.give_up(f"first answer: {reason}", first.text)
    versions = [await _critique(recorder, first.text.strip())]
    for number in range(rounds):
        best = versions[-1]
        values = {"passage": passage, "answer": best.text, "advice": best.advice}
        new = await recorder.one(
            "revision_revise",
            values,
            temperature=0.4,
            max_tokens=40,
            seed=number,
            held=sentence_grammar(passage),
        )
        if (reason := _problem(new.text, new.finish)) or new.text.strip() == best.text:
            recorder.reject(f"revision: {reason or 'unchanged'}", new.text)
            break
        version = await _critique(recorder, new.text.strip())
        if version.total <= best.total:
            recorder.reject("revision: no better", f"{best.total} -> {version.total}: {version.text}")
            break
        versions.append(version)
    best = versions[-1]
    if len(versions) == 1:
        return recorder.outcome()
    if best.total < lowest or best.grounded < words_in_text:
        return recorder.give_up("best revision below the bar", f"{best.total}: {best.text}")
    meta = recorder.meta(
        kind="summary", scores=dict(zip(RUBRIC, best.scores)), grounded=round(best.grounded, 3),
        revisions=[{"text": v.text, "total": v.total, "advice": v.advice} for v in versions],
    )  # fmt: skip
    request = f"{passage}\n\nExplain the main point of this text in one short sentence."
    turns = (Turn("user", request), Turn("assistant", best.text))
    return recorder.accept(turns, meta)


async def _critique(recorder: Recorder, answer: str) -> _Version:
    values = {"passage": recorder.seed.text, "answer": answer}
    reply = await recorder.one("revision_critique", values, temperature=0.0, max_tokens=48, held=_GRAMMAR)
    scores = tuple(
        int(x) for x in re.findall(r"^(?:accuracy|coverage|brevity): ([1-5])$", reply.text, re.MULTILINE)
    )
    advice = reply.text.partition("advice: ")[2].strip()
    if len(scores) != len(RUBRIC):  # an endpoint without grammars: no score is the lowest score
        scores = (1,) * len(RUBRIC)
    return _Version(
        answer, scores, advice or "Use the words of the text.", grounded(answer, recorder.seed.text)
    )


def _problem(text: str, finish: str) -> str | None:
    if finish != "stop":
        return "cut"
    if len(content_words(text)) < 4:
        return "too short"
    return "repetition" if repeats(text) else None
