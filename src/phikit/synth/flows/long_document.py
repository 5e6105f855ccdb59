"""Long synthetic documents (report section 3.3: new synthetic sets of more than 4K tokens).

Inherently long, not packed: an outline first, then section after section, each written with the title, the outline's
next heading, the end of what was written so far and one passage of the source. A section that loops, is too short or
leaves its heading is written again once. The whole is kept where it is at least `tokens` long and little of it is said
twice.
"""

from __future__ import annotations

import functools
from collections import Counter

from phikit.records.types import Document
from phikit.synth.flows.base import Ask, Outcome, Recorder, grounded, repeats
from phikit.synth.flows.base import words as words_of
from phikit.synth.flows.shapes import shape, some, text
from phikit.synth.seeds import paragraphs
from phikit.text import cl100k


async def long_document(
    seed: Document, ask: Ask, *, tokens: int = 4096, words: int = 160, sections: int = 40, twice: float = 0.1,
    domain: str = "", language: str = "English",
) -> Outcome:  # fmt: skip
    """`seed` is a page. Accepts a Document of at least `tokens` cl100k tokens. `sections`: the most that are written.
    `twice`: largest share of the document's 8-word runs that occur more than once."""
    recorder = Recorder("long_document", seed, ask)
    passages = [p for _, _, p in paragraphs(seed.text) if len(p.split()) >= 12]
    if not passages:
        return recorder.give_up("no passages in the seed", seed.text)
    tokenizer = _tokenizer()
    values = {"page": " ".join(passages)[:1200], "domain": domain or "its subject", "language": language}
    form = shape(title=text(80, 8), headings=some(text(60, 3), 4, 12))
    plan = await recorder.tell("long_plan", values, form, temperature=0.3, max_tokens=260)
    if plan is None:
        return recorder.give_up("no readable outline")
    outline = " ".join([plan["title"], *plan["headings"]])
    if grounded(outline, seed.text) < 0.4:
        return recorder.give_up("the outline is of something else", outline)
    written: list[tuple[str, str]] = []
    length = failed = 0
    for number in range(sections):
        heading = plan["headings"][number % len(plan["headings"])]
        if number >= len(plan["headings"]):
            heading = f"{heading}, part {number // len(plan['headings']) + 1}"
        body = await _section(
            recorder, plan["title"], heading, written, passages[number % len(passages)], words, language
        )
        if body is None:
            failed += 1
            if failed > 3 + number // 2:
                break
            continue
        written.append((heading, body))
        length += len(tokenizer.encode(f"## {heading}\n\n{body}\n\n"))
        if length >= tokens:
            break
    whole = f"# {plan['title']}\n\n" + "\n\n".join(f"## {h}\n\n{b}" for h, b in written)
    if length < tokens:
        return recorder.give_up("too short", f"{length} of {tokens} tokens, {failed} sections failed")
    share = said_twice(whole)
    if share > twice:
        return recorder.give_up("says too much twice", f"{share:.2f}: {whole}")
    meta = recorder.meta(
        kind="long", tokens=length, sections=len(written), twice=round(share, 3), domain=domain, language=language,
        path=seed.meta.get("path", ""),
    )  # fmt: skip
    return recorder.outcome(Document(whole, "synthetic_long", meta, (seed.id,)))


async def _section(
    recorder: Recorder,
    title: str,
    heading: str,
    written: list[tuple[str, str]],
    passage: str,
    words: int,
    language: str,
) -> str | None:
    """A section that can be used, within two tries."""
    before = written[-1][1][-240:] if written else "nothing"
    values = {
        "title": title, "heading": heading, "before": before, "passage": passage[:600], "words": words,
        "language": language,
    }  # fmt: skip
    for k in range(2):
        answer = await recorder.one(
            "long_section", values, temperature=0.6 + 0.2 * k, max_tokens=2 * words, seed=k + 2 * len(written)
        )  # fmt: skip
        body = answer.text.strip()
        if answer.finish == "length":  # to the end of its last whole sentence
            body = body[: max(body.rfind(". "), body.rfind(".\n")) + 1]
        have = {b for _, b in written}
        if len(words_of(body)) < words // 4 or repeats(body, 10) or body in have:
            recorder.reject("section: short, in a loop, or written before", f"{heading}: {body}")
        elif language == "English" and grounded(f"{heading} {passage}", body) < 0.1:
            recorder.reject("section: not about its heading and source", f"{heading}: {body}")
        else:
            return body
    return None


_tokenizer = functools.cache(cl100k.build)


def said_twice(text: str, n: int = 8) -> float:
    """The share of n-word runs that occur more than once."""
    w = words_of(text)
    grams = Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1))
    total = sum(grams.values())
    return sum(c for c in grams.values() if c > 1) / total if total else 0.0
