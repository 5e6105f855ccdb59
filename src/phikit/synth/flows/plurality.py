"""Plurality filtering of questions without a known answer (report section 2.2, "Question datasets").

Several answers are sampled; where all agree the question is too easy, where all disagree it is too hard or
unclear, and both are dropped. The answer given most often becomes the label. Whether the label is true is not
known to the flow: where the seed has a reference answer, `meta.label_right` tells, for measuring only.
"""

from __future__ import annotations

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder
from phikit.verify import math_answer

# A step and the answer: free text gets a small teacher lost before it names a number.
STEPS_GRAMMAR = """
root ::= step+ "The answer is " number "."
step ::= number (" " [-+*/] " " number)+ " = " number ". "
number ::= [0-9] | [1-9] [0-9] | [1-9] [0-9] [0-9]
"""


async def plurality(
    seed: Document,
    ask: Ask,
    *,
    k: int = 5,
    temperature: float = 0.7,
    least: float = 0.5,
    grammar: str | None = STEPS_GRAMMAR,
    max_tokens: int = 40,
) -> Outcome:
    """`seed` is a question with a number as its answer; accepts one Dialog whose answer is the plurality
    label, given by at least the share `least` of the readable answers."""
    recorder = Recorder("plurality", seed, ask)
    answers = await recorder.say(
        "plurality",
        {"question": seed.text},
        n=k,
        temperature=temperature,
        max_tokens=max_tokens,
        held=grammar,
    )
    votes: list[tuple[str, str]] = []  # (answer, completion) of each sample whose answer can be read
    for answer in answers:
        value = math_answer.extract_answer(answer.text)
        if answer.finish == "stop" and value is not None and math_answer.parse_number(value) is not None:
            votes.append((value, answer.text.strip()))
    if len(votes) < 3:
        return recorder.give_up("fewer than 3 readable answers", f"{len(votes)} of {k}")
    groups: list[list[tuple[str, str]]] = []
    for vote in votes:
        for group in groups:
            if math_answer.equal(group[0][0], vote[0]):
                group.append(vote)
                break
        else:
            groups.append([vote])
    groups.sort(key=len, reverse=True)  # stable: the order of samples decides nothing but the first text kept
    counts = [len(g) for g in groups]
    shown = ", ".join(f"{g[0][0]} x{len(g)}" for g in groups)
    if len(groups) == 1:
        recorder.reject("all agree", shown)
    elif counts[0] == 1:
        recorder.reject("all disagree", shown)
    elif counts[0] == counts[1]:
        recorder.reject("no plurality", shown)
    elif counts[0] < least * len(votes):
        recorder.reject("weak plurality", shown)
    else:
        label, text = groups[0][0]
        scores: dict[str, object] = {"answer": label, "kind": "math", "agreement": counts[0] / len(votes)}
        if seed.meta.get("answer") is not None:
            scores["label_right"] = math_answer.equal(label, str(seed.meta["answer"]))
        turns = (Turn("user", seed.text), Turn("assistant", text))
        return recorder.accept(turns, recorder.meta(**scores))
    return recorder.outcome()
