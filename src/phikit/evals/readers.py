"""Readers of benchmark files in their original formats. Every row has an `id`; other fields keep the names that the
task files use. A file that is not of its format raises RowError with the file and the row."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phikit.records.io import RowError, read_jsonl, read_parquet

Rows = Iterator[dict[str, Any]]


def mmlu(path: Path, split: str) -> Rows:
    """{id, question, choices, gold, subject} of csv files without a head (question, A, B, C, D, letter), one file a
    subject, in a folder or a tar."""
    for name, text in _csv_files(path):
        subject, found, part = Path(name).stem.rpartition("_")[0], *_split_of(name)
        if found and part != split:
            continue
        for i, cells in enumerate(csv.reader(io.StringIO(text))):
            if len(cells) != 6 or cells[5].strip() not in "ABCD":
                raise RowError(
                    f"{path}, {name}, row {i + 1}: expected question, 4 choices and a letter, got {cells}"
                )
            yield {
                "id": f"{subject}-{i}",
                "question": cells[0],
                "choices": cells[1:5],
                "gold": "ABCD".index(cells[5].strip()),
                "subject": subject,
            }


def mmlu_pro(path: Path, split: str) -> Rows:
    """{id, question, choices, gold, subject}: up to ten choices."""
    for row in table(path, split):
        choices, gold = (require_field(path, row, k) for k in ("options", "answer_index"))
        if not 0 <= int(gold) < len(choices) <= 10:
            raise RowError(f"{path}, row {row['id']}: answer {gold} of {len(choices)} choices, at most 10")
        yield {
            "id": row["id"],
            "question": require_field(path, row, "question"),
            "choices": list(choices),
            "gold": int(gold),
            "subject": str(row.get("category") or ""),
        }


def arc(path: Path, split: str) -> Rows:
    """{id, question, choices, gold} of AI2's lines. Keys are letters or digits."""
    for i, row in enumerate(read_jsonl(path), 1):
        try:
            choices = row["question"]["choices"]
            labels = [c["label"] for c in choices]
            yield {
                "id": row["id"],
                "question": row["question"]["stem"],
                "choices": [c["text"] for c in choices],
                "gold": labels.index(row["answerKey"]),
            }
        except (KeyError, TypeError, ValueError) as e:
            raise RowError(f"{path}, row {i}: not a row of ARC ({type(e).__name__}: {e})") from e


def triviaqa(path: Path, split: str) -> Rows:
    """{id, question, answers, first}: the aliases, and the answer shown in examples."""
    if path.suffixes[:1] == [".json"]:
        for row in require_field(path, json_file(path), "Data"):
            answer = row["Answer"]
            yield {
                "id": row["QuestionId"],
                "question": row["Question"],
                "answers": list(answer.get("Aliases") or [answer["Value"]]),
                "first": answer["Value"],
            }
        return
    for row in table(path, split):
        answer = require_field(path, row, "answer")
        yield {
            "id": str(row.get("question_id") or row["id"]),
            "question": require_field(path, row, "question"),
            "answers": list(answer.get("aliases") or [answer["value"]]),
            "first": answer["value"],
        }


def nq_open(path: Path, split: str) -> Rows:
    for i, row in enumerate(read_jsonl(path)):
        answers = list(require_field(path, row, "answer"))
        yield {
            "id": f"nq-{i}",
            "question": require_field(path, row, "question"),
            "answers": answers,
            "first": answers[0],
        }


def gsm8k(path: Path, split: str) -> Rows:
    for i, row in enumerate(read_jsonl(path)):
        yield {
            "id": f"gsm8k-{split}-{i}",
            "question": require_field(path, row, "question"),
            "answer": require_field(path, row, "answer"),
        }


def math(path: Path, split: str) -> Rows:
    """{id, problem, solution, answer, subject, level}. MATH's own files have no `answer`: it is in the last box."""
    if ".jsonl" in path.suffixes:
        for i, row in enumerate(read_jsonl(path)):
            yield _math(path, row, str(row.get("unique_id") or f"math-{split}-{i}"))
    else:
        yield _math(path, json_file(path), f"{split}/{path.parent.name}/{path.name}")


def _math(path: Path, row: dict[str, Any], name: str) -> dict[str, Any]:
    solution = require_field(path, row, "solution")
    answer = row.get("answer")
    return {
        "id": name,
        "problem": require_field(path, row, "problem"),
        "solution": solution,
        "answer": last_box(solution) if answer is None else answer,
        "subject": str(row.get("subject") or row.get("type") or path.parent.name),
        "level": str(row.get("level", "")),
    }


def last_box(text: str) -> str:
    """What the last \\boxed{...} of a solution holds, "" where there is none."""
    at = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if at < 0:
        found = re.findall(r"\\boxed\s+([^\s$]+)", text)
        return found[-1] if found else ""
    start, depth = text.index("{", at) + 1, 1
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if not depth:
            return text[start:i]
    return ""


