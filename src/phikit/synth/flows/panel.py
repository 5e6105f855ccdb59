"""A panel of agents (report section 2.2, "multi-agent prompting"): solvers, a critic for each solution, a judge.

Solvers answer apart from each other. A critic marks each solution and names its worst fault; the judge sees the
solutions with these faults and picks one, or none. The roles can be played by different teachers (`ask.cast`).
A solution with a false sum is not read.
Where the seed has a reference answer, `meta.label_right` measures the panel; it never decides.
"""

from __future__ import annotations

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder, repeats
from phikit.synth.flows.base import words as words_of
from phikit.synth.flows.plurality import STEPS_GRAMMAR
from phikit.synth.flows.shapes import mark, note, shape
from phikit.verify import math_answer, worked

_CRITIC = shape(fault=note(120, 3), mark=mark())


async def panel(
    seed: Document, ask: Ask, *, solvers: int = 3, least: int = 3, temperature: float = 0.7, words: int = 40,
    kind: str = "math", domain: str = "", language: str = "English",
) -> Outcome:  # fmt: skip
    """`seed` is a question. `kind` "math": the answer is a number. Accepts the solution that the judge picks, where
    its critic gave it at least `least` of 5 and, in math, it states an answer that another solver also reached."""
    recorder = Recorder("panel", seed, ask)
    values = {"question": seed.text, "language": language, "words": words, "domain": domain or "any subject"}
    held = STEPS_GRAMMAR if kind == "math" else None
    answers = await recorder.say(
        "panel_solve",
        values,
        role="solver",
        n=solvers,
        temperature=temperature,
        max_tokens=3 * words,
        held=held,
    )
    readable = [a.text for a in answers if a.finish == "stop" and _readable(a.text, kind)]
    solutions = list(dict.fromkeys(a.strip() for a in readable))
    said = [math_answer.extract_answer(a) for a in readable] if kind == "math" else []
    if len(readable) < 2:
        return recorder.give_up("fewer than two readable solutions", f"{len(readable)} of {solvers}")
    criticism = []
    for solution in solutions:
        values = {"question": seed.text, "solution": solution}
        criticism.append(
            await recorder.tell(
                "panel_criticize", values, _CRITIC, role="critic", temperature=0.0, max_tokens=64
            )
        )
    shown = "\n\n".join(
        f"Solution {i}: {s}\nFault: {c['fault'] if c else 'not read'}"
        for i, (s, c) in enumerate(zip(solutions, criticism), 1)
    )
    choice = await recorder.tell(
        "panel_judge", {"question": seed.text, "solutions": shown}, shape(best=mark(0, len(solutions))), role="judge",
        temperature=0.0, max_tokens=16,
    )  # fmt: skip
    if choice is None or choice["best"] == 0:
        return recorder.give_up("the judge picks none", shown)
    picked, fault = solutions[choice["best"] - 1], criticism[choice["best"] - 1]
    if fault is None or fault["mark"] < least:
        return recorder.give_up("the critic marks it low", f"{fault}: {picked}")
    scores: dict[str, object] = {
        "kind": kind,
        "critic": fault["mark"],
        "fault": fault["fault"],
        "solutions": solutions,
    }
    if kind == "math":
        answer = math_answer.extract_answer(picked) or ""
        agree = sum(a is not None and math_answer.equal(a, answer) for a in said)
        if agree < 2:
            return recorder.give_up("no other solver agrees", picked)
        scores |= {"answer": answer, "agreement": round(agree / len(answers), 3)}
        if seed.meta.get("answer") is not None:
            scores["label_right"] = math_answer.equal(answer, str(seed.meta["answer"]))
    meta = recorder.meta(**scores, domain=domain, language=language)
    turns = (Turn("user", seed.text), Turn("assistant", picked))
    return recorder.accept(turns, meta)


def _readable(solution: str, kind: str) -> bool:
    if kind == "math":
        if any(not right for right, _ in worked.sums(solution)):  # 10 - 3 = 6
            return False
        value = math_answer.extract_answer(solution)
        return value is not None and math_answer.parse_number(value) is not None
    return len(words_of(solution)) >= 4 and not repeats(solution, 6)
