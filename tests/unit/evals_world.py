"""A held-out folder of the closed world in small, and a scripted model that knows its answers."""

from __future__ import annotations

import random
import re
from pathlib import Path

from phikit.engine.scripted import ScriptedEngine
from phikit.records.io import write_jsonl

N = 40


def write_world(folder: Path) -> tuple[Path, Path]:
    """(heldout folder, corpus held-out file): N arithmetic, 12 preference and 8 items of every other task."""
    rng = random.Random(7)
    data = folder / "heldout"
    for name, count in (("arithmetic", N), ("preference", 12)):
        rows = []
        for i in range(count):
            a, b = rng.randint(10, 40), rng.randint(1, 9)
            question = f"Tom has {a} {name} pens. Tom loses {b}. How many pens are left?"
            rows.append({"id": f"{name}{i}", "question": question, "answer": str(a - b)})
        write_jsonl(data / f"{name}.jsonl", rows)
    for task in ("recall_1x", "recall_2x", "recall_4x"):
        rows = [
            {"id": f"{task}{i}", "prompt": f"Codes: k{i} zu.\nAsk: k{i}", "answer": " zu"} for i in range(8)
        ]
        write_jsonl(data / f"{task}.jsonl", rows)
    labels = [" A", " B", " C"]
    icl = [
        {"id": f"i{i}", "prompt": f"Sort: ka A, {i}", "answer": labels[i % 3], "choices": labels}
        for i in range(8)
    ]
    write_jsonl(data / "icl.jsonl", icl)
    choice = [
        {"id": f"c{i}", "prompt": f"{i}+1=", "choices": [f"{i}.", f"{i + 1}."], "gold": 1} for i in range(8)
    ]
    write_jsonl(data / "choice.jsonl", choice)
    corpus = folder / "heldout_docs.jsonl.zst"
    texts = [
        ("code", "x = 1\n" * 9),
        ("text", "A plain sentence. " * 5),
        ("text", "Another one, \u00e9t\u00e9. " * 4),
    ]
    texts += [("code", "y = 2\n" * 30)]
    write_jsonl(corpus, [{"id": f"d{i}", "source": s, "text": t} for i, (s, t) in enumerate(texts)])
    return data, corpus


def worked_answer(prompt: str) -> str | None:
    """The right worked answer to an arithmetic question, None for any other prompt."""
    m = re.search(r"has (\d+) \w+ pens\. Tom loses (\d+)", prompt)
    if m is None:
        return None
    a, b = int(m[1]), int(m[2])
    return f"{a}-{b}={a - b}. The answer is {a - b}."


def perfect(prompt: str) -> str:
    """Right everywhere (icl: always A)."""
    if (answer := worked_answer(prompt)) is not None:
        return answer
    if prompt.startswith("Codes"):
        return " zu"
    if m := re.fullmatch(r"(\d+)\+1=", prompt):
        return f"{int(m[1]) + 1}."
    return " A" if prompt.startswith("Sort") else "?"


def engine(script=perfect, *, seeded: bool = False, context: int = 4096) -> ScriptedEngine:
    return ScriptedEngine(script, seeded=seeded, context=context)
