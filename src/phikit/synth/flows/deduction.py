"""Deduction chains out of text (report section 2.2, "creating question-answer pairs from diverse sources").

Not questions that stand in the text, but its chains of reasoning: which sentences lead to which conclusion. The teacher
points at sentences by number, so the chain is the author's own words. The conclusion becomes the answer of a question;
it is kept where a second reading, shown the premises alone, comes to the same.
"""

from __future__ import annotations

from phikit.records.types import Dialog, Document, Turn
from phikit.synth.flows.base import (
    Ask,
    Outcome,
    Recorder,
    content_words,
    grounded,
    numbered,
    repeats,
    sentence_grammar,
    sentences,
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
        recorder.reject("fewer than three sentences", seed.text)
        return recorder.outcome()
    chain_shape = shape(premises=some(mark(1, len(parts)), 1, 3), conclusion=mark(1, len(parts)))
    chain = await recorder.tell(
        "deduction_chain", {"sentences": numbered(parts)}, chain_shape, temperature=0.0, max_tokens=40
    )
    if chain is None:
        recorder.reject("no readable chain")
        return recorder.outcome()
    end = chain["conclusion"]
    premises = sorted({p for p in chain["premises"] if p != end})
    if not premises:
        recorder.reject("the conclusion is its own premise", f"{chain}")
        return recorder.outcome()
    conclusion, given = parts[end - 1], [parts[p - 1] for p in premises]
    if repeats(" ".join([*given, conclusion])) or grounded(conclusion, " ".join(given)) > 0.8:
        recorder.reject("the conclusion says nothing new", conclusion)
        return recorder.outcome()
    values = {"premises": " ".join(given), "conclusion": conclusion, "language": language}
    asked = (
        await recorder.say(
            "deduction_question", values, temperature=0.3, max_tokens=2 * words, stop=("\n",),
            held=sentence_grammar(" ".join([*given, conclusion]), WH, 16, "?"),
        )
    )[0]  # fmt: skip
    question = asked.text.strip()
    if not question.endswith("?") or asked.finish != "stop":
        recorder.reject("question cut", question)
        return recorder.outcome()
    if grounded(question, conclusion + " " + " ".join(given)) < 0.5:
        recorder.reject("question not about the chain", question)
        return recorder.outcome()
    values = {"premises": " ".join(given), "question": question, "language": language}
    second = (
        await recorder.say(
            "deduction_answer", values, role="solver", temperature=0.0, max_tokens=2 * words + 16, stop=("\n",)
        )
    )[0]  # fmt: skip
    new = [w for w in content_words(conclusion) if w not in content_words(question)]
    reached = grounded(" ".join(new), second.text) if new else 0.0
    if reached < agreement:
        recorder.reject("the premises do not lead there", f"{question} / {conclusion} / {second.text}")
        return recorder.outcome()
    body = "\n".join([*(f"- {p}" for p in given), f"So: {conclusion}"])
    meta = recorder.meta(
        kind="deduction", agreement=round(reached, 3), premises=premises, conclusion=end, language=language
    )
    turns = (Turn("user", f"{' '.join(given)}\n\n{question}"), Turn("assistant", body))
    return recorder.outcome(Dialog(turns, "synthetic", meta, (seed.id,)))
