"""Contamination: how many held-out items share a 13-gram with the training text, and the scores without them.

The n-gram is that of report appendix B.1 (lower-cased words); unlike stage corpus, which removes documents,
this looks at everything that was trained on, synthetic text too. In the closed world problems share their
phrasing: a hit on `arithmetic` says that 13 words in a row (numbers included) were seen, not that the problem
was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phikit.evals.run import summarize
from phikit.evals.task import Item
from phikit.jobs.progress import bar
from phikit.records.io import read_jsonl
from phikit.text import ngrams

N = 13
CHUNK_CHARACTERS = 4_000_000


def overlap(held: Mapping[str, Sequence[Item]], training: Iterable[str]) -> dict[str, set[str]]:
    """Task -> ids of its items of which some 13-gram occurs in one of the training texts."""
    owners = [(task, str(i["id"])) for task, items in held.items() for i in items]
    texts = [item_text(i) for items in held.values() for i in items]
    grams, offsets = ngrams.ngrams(ngrams.words(texts), N)
    wanted = np.unique(grams)
    if not len(wanted):
        return {task: set() for task in held}
    seen = np.zeros(len(wanted), bool)
    with bar("contamination", unit="MB") as b:
        for chunk in _chunks(training):
            found, _ = ngrams.ngrams(ngrams.words(chunk), N)
            at = np.searchsorted(wanted, found)  # not np.isin: that would sort every chunk of training text
            at[at == len(wanted)] = 0
            seen[at[wanted[at] == found]] = True
            b.advance(sum(map(len, chunk)) / 1e6)
    hit = np.isin(grams, wanted[seen])
    out: dict[str, set[str]] = {task: set() for task in held}
    for k, (task, name) in enumerate(owners):
        if hit[offsets[k] : offsets[k + 1]].any():
            out[task].add(name)
    return out


def contamination(
    held: Mapping[str, Sequence[Item]], rows: Sequence[Mapping[str, Any]], training: Iterable[str]
) -> dict[str, Any]:
    """{rule, tasks: {task: {items, contaminated, share, too_short}}, clean: scores on the items without a
    hit}.

    `too_short` counts items of fewer than 13 words, in which nothing can be found. Task `format` has the
    items of `arithmetic`.
    """
    hits = overlap(held, training)
    tasks = {}
    for task, items in held.items():
        counts = np.diff(ngrams.words([item_text(i) for i in items]).offsets)
        tasks[task] = {
            "items": len(items),
            "contaminated": len(hits[task]),
            "share": len(hits[task]) / len(items),
            "too_short": int((counts < N).sum()),
        }
    hits = {**hits, "format": hits.get("arithmetic", set())}
    clean = summarize(r for r in rows if r["id"] not in hits[r["task"]])
    kept = ("checkpoint", "task", "metric", "value", "low", "high", "n")
    return {
        "rule": f"an item counts as contaminated when {N} words in a row also occur in the training text",
        "tasks": tasks,
        "clean": [{k: s[k] for k in kept} for s in clean],
    }


def item_text(item: Item) -> str:
    """What a model reads of an item, and the answer where it continues the prompt."""
    if "prompt" in item:
        return f"{item['prompt']}{item.get('answer') or ''}"
    return str(item["question"] if "question" in item else item["text"])


def training_texts(documents: Sequence[Path], dialogs: Sequence[Path]) -> Iterator[str]:
    """The texts of Document files and the conversations of Dialog files (question and answer as one text)."""
    for path in documents:
        yield from (str(row["text"]) for row in read_jsonl(path))
    for path in dialogs:
        yield from ("\n".join(str(t["content"]) for t in row["turns"]) for row in read_jsonl(path))


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
