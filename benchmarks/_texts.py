"""Real texts for the benchmarks of the corpus: books, web pages, documentation, code, LaTeX, encyclopedia."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

DATA = Path(__file__).parents[2] / "shared" / "data"
CORPORA = DATA / "corpora"
BENCHMARK_ITEMS = (
    "gsm8k/test-200.jsonl.gz", "mmlu/val.tar.gz", "arc/ARC-Challenge-Dev.jsonl.gz", "humaneval/HumanEval.jsonl.gz",
    "math/math500.jsonl.gz", "decontamination/agieval.tar.gz",
)  # fmt: skip


def _unpacked(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return f.read()


def web() -> list[str]:
    return [json.loads(x)["text"] for x in _unpacked(CORPORA / "web/c4-300.jsonl.gz").splitlines()]


def books(paragraphs: int = 12) -> list[str]:
    """Passages of so many paragraphs."""
    found = []
    for path in sorted((CORPORA / "books").glob("*.txt.gz")):
        parts = _unpacked(path).split("\n\n")
        found += ["\n\n".join(parts[i : i + paragraphs]) for i in range(0, len(parts), paragraphs)]
    return found


def encyclopedia() -> list[str]:
    """Paragraphs of Wikipedia that HotpotQA comes with, five to a text."""
    found: dict[str, None] = {}
    rows = DATA / "benchmarks/rag/hotpotqa-500-with-paragraphs.jsonl.gz"
    for line in _unpacked(rows).splitlines():
        found.update(dict.fromkeys(_paragraphs(json.loads(line))))
    parts = list(found)
    return ["\n\n".join(parts[i : i + 5]) for i in range(0, len(parts), 5)]


def _paragraphs(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) > 200:
            yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _paragraphs(inner)


def _members(archive: Path, suffix: str) -> Iterator[str]:
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(suffix):
                data = tar.extractfile(member).read()  # type: ignore[union-attr]
                yield data.decode("utf-8", "replace")


def code() -> list[str]:
    return list(_members(CORPORA / "code/python_repos.tar.gz", ".py"))


def latex() -> list[str]:
    return list(_members(CORPORA / "latex/hott-and-openlogic.tar.gz", ".tex"))


def documentation() -> list[str]:
    """The main text of Debian's documentation pages."""
    from phikit.corpus.html_text import html_text

    found = []
    for page in _members(CORPORA / "html/debian-docs-en.tar.gz", ".html"):
        try:
            found.append(html_text(page))
        except ValueError:
            continue
    return found


def foreign(texts: int) -> list[str]:
    """Twenty sentences of a language at a time, in languages that are not English."""
    found = []
    with tarfile.open(CORPORA / "multilingual/flores200_dev_62langs.tar.gz") as tar:
        for member in tar:
            if member.name.endswith(".dev") and "eng_" not in member.name:
                text = io.TextIOWrapper(tar.extractfile(member), encoding="utf-8").read()  # type: ignore[arg-type]
                found.append("\n".join(text.splitlines()[:20]))
    return found[:texts]


def edited(text: str, share: float, words: list[str], rng: random.Random) -> str:
    """The text with this share of its words replaced, at random places."""
    parts = text.split(" ")
    for i in rng.sample(range(len(parts)), round(share * len(parts))):
        parts[i] = rng.choice(words)
    return " ".join(parts)


def renamed(texts: list[str], copy: int) -> list[str]:
    """Other texts of the same shape: each word of three or more letters stands for another one of its length."""
    found = re.compile(r"[A-Za-z]{3,}")
    by_length: dict[int, list[str]] = {}
    for word in sorted({w for t in texts for w in found.findall(t)}):
        by_length.setdefault(len(word), []).append(word)
    other = {}
    for words in by_length.values():
        shuffled = random.Random(copy).sample(words, len(words))
        other.update(zip(words, shuffled))
    return [found.sub(lambda m: other[m[0]], t) for t in texts]
