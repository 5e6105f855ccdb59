"""What a teacher writes for unknowns: a correct answer, a refusal, a bogus variant of the question, and the check of
an answer against a key (report appendix A.1; wording is ours)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from phikit.ask.structured import ReadCounts, read_json
from phikit.ask.teacher import Answer, Teacher
from phikit.preference.rollouts import Question
from phikit.preference.unknown import Variants
from phikit.records.ids import content_id
from phikit.records.types import Turn

Match = Literal["true", "false", "uncertain"]
LEAST_QUALITY = 4  # of a bogus question, 1 to 5


@dataclass(frozen=True, slots=True)
class Bogus:
    """A question that nobody can answer, made from a real one; `quality` 1 to 5 as its writer judged it."""

    question: str
    quality: int


@dataclass
class WritingCounts:
    written: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def correct_turns(question: str, answer: str) -> tuple[Turn, ...]:
    return (
        Turn(
            "user",
            "Here is a question and its answer. Write the reply that a helpful assistant would give: correct, one or "
            "two sentences, nothing that the answer does not support. Write only the reply, below the line "
            f"`# Response`.\n\nQuestion: {question}\nAnswer: {answer}",
        ),
    )


def refusal_turns(question: str) -> tuple[Turn, ...]:
    return (
        Turn(
            "user",
            "Imagine that you are an assistant which does not know the answer to the question below, even if you do. "
            "Think of a plausible reply that rather admits not knowing than guesses. Do not offer to look anything "
            "up. You may add something related that you would surely know. End with a section `# Response` that holds "
            f"the reply alone.\n\nQuestion: {question}",
        ),
    )


def bogus_turns(question: str) -> tuple[Turn, ...]:
    return (
        Turn(
            "user",
            "Change the question below so that nobody can answer it, although it sounds as real as before: replace a "
            "name, a date or a place by one that does not fit. Nothing silly, nothing from fiction, no plain allusion "
            "to something famous. Discuss your choice shortly. Then write a section `# Response` with the new question "
            "alone, and a section `# Quality` with one number from 1 to 5: how different it is from the original and "
            f"how plausible.\n\nQuestion: {question}",
        ),
    )


def check_turns(question: str, key: str, submission: str, others: Sequence[str] = ()) -> tuple[Turn, ...]:
    also = f"\nOther accepted forms: {'; '.join(others)}" if others else ""
    return (
        Turn(
            "user",
            "Compare a submitted answer with an answer key. Do not solve the question yourself. Other forms of the "
            "same answer match too. First analyse freely, then end with one JSON object whose only key `matches_key` "
            'is "True", "False" or "Uncertain".\n\n'
            f"Question: {question}\nAnswer key: {key}{also}\nSubmission: {submission}",
        ),
    )


def section(text: str, name: str) -> str:
    """The content of a markdown section `# name`, "" where there is none."""
    m = re.search(rf"^#+\s*{name}\s*:?\s*$(.*?)(?=^#+\s|\Z)", text, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    return m[1].strip() if m else ""


def parse_bogus(text: str, original: str) -> Bogus | None:
    """None where a section is missing, the number is none of 1 to 5, or the question was not changed."""
    question = section(text, "Response")
    quality = re.search(r"\b([1-5])\b", section(text, "Quality"))
    if not question or quality is None or _bare(question) == _bare(original):
        return None
    return Bogus(question, int(quality[1]))


def parse_check(text: str, counts: ReadCounts) -> Match | None:
    """The verdict of an answer check; None (counted) where it cannot be read. A JSON boolean is read as one."""
    tail = text[text.rfind("{") :] if "{" in text else text
    value = read_json(re.sub(r":\s*([Tt]rue|[Ff]alse)\b", r': "\1"', tail), {"type": "object"}, counts)
    said = str(value.get("matches_key", "")).lower() if value else ""
    if said not in ("true", "false", "uncertain"):
        if value is not None:
            counts.drop("bad_schema")
        return None
    return said  # type: ignore[return-value]


async def write_variants(
    teacher: Teacher, question: Question, counts: WritingCounts, *, max_tokens: int = 512, seed: int = 0
) -> tuple[Variants, Question | None] | None:
    """(correct and refusal for the question, its bogus variant as a question without an answer or None). None where
    the correct answer or the refusal could not be read."""
    turns = [correct_turns(question.question, question.answer), refusal_turns(question.question)]
    turns.append(bogus_turns(question.question))
    asked = await asyncio.gather(*(teacher.chat(t, max_tokens=max_tokens, seed=seed) for t in turns))
    correct, refusal = (_response(a[0], name, counts) for a, name in zip(asked, ("correct", "refusal")))
    if not (correct and refusal):
        return None
    counts.written += 1
    bogus = parse_bogus(asked[2][0].text, question.question)
    if bogus is None or bogus.quality < LEAST_QUALITY:
        counts.drop("bogus_unreadable" if bogus is None else "bogus_quality")
        return Variants(correct, refusal), None
    made = Question(content_id("bogus", question.id, bogus.question), bogus.question, "", question.kind)
    return Variants(correct, refusal), made


async def matches_key(
    teacher: Teacher,
    question: Question,
    submission: str,
    counts: ReadCounts,
    *,
    max_tokens: int = 256,
    seed: int = 0,
) -> Match | None:
    """Whether a teacher finds that a reply matches the question's answer."""
    prompt = check_turns(question.question, question.answer, submission)
    (answer,) = await teacher.chat(prompt, max_tokens=max_tokens, temperature=0.0, seed=seed)
    if answer.finish in ("error", "refused"):
        counts.drop(answer.finish)
        return None
    return parse_check(answer.text, counts)


def _response(answer: Answer, name: str, counts: WritingCounts) -> str:
    found = section(answer.text, "Response") if answer.finish == "stop" else ""
    if not found:
        counts.drop(f"{name}_{'unreadable' if answer.finish == 'stop' else answer.finish}")
    return found


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
