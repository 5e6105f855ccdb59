"""A set of original questions with a judge's notes, as PhiBench is made (report section 5): a folder

    set.yaml              name, title
    questions/NAME.yaml   skill, prompt, answer (a full one), notes: [{points, text}]

`phikit eval new DIR` begins one, `phikit eval validate DIR` checks it, `phikit eval --tasks DIR --judge J` scores it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.ask.teacher import Teacher
from phikit.evals.contamination import overlap
from phikit.evals.declared import checked_name, read_keys
from phikit.evals.metrics import judging
from phikit.evals.task import Answer, Generate, Item, Source, Task

SET, QUESTIONS = "set.yaml", "questions"
FIELDS = {"skill": str, "prompt": str, "answer": str, "notes": list}
MOST_POINTS, MOST_NOTES = 10, 12

_NEW_SET = "name: {name}\ntitle: {title}\n"
_NEW_QUESTION = """\
# One question a file. `skill` groups questions: find an error in a proof, debug, complete, explain ...
skill: find the error
prompt: |
  A student writes: "0.1 + 0.2 == 0.3 is false in Python because Python rounds the sum to an integer." Is this right?
answer: |
  No. Nothing is rounded to an integer. 0.1, 0.2 and 0.3 have no exact binary form, and the nearest doubles of 0.1 and
  0.2 add up to a double that is not the nearest one to 0.3.
# What the judge gives points for. One fact a note, so that two judges would agree.
notes:
- points: 1
  text: Says that the student's reason is wrong.
- points: 2
  text: Says that these numbers have no exact binary representation.
- points: 1
  text: Does not claim that the comparison is true.
"""


@dataclass(frozen=True, slots=True)
class Question:
    """`notes` are {points, text}; `name` is the file's."""

    name: str
    skill: str
    prompt: str
    answer: str
    notes: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """What the judge gave the author's own answer, and the answer to another question: shares of the points, None where
    its verdict could not be read."""

    name: str
    own: float | None
    other: float | None


def is_kit(path: Path) -> bool:
    return (path / SET).is_file()


def new(folder: Path) -> list[Path]:
    """Writes a set with one question to begin with. ValueError where there is something already."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: is not empty; name a new folder")
    (folder / QUESTIONS).mkdir(parents=True)
    name = re.sub(r"[^\w.-]+", "-", folder.resolve().name)
    written = [folder / SET, folder / QUESTIONS / "001-example.yaml"]
    written[0].write_text(_NEW_SET.format(name=name, title=name.replace("-", " ")), encoding="utf-8")
    written[1].write_text(_NEW_QUESTION, encoding="utf-8")
    return written


def read(folder: Path) -> tuple[dict[str, str], list[Question]]:
    """(name and title, questions). Raises ValueError that names the file, the key and the fix."""
    if not is_kit(folder):
        raise FileNotFoundError(f"{folder / SET}: no such file; `phikit eval new DIR` begins a set")
    told = read_keys(folder / SET, ("name", "title"))
    name = checked_name(str(told.get("name", "")), folder / SET)
    files = sorted((folder / QUESTIONS).glob("*.yaml"))
    if not files:
        raise ValueError(f"{folder / QUESTIONS}: no questions (*.yaml)")
    return {"name": name, "title": str(told.get("title") or name)}, [_question(f) for f in files]


def task(folder: Path) -> Task:
    """The set as a task that a judge grades: metric `score`, the share of the points; a group for each skill."""
    told, questions = read(folder)

    def items(source: Source) -> Iterable[Item]:
        for q in questions:
            source.used(folder / QUESTIONS / f"{q.name}.yaml")
            yield Item(
                id=q.name,
                prompt=q.prompt,
                reference={"answer": q.answer, "notes": [dict(n) for n in q.notes]},
                group=q.skill,
            )

    return Task(
        name=told["name"], title=told["title"], suite="user", pack="", items=items, metrics=("score",),
        output=Generate(judging.ungraded, max_tokens=2048, chat=True), judge=judging.by_notes(),
        note=f"Original questions of {folder.name}, graded by their notes.",
    )  # fmt: skip


def problems(questions: Sequence[Question], against: Iterable[str] = ()) -> list[str]:
    """What an author should mend: questions that repeat each other, questions that share 13 words in a row with one of
    the texts `against` (training data, published benchmarks), notes that give all points for one thing, too few
    skills."""
    found = []
    seen: dict[str, str] = {}
    for q in questions:
        key = re.sub(r"\W+", " ", q.prompt).strip().lower()
        if key in seen:
            found.append(f"{q.name}: the same question as {seen[key]}")
        seen.setdefault(key, q.name)
        if len(q.notes) == 1:
            found.append(
                f"{q.name}: one note gives all points; divide it, so that a partial answer earns some"
            )
        for i, n in enumerate(q.notes, 1):
            if len(str(n["text"]).split()) < 4:
                found.append(f"{q.name}: note {i} ({n['text']!r}) is too short for a judge to apply")
    rows = {"set": [{"id": q.name, "prompt": f"{q.prompt} {q.answer}"} for q in questions]}
    found += [
        f"{n}: shares 13 words in a row with a given text" for n in sorted(overlap(rows, against)["set"])
    ]
    skills = Counter(q.skill for q in questions)
    if len(questions) > 4 and len(skills) == 1:
        found.append(f"all {len(questions)} questions are of skill {next(iter(skills))!r}")
    return found


def tried(questions: Sequence[Question], judge: Teacher) -> list[Tried]:
    """The judge on answers whose points are known: the author's own, and the answer to the next question. A set whose
    notes tell them apart is one that the judge can grade. Verdicts are in the judge's log."""
    rule = judging.by_notes()

    async def points(q: Question, text: str) -> float | None:
        item = Item(q.name, q.prompt, reference={"answer": "", "notes": [dict(n) for n in q.notes]})
        answer = Answer(text)
        (said,) = await judge.chat(tuple(rule.ask(item, answer)), max_tokens=rule.max_tokens, temperature=0.0)
        graded = rule.read(item, answer, said.text)
        return None if graded.outcome == "unparsed" else graded.scores["score"]

    async def every() -> list[Tried]:
        others = [*questions[1:], questions[0]]
        both = await asyncio.gather(
            *(points(q, q.answer) for q in questions),
            *(points(q, o.answer) for q, o in zip(questions, others)),
        )
        n = len(questions)
        return [Tried(q.name, both[i], both[n + i] if n > 1 else None) for i, q in enumerate(questions)]

    return judge.run(every())


def _question(path: Path) -> Question:
    told = read_keys(path, FIELDS)
    for key, kind in FIELDS.items():
        if not isinstance(told.get(key), kind) or not told[key]:
            raise ValueError(
                f"{path}: key {key!r} must be a {'list' if kind is list else 'text'} that is not empty"
            )
    notes = told["notes"]
    if len(notes) > MOST_NOTES:
        raise ValueError(f"{path}: {len(notes)} notes; more than {MOST_NOTES} are no longer read with care")
    for i, n in enumerate(notes, 1):
        if not isinstance(n, dict) or set(n) != {"points", "text"} or not isinstance(n["text"], str):
            raise ValueError(f"{path}: note {i} needs `points` and `text` and nothing else")
        if type(n["points"]) is not int or not 1 <= n["points"] <= MOST_POINTS:
            raise ValueError(f"{path}: note {i} gives {n['points']!r} points; 1 to {MOST_POINTS}")
    return Question(path.stem, told["skill"], told["prompt"].strip(), told["answer"].strip(), tuple(notes))
