"""Web rewrites (report section 2.2, Table 5): a page's content in the form of a textbook, an encyclopedia, notes.

Small steps keep a small teacher faithful: `sentences_a_step` sentences are rewritten at a time. Each step is checked
by what can be measured: numbers and names that the source lacks are inventions, too little of its vocabulary is a loss,
and a run of its own words too long is a copy. A page is kept where enough of its steps pass.
"""

from __future__ import annotations

import re

from phikit.records.types import Document
from phikit.synth.flows.base import (
    Ask,
    Outcome,
    Recorder,
    content_words,
    grounded,
    repeats,
    sentences,
)
from phikit.synth.flows.base import (
    words as words_of,
)

STYLES = {
    "textbook": "a textbook that explains patiently",
    "encyclopedia": "an encyclopedia, neutral and exact",
    "lesson": "a teacher who speaks to a class",
    "notes": "lecture notes in short plain sentences",
    "news": "a science journalist",
    "children": "a book for children of ten",
}


async def web_rewrite(
    seed: Document, ask: Ask, *, style: str = "textbook", language: str = "English", sentences_a_step: int = 2,
    most_steps: int = 4, pass_share: float = 0.5, kept: float = 0.3, run: int = 12, words: int = 60,
) -> Outcome:  # fmt: skip
    """`seed` is a passage or a page. Accepts a Document. `pass_share`: of the steps that must pass, at least one.
    `kept`: the share of a step's content words that must come back. `run`: words in a row that may be the source's
    own. `words`: about how long a rewritten step may be."""
    recorder = Recorder(f"web_rewrite {style}", seed, ask)
    parts = sentences(seed.text)
    steps = [" ".join(parts[i : i + sentences_a_step]) for i in range(0, len(parts), sentences_a_step)][
        :most_steps
    ]
    good: list[str] = []
    for step in steps:
        values = {"style": STYLES[style], "language": language, "text": step, "words": words}
        answer = await recorder.one(
            "web_rewrite", values, temperature=0.4, max_tokens=2 * words + 16, stop=("\n\n",)
        )
        written = answer.text.strip()
        if answer.finish != "stop":
            recorder.reject("step: cut", written)
        elif reason := problem(written, step, kept, run, same_language=language == "English"):
            recorder.reject(f"step: {reason}", f"{step} -> {written}")
        else:
            good.append(written)
    if not good or len(good) < pass_share * len(steps):
        return recorder.give_up("too few steps pass", f"{len(good)} of {len(steps)}")
    text = "\n\n".join(good)
    if language == "English" and grounded(" ".join(content_words(seed.text)), text) < kept:
        return recorder.give_up("loses the content", text)
    meta = recorder.meta(
        kind="rewrite", style=style, language=language, passed=round(len(good) / len(steps), 3),
        grounded=round(grounded(text, seed.text), 3), path=seed.meta.get("path", ""),
    )  # fmt: skip
    return recorder.outcome(Document(text, "web_rewrites", meta, (seed.id,)))


def problem(written: str, source: str, kept: float, run: int, *, same_language: bool = True) -> str | None:
    """What is wrong with a rewritten text by measure, or None. In another language numbers only can be compared."""
    have = set(re.findall(r"\d+", source))
    if [n for n in re.findall(r"\d+", written) if n not in have and len(n) > 1]:
        return "invented number"
    if len(words_of(written)) < 5 and same_language:
        return "too short"
    if repeats(written, 6):
        return "repetition"
    if not same_language:
        return None
    low = source.lower()
    names = re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}", written)
    if [n for n in names if n.lower() not in low]:
        return "invented name"
    back = content_words(source)
    if back and grounded(" ".join(back), written) < kept:
        return "loses the content"
    if _shared_run(words_of(written), words_of(source)) > run:
        return "copied"
    return None


def _shared_run(a: list[str], b: list[str]) -> int:
    """The longest run of words that two texts share."""
    best, before = 0, [0] * (len(b) + 1)
    for x in a:
        row = [0] * (len(b) + 1)
        for j, y in enumerate(b, 1):
            if x == y:
                row[j] = before[j - 1] + 1
                best = max(best, row[j])
        before = row
    return best
