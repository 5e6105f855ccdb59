"""A conversation of two agents on a passage (report section 2.2 and appendix D.1.3, "multi-agent prompting").

A student asks, a teacher answers, and after each exchange a third role evaluates it; what was asked before
steers the next question. An exchange that fails a check is left out, and the conversation goes on without it.
"""

from __future__ import annotations

from phikit.records.types import Dialog, Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder, grounded, repeats, sentence_grammar, words
from phikit.synth.flows.rewrite import WH

_YES_NO = 'root ::= "yes" | "no"'


async def multi_agent(
    seed: Document, ask: Ask, *, rounds: int = 3, wanted: int = 2, words_in_text: float = 0.75
) -> Outcome:
    """`seed` is a short passage; accepts a Dialog of `wanted` exchanges, all evaluated and grounded."""
    recorder = Recorder("multi_agent", seed, ask)
    passage, kept = seed.text, []
    for number in range(rounds):
        asked = " ".join(q for q, _ in kept) or "nothing"
        question = (
            await recorder.say(
                "agents_ask", {"passage": passage, "asked": asked},
                temperature=0.5, max_tokens=28, seed=number,
                grammar=sentence_grammar(passage, WH, 14, "?"),
            )
        )[0]  # fmt: skip
        answer = (
            await recorder.say(
                "agents_answer", {"passage": passage, "question": question.text},
                temperature=0.0, max_tokens=36,
                grammar=sentence_grammar(passage),
            )
        )[0]  # fmt: skip
        if reason := _problem(question.text, answer.text, answer.finish, passage, kept, words_in_text):
            recorder.reject(reason, f"{question.text} / {answer.text}")
            continue
        values = {"passage": passage, "question": question.text, "answer": answer.text}
        verdict = (
            await recorder.say("agents_evaluate", values, temperature=0.0, max_tokens=4, grammar=_YES_NO)
        )[0]
        if verdict.text.strip() != "yes":
            recorder.reject("evaluator says no", f"{question.text} / {answer.text}")
            continue
        kept.append((question.text.strip(), answer.text.strip()))
        if len(kept) == wanted:
            break
    if not kept:
        return recorder.outcome()
    if len(kept) < wanted:
        recorder.reject("too few exchanges", f"{len(kept)} of {wanted}")
        return recorder.outcome()
    turns: list[Turn] = []
    for i, (question, answer) in enumerate(kept):
        turns += [Turn("user", f"{passage}\n\n{question}" if i == 0 else question), Turn("assistant", answer)]
    share = min(grounded(a, passage) for _, a in kept)
    meta = recorder.meta(kind="conversation", grounded=round(share, 3), exchanges=len(kept))
    return recorder.outcome(Dialog(tuple(turns), "synthetic", meta, (seed.id,)))


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
