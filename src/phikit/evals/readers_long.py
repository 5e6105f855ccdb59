"""Readers of what long prompts are built from: questions with paragraphs, and texts with labels. As in readers.py."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from phikit.evals.readers import Rows, open_text, require_field
from phikit.records.io import RowError, read_jsonl


def hotpotqa(path: Path, split: str) -> Rows:
    """{id, question, answers, passages: [{title, text, gold}]} of HotpotQA's lines or its one JSON list."""
    for row in read_jsonl(path) if ".jsonl" in path.suffixes else _list(path):
        gold = {title for title, _ in require_field(path, row, "supporting_facts")}
        yield {
            "id": require_field(path, row, "_id"),
            "question": require_field(path, row, "question"),
            "answers": [require_field(path, row, "answer")],
            "passages": [
                {"title": title, "text": "".join(said).strip(), "gold": title in gold}
                for title, said in require_field(path, row, "context")
            ],
        }


def trec(path: Path, split: str) -> Rows:
    """{id, text, coarse, fine} of "COARSE:fine question" lines in Latin-1."""
    with open_text(path, "latin-1") as f:
        for i, line in enumerate(f.read().splitlines()):
            label, blank, text = line.partition(" ")
            if not blank or ":" not in label:
                raise RowError(f"{path}, row {i + 1}: expected COARSE:fine and a question, got {line[:60]!r}")
            yield {
                "id": f"trec-{split}-{i}",
                "text": text.strip(),
                "coarse": label.partition(":")[0],
                "fine": label,
            }


def banking77(path: Path, split: str) -> Rows:
    with open_text(path) as f:
        for i, row in enumerate(csv.DictReader(f)):
            yield {
                "id": f"banking77-{split}-{i}",
                "text": require_field(path, row, "text"),
                "label": require_field(path, row, "category"),
            }


def clinc150(path: Path, split: str) -> Rows:
    """The 150 intents, without the rows out of scope."""
    with open_text(path) as f:
        whole = json.load(f)
    for i, (text, label) in enumerate(require_field(path, whole, split)):
        yield {"id": f"clinc150-{split}-{i}", "text": text, "label": label}


def nlu(path: Path, split: str) -> Rows:
    """NLU evaluation data (Liu et al. 2019): every tenth row is the test split."""
    with open_text(path) as f:
        for i, row in enumerate(csv.DictReader(f, delimiter=";")):
            if (i % 10 == 0) == (split == "test") and row.get("answer"):
                label = f"{require_field(path, row, 'scenario')}_{require_field(path, row, 'intent')}"
                yield {"id": f"nlu-{i}", "text": row["answer"], "label": label}


def _list(path: Path) -> list[dict[str, Any]]:
    with open_text(path) as f:
        return json.load(f)
