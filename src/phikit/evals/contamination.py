"""Contamination: which evaluated items share a 13-gram with a training text (report appendix B.1, lower-cased words).

Unlike stage corpus, which removes documents, this looks at whatever was trained on, after the fact; scores on the items
without a hit stand beside those on all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phikit.jobs.progress import bar
from phikit.records.io import read_jsonl, read_parquet
from phikit.text import ngrams

if TYPE_CHECKING:
    from phikit.evals.run import Planned

N = 13
CHUNK_CHARACTERS = 4_000_000
ROWS = (".jsonl", ".gz", ".zst", ".parquet")
TEXTS = (".txt", ".md", ".rst", ".py", ".tex", ".html")
Item = Mapping[str, Any]


def overlap(
    held: Mapping[str, Sequence[Item]], training: Iterable[str], *, template: float = 0.0
) -> dict[str, set[str]]:
    """Task -> ids of its items of which some 13-gram occurs in one of the training texts. With `template`, 13-grams in
    more than this share of a task's items (and in more than five) are its instructions and are not looked for."""
    owners = [(task, str(i["id"])) for task, items in held.items() for i in items]
    texts = [item_text(i) for items in held.values() for i in items]
    grams, offsets = ngrams.ngrams(ngrams.words(texts), N)
    looked = np.ones(len(grams), bool)
    if template:
        first = 0
        for items in held.values():
            part = slice(offsets[first], offsets[first + len(items)])
            looked[part] = ~_common(grams[part], offsets[first : first + len(items) + 1], template)
            first += len(items)
    wanted = np.unique(grams[looked])
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
    hit = np.isin(grams, wanted[seen]) & looked
    out: dict[str, set[str]] = {task: set() for task in held}
    for k, (task, name) in enumerate(owners):
        if hit[offsets[k] : offsets[k + 1]].any():
            out[task].add(name)
    return out


def contaminated(planned: Sequence[Planned], training: Iterable[str]) -> dict[str, set[str]]:
    """Contaminated item ids by task, of the items of a planned evaluation: their questions (without examples, without
    the instructions that all share) and answers."""
    held: dict[str, list[Item]] = {}
    for p in planned:
        items = {x.item.id: x.item for x in p.prompts}
        held[p.task.name] = [
            {"id": i.id, "prompt": i.text or i.prompt, "answer": i.target or _text(i.reference)}
            for i in items.values()
        ]
    return overlap(held, training, template=0.02)


def texts(paths: Sequence[Path]) -> Iterator[str]:
    """Training texts of files and folders: rows of JSONL or Parquet (`text`, the turns of a dialog, else all their
    texts), whole text files. Other files of a folder are passed over; a file that is named must be of a known kind."""
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.suffix in TEXTS:
                yield file.read_text(encoding="utf-8", errors="replace")
            elif file.suffix in ROWS:
                rows = read_parquet(file) if file.suffix == ".parquet" else read_jsonl(file)
                yield from (_row_text(file, row) for row in rows)
            elif file == path:
                raise ValueError(f"{path}: training text is {', '.join((*ROWS, *TEXTS))} or a folder of them")


def item_text(item: Item) -> str:
    """What a model reads of an item, and the answer where it continues the prompt."""
    if "prompt" in item:
        return f"{item['prompt']}{item.get('answer') or ''}"
    return str(item["question"] if "question" in item else item["text"])


def _common(grams: np.ndarray, offsets: np.ndarray, share: float) -> np.ndarray:
    """Whether each gram is in more than `share` of the items, and in more than five."""
    lengths = np.diff(offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    pairs = np.unique(np.stack([grams.astype(np.uint64), owner.astype(np.uint64)]), axis=1)
    names, items = np.unique(pairs[0], return_counts=True)
    often = names[items > max(5, share * len(lengths))]
    return np.isin(grams.astype(np.uint64), often)


def _row_text(path: Path, row: Mapping[str, Any]) -> str:
    if "text" in row:
        return str(row["text"])
    for name in ("turns", "messages", "conversations"):
        if isinstance(row.get(name), list):
            return "\n".join(str(t.get("content", t.get("value", ""))) for t in row[name])
    found = [v for v in row.values() if isinstance(v, str)]
    if not found:
        raise ValueError(f"{path}: a row without text (it has {', '.join(map(str, row))})")
    return "\n".join(found)


def _text(reference: Any) -> str:
    return f" {reference}" if isinstance(reference, str) else ""


def _chunks(training: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in training:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
