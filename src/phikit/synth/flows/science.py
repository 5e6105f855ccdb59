"""Scientific questions and answers that stand on their source (report section 2.2, "validation of scientific data").

Three demands on a question: it is relevant, its answer stands in the passage, and its difficulty is known, so that
a data set can be balanced by it. The teacher writes question, answer and a supporting sentence's number; the judge,
who does not see the answer, marks relevance and difficulty; that the answer stands on its sentence is measured.
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
    sentences,
    supported,
)
from phikit.synth.flows.shapes import mark, one_of, shape, text

LEVELS = ("easy", "medium", "hard")


async def science(
    seed: Document, ask: Ask, *, domain: str = "science", language: str = "English", words: int = 25,
    relevance: int = 3, support: float = 0.6,
) -> Outcome:  # fmt: skip
    """`seed` is a passage. Accepts a Dialog whose answer has at least the share `support` of its new content words in
    the sentence it names. `meta.difficulty` is the judge's."""
    recorder = Recorder("science", seed, ask)
    parts = sentences(seed.text)
    form = shape(sentence=mark(1, len(parts)), question=text(7 * words, 12), answer=text(7 * words, 4))
    values = {"sentences": numbered(parts), "domain": domain, "language": language, "words": words}
    draft = await recorder.tell("science_write", values, form, temperature=0.3, max_tokens=6 * words)
    if draft is None:
        return recorder.give_up("no readable draft")
    question, answer, source = (
        draft["question"].strip(),
        draft["answer"].strip(),
        parts[draft["sentence"] - 1],
    )
    shown = f"{question} / {answer} / {source}"
    if not question.endswith("?") or repeats(question, 5) or repeats(answer, 6):
        return recorder.give_up("no question, or it repeats itself", shown)
    if grounded(question, seed.text) < 0.4:
        return recorder.give_up("question not about the passage", shown)
    held = supported(question, answer, source)
    if held < support:
        return recorder.give_up("answer not in its sentence", f"{held:.2f}: {shown}")
    form = shape(relevance=mark(), difficulty=one_of(LEVELS))
    values = {"passage": seed.text, "question": question, "domain": domain}
    told = await recorder.tell("science_judge", values, form, role="judge", temperature=0.0, max_tokens=32)
    if told is None or told["relevance"] < relevance:
        return recorder.give_up("not relevant", f"{told}: {shown}")
    meta = recorder.meta(
        kind="science", domain=domain, language=language, grounded=round(held, 3),
        scores={"relevance": told["relevance"]}, difficulty=told["difficulty"],
        sentence=draft["sentence"], answer=answer,
    )  # fmt: skip
    turns = (Turn("user", f"{seed.text}\n\n{question}"), Turn("assistant", answer))
    return recorder.accept(turns, meta)