def humaneval(path: Path, split: str) -> Rows:
    for row in read_jsonl(path):
        for name in ("task_id", "prompt", "entry_point", "canonical_solution", "test"):
            require_field(path, row, name)
        yield {**row, "id": row["task_id"]}


def mbpp(path: Path, split: str) -> Rows:
    """The paper's splits by task_id: 1-10 prompt, 11-510 test, 511-600 validation, the rest train."""
    low, high = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}[split]
    for row in read_jsonl(path):
        if low <= int(require_field(path, row, "task_id")) <= high:
            yield {**row, "id": f"mbpp-{row['task_id']}"}


def mbpp_plus(path: Path, split: str) -> Rows:
    for row in read_jsonl(path):
        for name in ("prompt", "test"):
            require_field(path, row, name)
        yield {**row, "id": str(require_field(path, row, "task_id"))}


def mgsm(path: Path, split: str) -> Rows:
    """{id, question, answer, language} of question<TAB>integer lines."""
    language = path.name.removeprefix("mgsm_")[:2]
    for i, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        question, tab, answer = line.strip().partition("\t")
        if not tab:
            raise RowError(f"{path}, row {i + 1}: expected a question, a tab and a number")
        yield {
            "id": f"mgsm-{language}-{i}",
            "question": question,
            "answer": answer.replace(",", ""),
            "language": language,
        }


def gpqa(path: Path, split: str) -> Rows:
    for row in csv_rows(path):
        wrong = [require_field(path, row, f"Incorrect Answer {i}").strip() for i in (1, 2, 3)]
        yield {
            "id": require_field(path, row, "Record ID"),
            "question": require_field(path, row, "Question").strip(),
            "right": require_field(path, row, "Correct Answer").strip(),
            "wrong": wrong,
            "subject": row.get("High-level domain", ""),
        }


def simpleqa(path: Path, split: str) -> Rows:
    for i, row in enumerate(csv_rows(path)):
        topic = re.search(r"'topic': '([^']*)'", row.get("metadata") or "")
        yield {
            "id": f"simpleqa-{i}",
            "question": require_field(path, row, "problem"),
            "answer": require_field(path, row, "answer"),
            "topic": topic[1] if topic else "",
        }


def drop(path: Path, split: str) -> Rows:
    """{id, context, completion, answers, passage} of simple-evals' lines; `ref_text` joins answers by "|"."""
    for i, row in enumerate(read_jsonl(path)):
        context = require_field(path, row, "context")
        answers = [a for a in require_field(path, row, "ref_text").split("|") if a.strip()]
        yield {
            "id": f"drop-{split}-{i}",
            "context": context,
            "completion": require_field(path, row, "completion"),
            "answers": answers,
            "passage": context.rpartition("\nQuestion:")[0],
        }


def table(path: Path, split: str) -> Rows:
    """Rows of JSONL or Parquet as they are; rows without an `id` get `question_id` or their number."""
    rows = read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path)
    for i, row in enumerate(rows):
        yield {**row, "id": str(row.get("id", row.get("question_id", f"{split}-{i}")))}


def require_field(path: Path, row: dict[str, Any], name: str) -> Any:
    """A field of a row; RowError that names the file and the field."""
    if row.get(name) is None:
        raise RowError(f"{path}: a row has no field {name!r} (it has {sorted(map(str, row))})")
    return row[name]


def csv_rows(path: Path, delimiter: str = ",") -> Rows:
    """Rows of a file (or a .gz) whose first line has their names."""
    with open_text(path) as f:
        yield from csv.DictReader(f, delimiter=delimiter)


def json_file(path: Path) -> Any:
    """The value of a file or a .gz."""
    with open_text(path) as f:
        try:
            return json.load(f)
        except ValueError as e:
            raise RowError(f"{path}: not valid JSON ({e})") from e


def open_text(path: Path, encoding: str = "utf-8") -> io.TextIOBase:
    """A file or a .gz, with its line ends as they are."""
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def _split_of(name: str) -> tuple[bool, str]:
    """Whether a file's name says its split (`anatomy_val.csv`), and which."""
    part = Path(name).stem.rpartition("_")[2]
    return part in ("dev", "val", "test"), part


def _csv_files(path: Path) -> Iterator[tuple[str, str]]:
    if ".tar" not in path.suffixes:
        yield path.name, path.read_text(encoding="utf-8")
        return
    try:
        with tarfile.open(path) as tar:
            for member in sorted(tar.getmembers(), key=lambda m: m.name):
                if member.isfile() and member.name.endswith(".csv"):
                    file = tar.extractfile(member)
                    assert file is not None
                    yield member.name, file.read().decode("utf-8")
    except tarfile.TarError as e:
        raise RowError(f"{path}: not a tar file ({e})") from e
