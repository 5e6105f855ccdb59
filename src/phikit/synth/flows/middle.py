"""Fill-in-the-middle by reasoning (appendix D.2): what stood in the gap, and how can one know?

A sentence in the middle of a passage is cut out that can be inferred: it must share words with what is left. The
teacher gives background, reasoning and a guess, without seeing the sentence; the guess is compared with the truth
(F1 of words), a judge grades it from 1 to 5 and writes a hint. Of several tries the best is kept, if it is good enough.
"""

from __future__ import annotations

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder, content_words, grounded, repeats, sentences
from phikit.synth.flows.shapes import mark, note, shape, text
from phikit.verify.text import f1

GAP = "[...]"


async def middle(
    seed: Document,
    ask: Ask,
    *,
    n: int = 3,
    close: float = 0.3,
    grade: int = 3,
    words: int = 25,
    language: str = "English",
) -> Outcome:
    """`seed` is a passage of at least three sentences. Accepts a Dialog: passage with the gap, then background,
    reasoning and the true sentence. `close`: least F1 of guess and truth."""
    recorder = Recorder("middle", seed, ask)
    parts = sentences(seed.text)
    inner = range(1, len(parts) - 1)
    if not inner:
        return recorder.give_up("fewer than three sentences", seed.text)
    rest = {i: " ".join(p for j, p in enumerate(parts) if j != i) for i in inner}
    cut = max(inner, key=lambda i: (grounded(parts[i], rest[i]), -i))
    truth = parts[cut]
    if len(content_words(truth)) < 3 or grounded(truth, rest[cut]) < 0.2:
        return recorder.give_up("no sentence that the rest gives away", truth)
    context = " ".join([*parts[:cut], GAP, *parts[cut + 1 :]])
    form = shape(background=text(6 * words, 10), reasoning=text(7 * words, 10), guess=text(7 * words, 10))
    best, score = None, -1.0
    for k in range(n):
        values = {"context": context, "language": language, "words": words}
        draft = await recorder.tell(
            "middle_reason",
            values,
            form,
            role="solver",
            temperature=0.3 + 0.2 * k,
            max_tokens=7 * words,
            seed=k,
        )
        if draft is not None and not repeats(draft["guess"], 6) and f1(draft["guess"], [truth]) > score:
            best, score = draft, f1(draft["guess"], [truth])
    if best is None:
        return recorder.give_up("no readable try")
    if score < close:
        return recorder.give_up("the guess is far from the truth", f"{score:.2f}: {truth} / {best['guess']}")
    values = {"truth": truth, "guess": best["guess"], "language": language}
    form = shape(grade=mark(), hint=note(6 * words, 5))
    told = await recorder.tell(
        "middle_grade", values, form, role="judge", temperature=0.0, max_tokens=4 * words
    )
    if told is None or told["grade"] < grade:
        return recorder.give_up("graded low", f"{told}: {truth} / {best['guess']}")
    body = f"Background: {best['background']}\nReasoning: {best['reasoning']}\nMissing: {truth}"
    meta = recorder.meta(
        kind="middle", f1=round(score, 3), scores={"grade": told["grade"]}, hint=told["hint"], guess=best["guess"],
        language=language,
    )  # fmt: skip
    asked = f"{context}\n\nOne sentence is missing at {GAP}. Reason about what stood there."
    return recorder.accept((Turn("user", asked), Turn("assistant", body)), meta)
