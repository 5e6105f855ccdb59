"""Rewriting a passage as a question with its answer (report section 2.2, "Rewrite and augment").

Two checks are the teacher's work, two are not: the answer must occur word for word in the passage and not in
the question, the question must be about the passage, and a second reading, asked without the first answer,
must find an answer that agrees with it.
"""

from __future__ import annotations

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import (
    Ask,
    Outcome,
    Recorder,
    grounded,
    repeats,
    sentence_grammar,
    span_grammar,
    words,
)
from phikit.verify.text import f1

# Not when, where, who: a small teacher asks them of things that have no time, place or name.
WH = ("How", "What does", "What is", "What are", "Which", "Why")


async def rewrite(seed: Document, ask: Ask, *, n: int = 3, agreement: float = 0.5) -> Outcome:
    """`seed` is a short passage; accepts the first of `n` questions that passes, as a Dialog that quotes
    it."""
    recorder = Recorder("rewrite", seed, ask)
    passage = seed.text
    spans = span_grammar(passage)
    drafts = await recorder.say(
        "rewrite_question", {"passage": passage}, n=n, temperature=0.4, max_tokens=28,
        held=sentence_grammar(passage, WH, 14, "?"),
    )  # fmt: skip
    for draft in drafts:
        question = draft.text.strip()
        values = {"passage": passage, "question": question}
        reply = await recorder.one("rewrite_answer", values, temperature=0.0, max_tokens=20, held=spans)
        answer = reply.text.strip().strip(".,;:")
        if not question.endswith("?") or reply.finish != "stop":
            recorder.reject("cut", f"{question} {answer}")
            continue
        if reason := _problem(question, answer, passage):
            recorder.reject(reason, f"{question} {answer}")
            continue
        second = await recorder.one("rewrite_check", values, temperature=0.0, max_tokens=24, held=spans)
        score = f1(second.text, [answer])
        if score < agreement:
            recorder.reject("second reading disagrees", f"{question} {answer} / {second.text}")
            continue
        meta = recorder.meta(answer=answer, kind="passage", agreement=round(score, 3))
        turns = (Turn("user", f"{passage}\n\n{question}"), Turn("assistant", f"{answer}."))
        return recorder.accept(turns, meta)
    return recorder.outcome()


def _problem(question: str, answer: str, passage: str) -> str | None:
    inside = " ".join(words(passage))
    wanted = " ".join(words(answer))
    if not wanted or f" {wanted} " not in f" {inside} ":
        return "answer not in the passage"
    if len(wanted.split()) > 12:
        return "answer too long"
    if f" {wanted} " in f" {' '.join(words(question))} ":
        return "answer in the question"
    if grounded(answer, question) > 0.5:
        return "answer repeats the question"
    if grounded(question, passage) < 0.5:
        return "question not about the passage"
    if repeats(question):
        return "repetition"
    return None
