"""Seed curation (report section 2.2, "web and code-based seeds", and the excerpt tags of appendix D.1.1).

Two stages: is the page worth teaching from, and which of its passages hold facts and reasoning. What is kept is a
seed for the other flows, tagged with its lines, kind, subject, complexity (A easy to D expert), obscurity of its facts
(A common to D rare) and the steps of its reasoning, so that later flows can choose by them.
"""

from __future__ import annotations

from phikit.records.types import Document
from phikit.synth.flows.base import Ask, Outcome, Recorder, grounded
from phikit.synth.flows.shapes import mark, note, one_of, shape, some
from phikit.synth.seeds import facts, paragraphs

KINDS = (
    "explanation",
    "definition",
    "argument",
    "instruction",
    "example",
    "narrative",
    "reference",
    "advertising",
)
SUBJECTS = (
    "mathematics", "computing", "physics", "chemistry", "biology", "medicine", "engineering", "history", "geography",
    "economics", "law", "arts", "language", "society", "everyday life",
)  # fmt: skip
_PAGE = shape(kind=one_of(KINDS), subject=one_of(SUBJECTS), educational=mark())
_PASSAGE = shape(
    description=note(120, 10), facts=mark(), reasoning=mark(), complexity=one_of("ABCD"), obscurity=one_of("ABCD"),
    steps=some(note(100, 5), 0, 4),
)  # fmt: skip


async def curate(
    seed: Document, ask: Ask, *, educational: int = 3, score: int = 6, most: int = 3, shown: int = 1200
) -> Outcome:
    """`seed` is a page. Accepts up to `most` Documents of source "seed": passages whose facts and reasoning (1 to 5
    each, by the teacher) add up to `score`, which hold a fact by our own count, and which the teacher's description
    fits. `shown`: characters of the page that are judged as a whole."""
    recorder = Recorder("curate", seed, ask)
    page = await recorder.tell(
        "curate_page", {"page": seed.text[:shown]}, _PAGE, temperature=0.0, max_tokens=48
    )
    if page is None:
        return recorder.give_up("page: no readable verdict")
    if page["educational"] < educational or page["kind"] == "advertising":
        return recorder.give_up("page: little to learn from", f"{page}")
    candidates = [(first, last, p) for first, last, p in paragraphs(seed.text) if facts(p) > 0]
    if not candidates:
        recorder.reject("page: no passage with facts")
    kept: list[Document] = []
    for first, last, passage in sorted(candidates, key=lambda c: -facts(c[2]))[: 2 * most]:
        if len(kept) == most:
            break
        tags = await recorder.tell(
            "curate_passage", {"passage": passage}, _PASSAGE, temperature=0.0, max_tokens=220
        )
        if tags is None:
            recorder.reject("passage: no readable tags", passage)
        elif tags["facts"] + tags["reasoning"] < score:
            recorder.reject("passage: few facts and little reasoning", f"{tags}: {passage}")
        elif grounded(tags["description"], passage) < 0.5:
            recorder.reject(
                "passage: the description is of something else", f"{tags['description']}: {passage}"
            )
        else:
            meta = recorder.meta(
                **tags, lines=[first, last], kind=page["kind"], subject=page["subject"],
                educational=page["educational"], density=round(facts(passage), 3), path=seed.meta.get("path", ""),
            )  # fmt: skip
            kept.append(Document(passage, "seed", meta, (seed.id,)))
    return recorder.outcome(*kept)
