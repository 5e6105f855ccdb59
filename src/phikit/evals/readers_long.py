"""Readers of what long prompts are built from: questions with paragraphs, and texts with labels. As in readers.py."""

from __future__ import annotations

from pathlib import Path

from phikit.evals.readers import Rows, csv_rows, json_file, open_text, require_field
from phikit.records.io import RowError, read_jsonl


def hotpotqa(path: Path, split: str) -> Rows:
    """{id, question, answers, passages: [{title, text, gold}]} of HotpotQA's lines or its one JSON list."""
    for row in read_jsonl(path) if ".jsonl" in path.suffixes else json_file(path):
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
    for i, row in enumerate(csv_rows(path)):
        yield {
            "id": f"banking77-{split}-{i}",
            "text": require_field(path, row, "text"),
            "label": require_field(path, row, "category"),
        }


def clinc150(path: Path, split: str) -> Rows:
    """The 150 intents, without the rows out of scope."""
    for i, (text, label) in enumerate(require_field(path, json_file(path), split)):
        yield {"id": f"clinc150-{split}-{i}", "text": text, "label": label}


def nlu(path: Path, split: str) -> Rows:
    """NLU evaluation data (Liu et al. 2019): every tenth row is the test split."""
    for i, row in enumerate(csv_rows(path, ";")):
        if (i % 10 == 0) == (split == "test") and row.get("answer"):
            label = f"{require_field(path, row, 'scenario')}_{require_field(path, row, 'intent')}"
            yield {"id": f"nlu-{i}", "text": row["answer"], "label": label}
