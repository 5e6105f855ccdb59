"""Questions with checkable answers, from JSONL or Parquet files, and the check of an answer by its kind.

Rows of these shapes are told apart by their keys:

    {question, answer, kind?, id?, options?, language?}   kind: math | choice | text | code (answer: the tests)
    {question, answer: "... #### 72"}                      GSM8K
    {question, choices: [...], answer: "B" or 1}           multiple choice; the options are written under the question
    {text, test_list, test_setup_code?, task_id?}          MBPP; the tests are shown, as its own prompt does
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phikit.preference.rollouts import Question
from phikit.records.ids import content_id
from phikit.records.io import RowError, read_jsonl, read_parquet
from phikit.verify import Verdict, choice, code, math_answer, text

KINDS: tuple[str, ...] = ("math", "choice", "text", "code")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# An answer is closed where the model goes on with a question of its own (base models do).
STOP: dict[str, tuple[str, ...]] = dict.fromkeys(KINDS, ("\nQuestion:", "\nQ:"))
STOP["code"] = ("\nQuestion:", "\nif __name__", "\nassert ")
_FENCE = re.compile(r"```[a-zA-Z+]*[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


def read_questions(path: Path, *, kind: str = "") -> Iterator[Question]:
    """The questions of a file (.jsonl, .jsonl.gz, .jsonl.zst, .parquet); `kind` for rows that name none (else math).
    Raises RowError with the file and the row, and for an id that occurs twice."""
    return (question for question, _ in read_rows(path, kind=kind))


def read_rows(path: Path, *, kind: str = "") -> Iterator[tuple[Question, Mapping[str, Any]]]:
    """As `read_questions`, each with its row."""
    if kind and kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    rows = read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path)
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        try:
            q = question_of(row, kind)
        except ValueError as e:
            raise RowError(f"{path}, row {number}: {e}") from e
        if q.id in seen:
            raise RowError(f"{path}, row {number}: the id {q.id!r} (or the whole row) occurs twice")
        seen.add(q.id)
        yield q, row


def question_of(row: Mapping[str, Any], kind: str = "") -> Question:
    """The question of a row. Raises ValueError that says which key is missing or wrong."""
    if "test_list" in row:
        return _mbpp(row)
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not question.strip():
        raise ValueError('no text under "question" (keys: ' + ", ".join(sorted(row)) + ")")
    if row.get("choices"):
        return _choice(row, question, answer)
    if answer is None or not str(answer).strip():
        raise ValueError('nothing under "answer"')
    named = row.get("kind") or kind or "math"
    if named not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {named!r}")
    answer = str(answer)
    if named == "math" and "####" in answer:
        answer = answer.rpartition("####")[2].strip()
        if not answer:
            raise ValueError('nothing after "####"')
    options = int(row.get("options") or 4)
    language = str(row.get("language") or "python")
    if named == "code" and language != "python":
        raise ValueError(f"tests run in Python only, not in {language}")
    return Question(_id(row, question, answer), question, answer, named, options, language)


def _choice(row: Mapping[str, Any], question: str, answer: Any) -> Question:
    choices = row["choices"]
    if isinstance(choices, Mapping):  # ARC: {"text": [...], "label": [...]}
        labels, choices = list(choices.get("label", ())), list(choices.get("text", ()))
        answer = labels.index(answer) if answer in labels else answer
    if isinstance(answer, str) and answer.strip().upper() in LETTERS[: len(choices)]:
        answer = LETTERS.index(answer.strip().upper())
    if not isinstance(answer, int) or not 0 <= answer < len(choices) <= len(LETTERS):
        raise ValueError(f'"answer" names none of the {len(choices)} choices: {answer!r}')
    listed = "\n".join(f"{letter}. {c}" for letter, c in zip(LETTERS, choices))
    whole = f"{question}\n{listed}\nAnswer with the letter."
    return Question(_id(row, whole, str(answer)), whole, LETTERS[answer], "choice", len(choices))


def _mbpp(row: Mapping[str, Any]) -> Question:
    task = row.get("text") or row.get("prompt")
    if not task or not row["test_list"]:
        raise ValueError('an MBPP row needs "text" (or "prompt") and tests in "test_list"')
    shown = "\n".join(row["test_list"])
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
    tests = f"{setup}\n{shown}" if setup else shown
    whole = f"{task}\nYour code should pass these tests:\n{shown}"
    return Question(_id(row, whole, tests), whole, tests, "code")


def _id(row: Mapping[str, Any], question: str, answer: str) -> str:
    given = row.get("id", row.get("task_id"))
    return content_id("question", question, answer) if given is None else str(given)


def is_right(question: Question, answer: str) -> bool | None:
    """Whether an answer (without its prompt) is right, by the kind of its question; None where none can be read.
    Raises ValueError where code cannot be run here: a search without a sandbox would call all of it wrong."""
    match question.kind:
        case "choice":
            verdict = choice.judge(answer, question.answer, question.options)
        case "text":
            verdict = text.judge(answer, question.answer.split("\n"))
        case "code":
            done = code.run_tests(program_of(answer), question.answer)
            if done.verdict is None:
                raise ValueError(f"question {question.id}: code cannot be run here: {done.detail}")
            verdict = done.verdict
        case _:
            verdict = math_answer.judge(answer, question.answer)
    return None if verdict is Verdict.unparsed else verdict is Verdict.right


def program_of(answer: str) -> str:
    """The program in an answer: its fenced blocks joined, or all of it where there is no fence."""
    blocks = _FENCE.findall(answer)
    return "\n\n".join(blocks) if blocks else answer
