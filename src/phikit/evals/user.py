"""Tasks of people's own: a JSONL, CSV or Parquet file of questions, or a YAML file that says how to ask them.

A file alone is a task named after it: rows with `choices` (and `answer`: the right one, its index or its letter) are
scored by log-likelihood; rows with `question` and `answer` are answered in chat and marked by SQuAD's exact match.

A YAML file names its data and may set every other key of KEYS; `{field}` in a text is that field of the row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phikit.evals.declared import checked_name, read_keys
from phikit.evals.metrics import answers, drop, programs
from phikit.evals.readers import csv_rows
from phikit.evals.task import Choices, Generate, Grade, Item, Row, Source, Task
from phikit.records.io import read_jsonl, read_parquet

# key -> what it says, in the order of docs/evals.md
KEYS = {
    "data": "the file of questions, relative to this one (required)",
    "name": "of the task; without it the file's name",
    "prompt": "text before the answer; default {question}",
    "choices": "name of the list field, or a list of texts: score their log-likelihoods",
    "delimiter": "between prompt and choice; default a blank",
    "answer": "the right choice (text, index or letter), or what an answer is compared with; default {answer}",
    "metric": "of a generated answer: exact, contains, f1, math, choice, letter, drop or code; default exact",
    "system": "a system turn",
    "chat": "whether the prompt is a user turn (default) or plain text to continue",
    "stop": "texts that end an answer",
    "max_tokens": "longest answer; default 512",
    "temperature": "default 0",
    "runs": "answers an item; default 1",
    "shots": "examples before the question, taken from `shots_data` or the first rows (not evaluated then)",
    "shots_data": "another file of questions with answers",
    "target": "how an example goes on after its prompt; default the answer after a blank",
    "group": "field whose values get lines of their own in the table",
    "cluster": "field whose equal values belong together (questions on one text)",
}
METRICS: dict[str, tuple[str, Grade]] = {
    "exact": ("exact", answers.exact),
    "contains": ("contains", answers.contains),
    "f1": ("f1", answers.word_f1),
    "math": ("acc", answers.checked("math")),
    "choice": ("acc", answers.checked("choice")),
    "letter": ("acc", answers.letter("ABCDEFGHIJ")),
    "drop": ("f1", drop.grade),
    "code": ("pass", programs.passes(programs.fenced)),
}
_FIELD = re.compile(r"\{(\w+)\}")
_SUFFIXES = re.compile(r"\.(jsonl|csv|parquet|yaml|yml)(\.gz|\.zst)?$")


def user_task(path: Path) -> Task:
    """The task of a file. Raises ValueError that names the key or row and the fix, FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of a task")
    if path.suffix in (".yaml", ".yml"):
        return _declared(path, read_keys(path, KEYS))
    first = next(iter(_rows(path)), None)
    if first is None:
        raise ValueError(f"{path}: no rows")
    return _declared(path, {"data": path.name, **({"choices": "choices"} if "choices" in first else {})})


def _declared(path: Path, keys: Mapping[str, Any]) -> Task:
    if "data" not in keys:
        raise ValueError(f"{path}: no key `data`, the file of questions")
    name = checked_name(str(keys.get("name") or _SUFFIXES.sub("", path.name)), path)
    metric, output = _output(path, keys)
    number = int(keys.get("shots", 0))
    apart = path.parent / keys["shots_data"] if keys.get("shots_data") else None
    data = path.parent / str(keys["data"])

    def items(source: Source) -> Sequence[Item]:
        made = [_item(data, i, row, keys) for i, row in enumerate(_rows(data))]
        if apart:
            pool = [_item(apart, i, row, keys) for i, row in enumerate(_rows(apart))]
        else:
            pool, made = made[:number], made[number:]
        if len(pool) < number or not made:
            raise ValueError(f"{data}: {number} examples and at least one question need more rows")
        told = "".join(i.prompt + i.target + "\n\n" for i in pool[:number])
        for file in filter(None, (data, apart)):
            source.used(file)
        return [replace(i, prompt=told + i.prompt, text=i.prompt) for i in made]

    return Task(
        name=name, title=name.replace("_", " "), suite="user", pack=str(data), items=items, output=output,
        metrics=metric, tests=keys.get("metric") == "code", note=f"A task of {path.name}.",
    )  # fmt: skip


