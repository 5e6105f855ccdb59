"""Answers of evaluations for their page: a list that evals.js fills from JSON beside it, browsed and searched. What
models wrote is data, never markup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phikit.records.io import read_parquet
from phikit.report.markup import Html, clip, tag

EXAMPLES = 400  # of a task: the first ones, never selected
PROMPT, ANSWER = 6000, 4000  # characters kept of each
Row = Mapping[str, Any]
WORDS = {
    "right": "right", "wrong": "wrong", "unparsed": "no answer could be read", "cut": "cut off", "timeout": "timed out",
    "refused": "refused", "too_long": "prompt too long", "error": "endpoint failed", "not_attempted": "not attempted",
    "scored": "scored",
}  # fmt: skip


def examples(folder: Path, run: Row) -> Html:
    found = [(t["name"], [_example(r) for r in _first(folder, t["name"])]) for t in run["tasks"]]
    lead = f"The first {EXAMPLES} answers of each task, as they were; all of them are in records/."
    return browser(found, {}, "Examples", lead)


def browser(
    found: Sequence[tuple[str, list[dict[str, Any]]]], more: Mapping[str, Any], title: str, lead: str
) -> Html:
    """The list that evals.js fills from the JSON beside it."""
    data = json.dumps({"tasks": dict(found), "words": WORDS, **more}, ensure_ascii=True).replace(
        "<", "\\u003c"
    )
    return tag(
        "section",
        tag("h2", title),
        tag("p", lead, class_="lead"),
        tag(
            "div",
            tag("select", id="task", aria_label="Task"),
            tag("select", id="outcome", aria_label="Outcome"),
            tag(
                "input",
                id="search",
                type="search",
                placeholder="Search prompts and answers",
                aria_label="Search",
            ),
            tag("span", "", id="found", class_="dim", role="status"),
            class_="controls",
        ),
        tag("div", "", id="list"),
        tag("button", "Show more", id="more", type="button", hidden=True),
        tag("script", Html(data), type="application/json", id="data"),
        id="examples",
    )


def differing(a: Path, b: Path, task: str) -> tuple[str, list[dict[str, Any]]]:
    left, right = ({(r["id"], r["run"]): r for r in _rows(x, task)} for x in (a, b))
    both = [(left[k], right[k]) for k in left if k in right and left[k]["outcome"] != right[k]["outcome"]]
    rows = []
    for x, y in both[:EXAMPLES]:
        row = _example(x)
        other = _example(y)
        row["other"] = {k: other[k] for k in ("answer", "outcome", "said", "detail", "logprobs")}
        rows.append(row)
    return task, rows


def _first(folder: Path, task: str) -> Iterable[Row]:
    for i, row in enumerate(_rows(folder, task)):
        if i == EXAMPLES:
            return
        yield row


def _rows(folder: Path, task: str) -> Iterable[Row]:
    return read_parquet(folder / "records" / f"{task}.parquet")


def _example(r: Row) -> dict[str, Any]:
    """What the page shows of a record. The end of a long prompt is kept: there the question is."""
    prompt = r["prompt"]
    cut = len(prompt) - PROMPT
    return {
        "id": r["id"], "run": r["run"], "group": r["group"], "system": r["system"],
        "prompt": f"... {cut:,} characters before\n{prompt[-PROMPT:]}" if cut > 0 else prompt,
        "answer": clip(r["answer"], ANSWER), "reference": clip(r["reference"], ANSWER), "outcome": r["outcome"],
        "said": clip(r["said"], 300), "detail": clip(r["detail"], 400), "choices": r["choices"], "gold": r["gold"],
        "logprobs": [round(x, 3) for x in r["logprobs"]], "tokens": r["tokens"], "prompt_tokens": r["prompt_tokens"],
        "sha": r["prompt_sha"], "clean": r["clean"],
    }  # fmt: skip
