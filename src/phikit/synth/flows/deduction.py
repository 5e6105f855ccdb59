"""Deduction chains out of text (report section 2.2, "creating question-answer pairs from diverse sources").

Not questions that stand in the text, but its chains of reasoning: which sentences lead to which conclusion. The teacher
points at sentences by number, so the chain is the author's own words. The conclusion becomes the answer of a question;
it is kept where a second reading, shown the premises alone, comes to the same.
"""

from __future__ import annotations

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import (
    Ask,
    Outcome,
    Recorder,
    grounded,
    numbered,
    repeats,
    sentence_grammar,
    sentences,
    supported,
)  # fmt: skip
from phikit.synth.flows.rewrite import WH
from phikit.synth.flows.shapes import mark, shape, some


async def deduction(
    seed: Document,
    ask: Ask,
    *,
    agreement: float = 0.4,
    most: int = 8,
    language: str = "English",
    words: int = 30,
) -> Outcome:
    """`seed` is a passage of at least three sentences. Accepts a Dialog: premises and question, then the chain and its
    conclusion. `agreement`: the share of the conclusion's new content words that the second reading must reach."""
    recorder = Recorder("deduction", seed, ask)
    parts = sentences(seed.text)[:most]
    if len(parts) < 3:
        return recorder.give_up("fewer than three sentences", seed.text)
    chain_shape = shape(premises=some(mark(1, len(parts)), 1, 3), conclusion=mark(1, len(parts)))
    chain = await recorder.tell(
        "deduction_chain", {"sentences": numbered(parts)}, chain_shape, temperature=0.0, max_tokens=40
    )
    if chain is None:
        return recorder.give_up("no readable chain")
    end = chain["conclusion"]
    premises = sorted({p for p in chain["premises"] if p != end})
    if not premises:
        return recorder.give_up("the conclusion is its own premise", f"{chain}")
    conclusion, given = parts[end - 1], [parts[p - 1] for p in premises]
    if repeats(" ".join([*given, conclusion])) or grounded(conclusion, " ".join(given)) > 0.8:
        return recorder.give_up("the conclusion says nothing new", conclusion)
    values = {"premises": " ".join(given), "conclusion": conclusion, "language": language}
    asked = await recorder.one(
        "deduction_question", values, temperature=0.3, max_tokens=2 * words, stop=("\n",),
        held=sentence_grammar(" ".join([*given, conclusion]), WH, 16, "?"),
    )  # fmt: skip
    question = asked.text.strip()
    if not question.endswith("?") or asked.finish != "stop":
        return recorder.give_up("question cut", question)
    if grounded(question, conclusion + " " + " ".join(given)) < 0.5:
        return recorder.give_up("question not about the chain", question)
    values = {"premises": " ".join(given), "question": question, "language": language}
    second = await recorder.one(
        "deduction_answer", values, role="solver", temperature=0.0, max_tokens=2 * words + 16, stop=("\n",)
    )  # fmt: skip
    reached = supported(question, conclusion, second.text)
    if reached < agreement:
        return recorder.give_up(
            "the premises do not lead there", f"{question} / {conclusion} / {second.text}"
        )
    body = "\n".join([*(f"- {p}" for p in given), f"So: {conclusion}"])
    meta = recorder.meta(
        kind="deduction", agreement=round(reached, 3), premises=premises, conclusion=end, language=language
    )
    turns = (Turn("user", f"{' '.join(given)}\n\n{question}"), Turn("assistant", body))
    return recorder.accept(turns, meta)
