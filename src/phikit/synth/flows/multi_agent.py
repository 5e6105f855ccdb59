"""A conversation of two agents on a passage (report section 2.2 and appendix D.1.3, "multi-agent prompting").

A student asks, a teacher answers, and after each exchange an evaluator quotes the words of the passage
that support the answer: what the answer adds to the question must be in the quote. (A small teacher asked for
a yes or no says the same to everything.) What was asked before steers the next question; an exchange that
fails is left out.
"""

from __future__ import annotations

from phikit.records.types import Document
from phikit.synth.flows.base import (
    Ask,
    Outcome,
    Recorder,
    exchange_turns,
    grounded,
    repeats,
    sentence_grammar,
    span_grammar,
    supported,
    words,
)
from phikit.synth.flows.rewrite import WH


async def multi_agent(
    seed: Document, ask: Ask, *, rounds: int = 4, least: int = 1, most: int = 2, words_in_text: float = 0.75
) -> Outcome:
    """`seed` is a short passage; accepts a Dialog of `least` to `most` supported, grounded exchanges."""
    recorder = Recorder("multi_agent", seed, ask)
    passage, kept = seed.text, []
    for number in range(rounds):
        asked = " ".join(q for q, _ in kept) or "nothing"
        question = await recorder.one(
            "agents_ask", {"passage": passage, "asked": asked},
            temperature=0.5 + 0.2 * number, max_tokens=28, seed=number,
            held=sentence_grammar(passage, WH, 14, "?"),
        )  # fmt: skip
        answer = await recorder.one(
            "agents_answer", {"passage": passage, "question": question.text},
            temperature=0.0, max_tokens=36,
            held=sentence_grammar(passage),
        )  # fmt: skip
        if reason := _problem(question.text, answer.text, answer.finish, passage, kept, words_in_text):
            recorder.reject(reason, f"{question.text} / {answer.text}")
            continue
        values = {"passage": passage, "answer": answer.text}
        quote = await recorder.one(
            "agents_evaluate", values, temperature=0.0, max_tokens=24, held=span_grammar(passage, 8)
        )
        if supported(question.text, answer.text, quote.text) < 0.5:
            recorder.reject("evaluator finds no support", f"{question.text} / {answer.text} / {quote.text}")
            continue
        kept.append((question.text.strip(), answer.text.strip()))
        if len(kept) == most:
            break
    if not kept:
        return recorder.outcome()
    if len(kept) < least:
        return recorder.give_up("too few exchanges", f"{len(kept)} of {least}")
    share = min(grounded(a, passage) for _, a in kept)
    meta = recorder.meta(kind="conversation", grounded=round(share, 3), exchanges=len(kept))
    return recorder.accept(exchange_turns(passage, kept), meta)


def _problem(
    question: str, answer: str, finish: str, passage: str, kept: list[tuple[str, str]], share: float
) -> str | None:
    if not question.endswith("?"):
        return "question cut"
    if finish != "stop":
        return "answer cut"
    if grounded(question, passage) < 0.5:
        return "question not about the passage"
    if any(set(words(q)) == set(words(question)) or a.strip() == answer.strip() for q, a in kept):
        return "asked before"
    if len(words(answer)) < 4 or grounded(answer, passage) < share:
        return "answer not grounded"
    if repeats(answer):
        return "repetition"
    return None
