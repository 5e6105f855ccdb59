"""Readers of chat, judged, contest and safety sets in their original formats. As in readers.py."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from phikit.evals.readers import Rows, csv_rows, json_file, require_field, table
from phikit.records.io import RowError


def ifeval(path: Path, split: str) -> Rows:
    """{id, prompt, kinds, arguments}: empty arguments are left out, as IFEval's own script does."""
    for row in table(path, split):
        kinds, arguments = (require_field(path, row, k) for k in ("instruction_id_list", "kwargs"))
        if len(kinds) != len(arguments):
            raise RowError(
                f"{path}, key {row.get('key')}: {len(kinds)} instructions with {len(arguments)} kwargs"
            )
        yield {
            "id": f"ifeval-{require_field(path, row, 'key')}",
            "prompt": require_field(path, row, "prompt"),
            "kinds": list(kinds),
            "arguments": [{k: v for k, v in a.items() if v} for a in arguments],
        }


def arena_hard(path: Path, split: str) -> Rows:
    """Questions {id, prompt, cluster}; of split `baseline` answers {id, answer}: plain rows, the records of an
    evaluation, or arena-hard-auto's own files of answers."""
    for row in table(path, split):
        name = str(row.get("uid") or row.get("question_id") or row["id"])
        if split == "baseline":
            answer = row.get("answer")
            yield {"id": name, "answer": _arena_answer(path, row) if answer is None else answer}
            continue
        prompt = row.get("prompt") or require_field(path, row, "turns")[0]["content"]
        yield {"id": name, "prompt": prompt, "cluster": str(row.get("cluster", ""))}


def _arena_answer(path: Path, row: dict[str, Any]) -> str:
    said: Any = row.get("messages") or require_field(path, row, "choices")[0]["turns"]
    content = said[-1]["content"]
    return content if isinstance(content, str) else content["answer"]


def livebench(path: Path, split: str) -> Rows:
    """{id, prompt, answer, category, date} of LiveBench's lines (a first turn and its ground truth)."""
    for row in table(path, split):
        released = row.get("livebench_release_date") or row.get("date") or ""
        yield {
            "id": str(row.get("question_id") or row["id"]),
            "prompt": require_field(path, row, "turns")[0] if "turns" in row else require_field(path, row, "prompt"),
            "answer": str(row["ground_truth"] if "ground_truth" in row else require_field(path, row, "answer")),
            "category": str(row.get("category", "")),
            "date": _day(path, released) if released else "",
        }  # fmt: skip


def llmbar(path: Path, split: str) -> Rows:
    """{id, prompt, answers, better} of LLMBar's list: which of two outputs people prefer, as an index."""
    for i, row in enumerate(json_file(path)):
        yield {
            "id": f"{path.stem}-{i}",
            "prompt": require_field(path, row, "input"),
            "answers": [require_field(path, row, "output_1"), require_field(path, row, "output_2")],
            "better": int(require_field(path, row, "label")) - 1,
        }


def contest(path: Path, split: str) -> Rows:
    """{id, question, answer, contest, date}: questions with a letter A to E, written by the user. `id` defaults to
    contest and number."""
    for row in table(path, split):
        answer = str(require_field(path, row, "answer")).strip().upper()
        if len(answer) != 1 or answer not in "ABCDE":
            raise RowError(f"{path}, row {row['id']}: answer {answer!r} is no letter from A to E")
        name = str(require_field(path, row, "contest"))
        yield {
            "id": f"{name}-{row['number']}" if "number" in row else row["id"],
            "question": require_field(path, row, "question"),
            "answer": answer,
            "contest": name,
            "date": _day(path, require_field(path, row, "date")),
        }


def simple_safety_tests(path: Path, split: str) -> Rows:
    for row in csv_rows(path):
        yield {
            "id": require_field(path, row, "id"),
            "prompt": require_field(path, row, "prompts_final"),
            "area": require_field(path, row, "harm_area"),
        }


def harmbench(path: Path, split: str) -> Rows:
    """{id, behaviour, function, category, context}."""
    for row in csv_rows(path):
        yield {
            "id": require_field(path, row, "BehaviorID"),
            "behaviour": require_field(path, row, "Behavior"),
            "function": require_field(path, row, "FunctionalCategory"),
            "category": require_field(path, row, "SemanticCategory"),
            "context": row.get("ContextString") or "",
        }


def xstest(path: Path, split: str) -> Rows:
    """{id, prompt, type}; types that begin with `contrast` are unsafe."""
    for i, row in enumerate(csv_rows(path)):
        yield {
            "id": str(row.get("id") or i + 1),
            "prompt": require_field(path, row, "prompt"),
            "type": require_field(path, row, "type"),
        }


def _day(path: Path, value: Any) -> str:
    try:
        return datetime.date.fromisoformat(str(value)[:10]).isoformat()
    except ValueError as e:
        raise RowError(f"{path}: {value!r} is no date of the form 2024-11-06") from e
