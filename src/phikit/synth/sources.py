"""Seeds out of a person's own files: what a flow needs, whatever kind of file it is in.

`local` stands for the documents of this machine (Python's standard library, its docstrings and references),
`identity` for questions to a model about itself. Pages come
from HTML, Markdown, text, JSONL and Parquet files; functions from Python files; questions and prompts from rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from phikit.corpus.extract import extract
from phikit.corpus.folders import TABLES, Folder, file_documents, folder_documents
from phikit.corpus.rejection import Rejection
from phikit.corpus.sources import local_documents
from phikit.records.io import read_jsonl, read_parquet
from phikit.records.types import Document
from phikit.synth import environments, seeds
from phikit.synth.flows import SeedKind
from phikit.synth.flows.base import sentences
from phikit.verify.check import reference_answer

LOCAL, IDENTITY = "local", "identity"
_LOCAL_BYTES = 6_000_000
_ABOUT_ME = (
    "Who are you?", "What is your name?", "Who made you?", "Are you a human?", "Introduce yourself in one sentence.",
    "What kind of model are you?", "Are you ChatGPT?", "Which company trained you?", "What can you do?",
    "Do you have feelings?", "Tell me about yourself.", "What should I call you?", "Are you made by Google?",
    "How are you called, and by whom were you made?",
)  # fmt: skip
_QUESTION = ("question", "prompt", "instruction", "problem", "Prompt", "Goal", "Behavior", "text")
_ANSWER = ("answer", "solution", "reference", "response", "output")


def read_seeds(
    path: str, kind: SeedKind, n: int, *, seed: int = 0, harmful: bool | None = None
) -> list[Document]:
    """Up to n seeds of a kind from a file, a folder or `local`, in an order that depends on `seed`. Environments need
    no files: `path` may be "". `harmful` marks every prompt (safety data). Raises ValueError where the files give none,
    saying what would."""
    if kind == "environment":
        return environments.tasks(n, seed)
    if kind == "prompt" and path == IDENTITY:
        return [Document(q, "question", {"path": path}) for q in _ABOUT_ME][:n]
    if not path:
        raise ValueError(f"--seeds: this flow needs {kind}s: give a file, a folder, or `{LOCAL}`")
    if kind in ("question", "prompt"):
        found = _questions(Path(path), n, seed, harmful)
    else:
        documents = (d for item in _items(path, kind) for d in extract(item))
        texts = (d for d in documents if not isinstance(d, Rejection))
        if kind == "function":
            found = seeds.functions(texts, n, seed)
        elif kind in ("passage", "argument"):
            found = passages(texts, n, seed, argument=kind == "argument")
        else:
            found = pages(texts, n, seed)
    if not found:
        raise ValueError(f"--seeds {path}: no {kind} in it that can be a seed ({_WANTED[kind]})")
    return found


_WANTED: Mapping[str, str] = {
    "page": "texts of at least 60 words",
    "argument": "paragraphs of 35 to 120 words and at least three sentences, with numbers, names or statements",
    "passage": "paragraphs of 25 to 70 words, in sentences, with numbers, names or statements",
    "function": "Python files with top-level functions of 1 to 3 arguments that return a value and use only builtins",
    "question": "JSONL or Parquet rows with a question (and answer), or text files with a question a line",
    "prompt": "JSONL or Parquet rows with a prompt, or text files with a prompt a line",
}


def _items(path: str, kind: str) -> Iterator[Document]:
    if path == LOCAL:
        source = "code" if kind == "function" else "text"
        items: Iterator[Any] = local_documents({source: _LOCAL_BYTES})
    elif Path(path).is_dir():
        items = folder_documents(Folder(Path(path), "text"))
    elif Path(path).is_file():
        items = file_documents(Path(path), Path(path).name, Folder(Path(path).parent, "text"))
    else:
        raise ValueError(
            f"--seeds {path}: no such file or folder (`{LOCAL}` stands for this machine's documents)"
        )
    for item in items:
        if not isinstance(item, Rejection) and (item.meta.get("format") == "python") <= (kind == "function"):
            yield item


def passages(documents: Iterable[Document], n: int, seed: int, *, argument: bool) -> list[Document]:
    """Passages; an argument has at least three sentences."""
    if not argument:
        return seeds.passages(documents, n, seed)
    found = seeds.passages(documents, 8 * n, seed, 35, 120)
    return [d for d in found if len(sentences(d.text)) >= 3][:n]


def pages(documents: Iterable[Document], n: int, seed: int) -> list[Document]:
    """Up to n texts of at least 60 words, in an order that depends on `seed`."""
    return seeds.shuffled((d for d in islice(documents, 100_000) if len(d.text.split()) >= 60), n, seed)


def _questions(path: Path, n: int, seed: int, harmful: bool | None) -> list[Document]:
    if str(path) == LOCAL:
        raise ValueError(f"--seeds {LOCAL}: this machine's documents hold no questions; give a file of them")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if not path.exists():
        raise ValueError(f"--seeds {path}: no such file or folder")
    found: dict[str, Document] = {}
    for file in files:
        for number, row in enumerate(_rows(file), 1):
            if document := _question(row, f"{file.name}#{number}", harmful):
                found.setdefault(document.id, document)
    return seeds.shuffled(found.values(), n, seed)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        yield from read_parquet(path)
    elif path.name.endswith(TABLES):
        yield from read_jsonl(path)
    elif path.suffix in (".txt", ".md"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if len(line.split()) >= 3:
                yield {"question": line.strip()}


def _question(row: Mapping[str, Any], path: str, harmful: bool | None) -> Document | None:
    """A row of whatever names its question: GSM8K, self-instruct (`instruction` with `instances`), chat `messages`."""
    text = next((str(row[k]) for k in _QUESTION if isinstance(row.get(k), str) and row[k].strip()), "")
    if not text and isinstance(row.get("messages"), list):
        text = next((str(t.get("content", "")) for t in row["messages"] if t.get("role") == "user"), "")
    first = (row.get("instances") or [{}])[0] if isinstance(row.get("instances"), list) else {}
    if isinstance(first, dict) and first.get("input"):
        text = f"{text}\n\n{first['input']}"
    if not text.strip():
        return None
    meta: dict[str, Any] = {"path": path}
    if answer := next((row[k] for k in _ANSWER if isinstance(row.get(k), (str, int, float))), None):
        meta["answer"] = reference_answer(str(answer))
    meta |= {k: row[k] for k in ("tests", "harmful") if k in row}
    if harmful is not None:
        meta["harmful"] = harmful
    return Document(text.strip(), "question", meta)
