"""The files of an evaluation: DIR/run.json (what was asked of what), DIR/scores.json, DIR/records/TASK.parquet (every
prompt and answer), DIR/journal.jsonl (answers as they came, for resuming), DIR/judge (the judge's request log)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phikit.records.io import read_json, read_parquet, write_json, write_parquet

RUN, SCORES, FOLDER, JOURNAL, JUDGE = "run.json", "scores.json", "records", "journal.jsonl", "judge"
_TEXT = ("task", "id", "group", "cluster", "system", "prompt", "prompt_sha", "reference", "answer", "finish", "outcome",
         "said", "detail")  # fmt: skip
_NUMBERS = ("run", "prompt_tokens", "tokens", "gold")


def schema() -> Any:
    """The pyarrow schema of a record. `logprobs` and `greedy` are those of `choices`; `scores` are {metric, value};
    `clean` says whether the item shares no 13-gram with the training text, null where that was not looked at."""
    import pyarrow as pa

    scores = pa.list_(pa.struct([("metric", pa.string()), ("value", pa.float64())]))
    fields = [(n, pa.string()) for n in _TEXT] + [(n, pa.int64()) for n in _NUMBERS]
    fields += [("examples", pa.list_(pa.string())), ("choices", pa.list_(pa.string())), ("scores", scores)]
    fields += [("logprobs", pa.list_(pa.float64())), ("greedy", pa.list_(pa.bool_())), ("clean", pa.bool_())]
    return pa.schema(fields)


def write(
    folder: Path, run: dict[str, Any], scores: list[dict[str, Any]], records: dict[str, list[dict[str, Any]]]
) -> None:
    """Records first, run.json last: a folder that has it is whole."""
    for task, rows in records.items():
        write_parquet(folder / FOLDER / f"{task}.parquet", rows, schema())
    write_json(folder / SCORES, scores)
    write_json(folder / RUN, run)


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """run.json and scores.json. Raises ValueError where the folder holds no finished evaluation."""
    if not (folder / RUN).is_file():
        raise ValueError(
            f"{folder}: no finished evaluation here (no {RUN}); `phikit eval --out {folder}` makes one"
        )
    return read_json(folder / RUN), read_json(folder / SCORES)


def read_records(folder: Path, task: str) -> list[dict[str, Any]]:
    path = folder / FOLDER / f"{task}.parquet"
    if not path.is_file():
        raise ValueError(f"{folder}: no records of task {task}")
    return list(read_parquet(path))
