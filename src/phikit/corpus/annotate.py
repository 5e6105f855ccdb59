"""A teacher grades texts by a rubric, for the quality classifier to learn (report section 2.3; the wording is ours)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phikit.ask.structured import ReadCounts, chat_json
from phikit.records import Document
from phikit.records.ids import seed_of
from phikit.records.types import Turn

STEM = ("mathematics", "science", "technology")
NON_STEM = ("arts", "history", "travel", "culture", "entertainment")  # those that facts 3.3 names
TOPICS = (*STEM, *NON_STEM, "other")
LOW, HIGH = 0, 5
SHOWN = 1500  # characters of a text that the teacher sees
RUBRIC = f"""You grade texts for a library from which people learn. Give one number from {LOW} to {HIGH}:
0: nothing can be learned from it: menus, lists of links, advertising, broken text.
1: a few facts between much that is of no use.
2: it informs, but it is shallow, disordered or hard to follow.
3: it explains something clearly enough to learn from.
4: a good explanation: ordered, complete, correct as far as one can tell.
5: excellent: reasons step by step, with examples, as a good textbook does.
Then name the topic that fits best: {", ".join(TOPICS)}."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "score": {"type": "integer", "minimum": LOW, "maximum": HIGH},
        "topic": {"type": "string", "enum": list(TOPICS)},
    },
    "required": ["score", "topic"],
}


@dataclass(frozen=True, slots=True)
class Annotation:
    """Of one document: its scores, a vote each, and the topic that most votes name (the first of equals)."""

    id: str
    scores: tuple[int, ...]
    topic: str

    @property
    def score(self) -> float:
        return sum(self.scores) / len(self.scores)


async def annotate(
    teacher: Any,
    documents: Sequence[Document],
    counts: ReadCounts,
    *,
    votes: int = 1,
    rubric: str = RUBRIC,
    seed: int = 0,
    together: int = 32,
) -> list[Annotation | None]:
    """One annotation a document, None where no answer could be read (counted). One vote is asked for at temperature
    0, several at 0.7, each with a seed of its own: one seed for all drew the same score for nearly every text from a
    teacher that does not care. At most `together` documents are under way."""
    room = asyncio.Semaphore(together)

    async def one(document: Document) -> Annotation | None:
        text = " ".join(document.text[:SHOWN].split())
        turns = (
            Turn("system", rubric),
            Turn("user", f'Text:\n"""\n{text}\n"""\nAnswer with JSON: {{"score": number, "topic": word}}'),
        )
        found = []
        async with room:
            for vote in range(votes):
                value, _ = await chat_json(
                    teacher, turns, SCHEMA, counts,
                    max_tokens=40, temperature=0.7 if votes > 1 else 0.0, seed=seed_of(seed, document.id, vote),
                )  # fmt: skip
                if value is None:
                    return None
                found.append(value)
        topics = [v["topic"] for v in found]
        return Annotation(document.id, tuple(v["score"] for v in found), max(topics, key=topics.count))

    return list(await asyncio.gather(*map(one, documents)))
