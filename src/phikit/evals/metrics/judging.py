"""What a judge is asked and how its words are read: a pair of answers, an answer beside a reference, a long answer, a
summary, an answer by an author's notes. Wording is ours; the protocols are named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phikit.ask.judge import judge_schema, judge_turns, parse_judgement
from phikit.ask.structured import ReadCounts, read_json
from phikit.evals.task import Answer, Graded, Item, Judge
from phikit.records.types import Turn

UNREADABLE = Graded({}, "unparsed", detail="unreadable verdict")


def ungraded(item: Item, answer: Answer) -> Graded:
    """The grade of an answer that only a judge grades."""
    return Graded({}, "scored")


def integers(**most: int) -> dict[str, Any]:
    """The schema of an object of integers from 0 to the given numbers."""
    return {
        "type": "object",
        "properties": {k: {"type": "integer", "minimum": 0, "maximum": v} for k, v in most.items()},
        "required": list(most),
    }


def marked(
    system: str | Callable[[Item], str],
    told: Callable[[Item, Answer], str],
    read: Callable[[Item, Mapping[str, int]], Graded],
    schema: dict[str, Any],
    **more: Any,
) -> Judge:
    """A judge that answers with one JSON object of integers."""

    def ask(item: Item, answer: Answer) -> Sequence[Turn]:
        rules = system if isinstance(system, str) else system(item)
        return (Turn("system", rules), Turn("user", told(item, answer)))

    def reader(item: Item, answer: Answer, text: str) -> Graded:
        value = read_json(text, schema, ReadCounts())
        return UNREADABLE if value is None else read(item, value)

    return Judge(ask, reader, max_tokens=96, schema=schema, **more)


def against_baseline(swapped: bool = False) -> Judge:
    """Arena-Hard's comparison with the baseline's answer (`item.reference`), in the form of ask/judge.py, asked in both
    orders. Metric `win`: 1, 1/2 for equal marks, 0."""
    place = 0 if swapped else 1

    def ask(item: Item, answer: Answer) -> Sequence[Turn]:
        both = [str(item.reference), answer.text]
        return judge_turns((Turn("user", item.prompt),), both[::-1] if swapped else both)

    def read(item: Item, answer: Answer, text: str) -> Graded:
        found = parse_judgement(text, 2, ReadCounts())
        if found is None:
            return UNREADABLE
        gap = found[0][place].overall - found[0][1 - place].overall
        value = 1.0 if gap > 1e-9 else 0.0 if gap < -1e-9 else 0.5
        return Graded({"win": value}, "scored", f"{gap:+.2f}", found[1][:500])

    other = None if swapped else against_baseline(True)
    return Judge(ask, read, max_tokens=768, schema=judge_schema(2), swapped=other)


_REFERENCE = """\
You compare the final answer of a reply with the reference. Do not solve the task. Reply with one letter.
A: the final answer says the same as the reference; another form of the same value counts.
B: it does not, or there is no final answer."""


def reference_ask(item: Item, answer: Answer) -> Sequence[Turn]:
    told = f"Task: {item.prompt}\n\nReference: {item.reference}\n\nReply: {answer.text}\n\nLetter:"
    return (Turn("system", _REFERENCE), Turn("user", told))


def reference_read(item: Item, answer: Answer, text: str) -> Graded:
    """Metric `acc`."""
    found = re.search(r"\b([AB])\b", text)
    if found is None:
        return UNREADABLE
    return Graded({"acc": float(found[1] == "A")}, "right" if found[1] == "A" else "wrong", found[1])


REFERENCE = Judge(reference_ask, reference_read, max_tokens=8)

_QA = """\
You grade an answer to a question about a long text, which you are not shown. Give two integers as one JSON object.
fluency: 1 if the answer is readable and does not repeat itself, else 0.
correctness: 3 it says what a reference says and nothing that contradicts it; 2 mostly; 1 in part; 0 not at all."""


def _qa(item: Item, value: Mapping[str, int]) -> Graded:
    score = value["fluency"] * value["correctness"] / 3
    return Graded(
        {"score": score}, "scored", detail=f"fluency {value['fluency']}, correctness {value['correctness']}"
    )


LONG_ANSWER = marked(
    _QA,
    lambda i, a: (
        f"Question: {i.reference['question']}\nReferences: {' | '.join(i.reference['answers'])}\nAnswer: {a.text}"
    ),
    _qa,
    integers(fluency=1, correctness=3),
)  # fmt: skip
"""HELMET's judged long answers: fluency times correctness. Metric `score`, 0 to 1."""

_SUMMARY = """\
You grade a summary by its key points and the passages it summarizes. Give integers as one JSON object.
fluency: 1 if the summary is readable and does not repeat itself, else 0.
recalled: how many of the key points the summary says.
sentences: how many sentences the summary has.
supported: how many of these sentences the passages support."""


def _summary_told(item: Item, answer: Answer) -> str:
    points = "\n".join(f"{i}. {p}" for i, p in enumerate(item.reference["points"], 1))
    return f"Passages:\n{item.reference['source']}\n\nKey points:\n{points}\n\nSummary:\n{answer.text}"


def _summary(item: Item, value: Mapping[str, int]) -> Graded:
    recall = min(1.0, value["recalled"] / len(item.reference["points"]))
    precision = min(1.0, value["supported"] / value["sentences"]) if value["sentences"] else 0.0
    f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    scores = {"score": value["fluency"] * f1, "recall": recall, "precision": precision}
    return Graded(scores, "scored", detail=f"fluency {value['fluency']}")


SUMMARY = marked(
    _SUMMARY, _summary_told, _summary, integers(fluency=1, recalled=100, sentences=100, supported=100)
)
"""HELMET's judged summaries: fluency times the F1 of key points recalled and sentences supported."""


def by_notes() -> Judge:
    """The judge of a question with notes (PhiBench, report section 5): how many points of each note an answer earns.
    `item.reference` is {answer, notes: [{points, text}]}. Metric `score`: the share of all points."""

    def system(item: Item) -> str:
        notes = item.reference["notes"]
        listed = "\n".join(f"note_{i} (0 to {n['points']}): {n['text']}" for i, n in enumerate(notes, 1))
        return (
            "You grade an answer by the notes of the question's author. Go note by note, give the points that the "
            "answer earns, and give none for what the notes do not name.\n\n"
            f"{listed}\n\nReply with one JSON object that has an integer for every note."
        )

    def told(item: Item, answer: Answer) -> str:
        known = f"\n\nA full answer: {item.reference['answer']}" if item.reference["answer"] else ""
        return f"Question: {item.prompt}{known}\n\nAnswer to grade: {answer.text}"

    def ask(item: Item, answer: Answer) -> Sequence[Turn]:
        return (Turn("system", system(item)), Turn("user", told(item, answer)))

    def read(item: Item, answer: Answer, text: str) -> Graded:
        most = {f"note_{i}": int(n["points"]) for i, n in enumerate(item.reference["notes"], 1)}
        value = read_json(text, integers(**most), ReadCounts())
        if value is None:
            return UNREADABLE
        earned = sum(value.values())
        detail = ", ".join(f"{k} {v}/{most[k]}" for k, v in value.items() if k in most)
        full = earned == sum(most.values())
        return Graded({"score": earned / sum(most.values())}, "right" if full else "wrong", detail=detail)

    return Judge(ask, read, max_tokens=256)
