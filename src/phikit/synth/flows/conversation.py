"""Conversations out of a snippet (appendix D.1.3): two agents with profiles alternate, and each turn is evaluated.

After every exchange the model marks it and chooses the next move: go deeper, change the scenario, sum up, or end. The
move steers the next question, and what was said before goes along as a short summary, so the context stays small. An
exchange with a low mark ends the conversation; what came before it is kept.
"""

from __future__ import annotations

from phikit.records.ids import seed_of
from phikit.records.types import Document
from phikit.synth.flows.base import (
    Ask,
    Outcome,
    Recorder,
    alike,
    exchange_turns,
    grounded,
    repeats,
    sentence_grammar,
)
from phikit.synth.flows.base import (
    words as words_of,
)
from phikit.synth.flows.rewrite import WH
from phikit.synth.flows.shapes import mark, one_of, shape

PROFILES = (
    "a curious school student", "a busy engineer", "a nurse on a break", "a retired librarian", "a journalist",
    "a parent helping with homework", "a shop owner", "a first-year university student",
)  # fmt: skip
MOVES = {
    "deeper": "Ask why or how.", "scenario": "Ask about a new case.", "summary": "Ask for the main point.", "end": "",
}  # fmt: skip
_EVALUATION = shape(mark=mark(), next=one_of(tuple(MOVES)))


async def conversation(
    seed: Document, ask: Ask, *, most: int = 3, least: int = 2, low: int = 3, domain: str = "",
    language: str = "English", words: int = 30, words_in_text: float = 0.5,
) -> Outcome:  # fmt: skip
    """`seed` is a passage. Accepts a Dialog of `least` to `most` exchanges, each marked at least `low` of 5."""
    recorder = Recorder("conversation", seed, ask)
    passage = seed.text
    profile = PROFILES[seed_of(seed.id, "profile") % len(PROFILES)]
    kept: list[tuple[str, str]] = []
    moves, marks, move = ["open"], [], "Ask what it is about."
    for number in range(most):
        base = {
            "passage": passage,
            "language": language,
            "profile": profile,
            "words": words,
            "domain": domain or "it",
        }
        summary = " ".join(q for q, _ in kept) or "nothing"
        drafts = await recorder.say(
            "conversation_ask", base | {"summary": summary, "move": move}, temperature=0.8, n=3 if kept else 1,
            max_tokens=2 * words, seed=number, stop=("\n",), held=sentence_grammar(passage, WH, 14, "?"),
        )  # fmt: skip
        asked = next((d for d in drafts if not any(alike(d.text, q) for q, _ in kept)), drafts[0])
        replied = await recorder.one(
            "conversation_reply", base | {"question": asked.text.strip()}, role="solver", temperature=0.3,
            max_tokens=2 * words + 16, seed=number, stop=("\n",),
            held=sentence_grammar(passage, ("It", "The", "This", "They", "That"), 20),
        )  # fmt: skip
        question, answer = asked.text.strip(), replied.text.strip()
        if reason := _problem(question, answer, replied.finish, passage, kept, words_in_text):
            recorder.reject(f"turn {number + 1}: {reason}", f"{question} / {answer}")
            break
        values = {"passage": passage, "question": question, "answer": answer}
        told = await recorder.tell(
            "conversation_evaluate", values, _EVALUATION, role="judge", temperature=0.0, max_tokens=24
        )
        if told is None or told["mark"] < low:
            recorder.reject(f"turn {number + 1}: marked low", f"{told}: {question} / {answer}")
            break
        kept.append((question, answer))
        marks.append(told["mark"])
        moves.append(told["next"])
        if told["next"] == "end" and len(kept) >= least:
            break
        move = MOVES[told["next"]] or MOVES["deeper"]
    if len(kept) < least:
        return recorder.give_up("too few exchanges", f"{len(kept)} of {least}")
    meta = recorder.meta(
        kind="conversation", profile=profile, marks=marks, moves=moves, domain=domain, language=language,
        grounded=round(min(grounded(a, passage) for _, a in kept), 3),
    )  # fmt: skip
    return recorder.accept(exchange_turns(passage, kept), meta)


def _problem(
    question: str, answer: str, finish: str, passage: str, kept: list[tuple[str, str]], share: float
) -> str | None:
    if not question.endswith("?") or finish != "stop":
        return "cut"
    if any(alike(question, q) or alike(answer, a) for q, a in kept):
        return "said before"
    if len(words_of(answer)) < 4 or repeats(answer):
        return "no answer"
    if grounded(answer, passage) < share:
        return "not about the passage"
    return None