def _output(path: Path, keys: Mapping[str, Any]) -> tuple[tuple[str, ...], Choices | Generate]:
    if "choices" in keys:
        if "metric" in keys:
            raise ValueError(f"{path}: choices are scored by log-likelihood and have no `metric`")
        return ("acc", "acc_norm"), Choices(str(keys.get("delimiter", " ")))
    kind = str(keys.get("metric", "exact"))
    if kind not in METRICS:
        raise ValueError(f"{path}: metric {kind!r}; metrics are {', '.join(METRICS)}")
    metric, grade = METRICS[kind]
    stop = keys.get("stop", ())
    return (metric,), Generate(
        grade,
        max_tokens=int(keys.get("max_tokens", 512)),
        stop=(stop,) if isinstance(stop, str) else tuple(map(str, stop)),
        temperature=float(keys.get("temperature", 0.0)),
        chat=bool(keys.get("chat", True)),
        runs=int(keys.get("runs", 1)),
    )


def _item(path: Path, number: int, row: Row, keys: Mapping[str, Any]) -> Item:
    where = f"{path}, row {number + 1}"
    prompt = _filled(str(keys.get("prompt", "{question}")), row, where)
    answer = keys.get("answer", "{answer}")
    whole = _FIELD.fullmatch(str(answer))  # the field itself: a list of answers, an index
    right = _field(row, whole[1], where) if whole else _filled(str(answer), row, where)
    choices, gold, reference = (), -1, right
    if "choices" in keys:
        of = keys["choices"]
        listed = _field(row, of, where) if isinstance(of, str) else [_filled(str(c), row, where) for c in of]
        choices = tuple(map(str, listed))
        gold, reference = _gold(choices, right, where), None
        shown = str(keys.get("delimiter", " ")) + choices[gold]
    else:
        shown = f" {right[0] if isinstance(right, list) else right}"
        if keys.get("metric") == "code":
            tests = "\n".join(right) if isinstance(right, list) else str(right)
            reference = {"prompt": prompt, "tests": tests}
        elif keys.get("metric") == "drop" and not isinstance(right, list):
            reference = [str(right)]
        elif not isinstance(right, list):
            reference = str(right)
    return Item(
        id=str(row.get("id", number)),
        prompt=prompt,
        choices=choices,
        gold=gold,
        target=_filled(str(keys["target"]), row, where) if "target" in keys else shown,
        reference=reference,
        group=str(_field(row, keys["group"], where)) if "group" in keys else "",
        cluster=str(_field(row, keys["cluster"], where)) if "cluster" in keys else "",
        system=str(keys.get("system", "")),
    )


def _gold(choices: Sequence[str], right: Any, where: str) -> int:
    if isinstance(right, str) and right in choices:
        return choices.index(right)
    if isinstance(right, str) and len(right) == 1 and right.isalpha():
        right = ord(right.upper()) - ord("A")
    if str(right).isdigit() and int(right) < len(choices):
        return int(right)
    raise ValueError(
        f"{where}: the answer {right!r} is none of the choices {list(choices)}, nor an index or letter"
    )


def _filled(text: str, row: Row, where: str) -> str:
    return _FIELD.sub(lambda m: str(_field(row, m[1], where)), text)


def _field(row: Row, name: str, where: str) -> Any:
    if row.get(name) is None:
        raise ValueError(f"{where}: no field {name!r} (it has {', '.join(map(str, row))})")
    return row[name]


def _rows(path: Path) -> list[Row]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of questions")
    if path.suffix == ".parquet":
        return list(read_parquet(path))
    if path.suffix == ".csv":
        return list(csv_rows(path))
    return list(read_jsonl(path))
