"""Seeds of the flows, chosen from organic documents: small pure functions, short passages with facts,
questions.

Report section 2.2: pages are cut into passages, and each is scored for its factual content; here the score
counts numbers, names and statements, and the best passages are taken, at most two from one document.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from phikit.records.ids import seed_of
from phikit.records.types import Document

# Calls that read, write, ask or reach outside; a function that names one is not a seed.
_IMPURE = {
    "breakpoint", "compile", "copyright", "credits", "delattr", "eval", "exec", "exit", "globals", "help",
    "id", "input", "license", "locals", "memoryview", "open", "print", "quit", "setattr", "super", "vars",
    "__import__", "classmethod", "property", "staticmethod", "hash", "object", "type", "callable", "hasattr",
    "getattr",
}  # fmt: skip
_PURE = {n for n in dir(builtins) if not n.startswith("_")} - _IMPURE
_MODULES = {"math", "re", "string", "operator", "itertools", "functools"}
_STATES = re.compile(r"\b(?:is|are|was|were|has|have|means|returns|contains|consists|holds|equals)\b")


def functions(documents: Iterable[Document], n: int, seed: int = 0, max_lines: int = 12) -> list[Document]:
    """Up to `n` small pure functions out of Python sources, with a docstring first, in an order that depends
    on `seed` alone.

    A function is taken when it has 1 to 3 plain arguments, returns a value, has at most `max_lines` lines
    without its docstring, and names nothing but its arguments, builtins and a few pure modules of the
    standard library. `text` is its source without the docstring; `meta` holds name, arguments, imports,
    docstring, path.
    """
    found: dict[str, Document] = {}
    for document in documents:
        if document.meta.get("kind", "python") != "python" and not str(
            document.meta.get("path", "")
        ).endswith(".py"):
            continue
        for row in _functions(document.text, max_lines):
            meta = {k: v for k, v in row.items() if k != "source"} | {"path": document.meta.get("path", "")}
            taken = Document(row["source"], "code", meta, (document.id,))
            found.setdefault(row["name"] if len(row["name"]) > 3 else taken.id, taken)
    described = [d for d in found.values() if d.meta["docstring"]]
    rest = [d for d in found.values() if not d.meta["docstring"]]
    return (shuffled(described, n, seed) + shuffled(rest, n, seed))[:n]


def passages(
    documents: Iterable[Document], n: int, seed: int = 0, shortest: int = 25, longest: int = 70
) -> list[Document]:
    """Up to `n` prose passages of `shortest` to `longest` words with the most facts; `meta` holds `facts`,
    path."""
    best: list[tuple[float, int, Document]] = []
    for document in documents:
        own: list[tuple[float, Document]] = []
        for _, _, text in paragraphs(document.text):
            if shortest <= len(text.split()) <= longest and (score := facts(text)) > 0:
                meta = {"facts": round(score, 3), "path": document.meta.get("path", "")}
                own.append((score, Document(text, document.source, meta, (document.id,))))
        for score, taken in sorted(own, key=lambda x: (-x[0], x[1].id))[:2]:
            best.append((-score, seed_of(seed, taken.id), taken))
    # The better half decides who may be a seed; the seed decides who is.
    pool = [taken for _, _, taken in sorted(best, key=lambda x: x[:2])[: max(4 * n, len(best) // 2)]]
    return shuffled({d.id: d for d in pool}.values(), n, seed)


def paragraphs(text: str) -> Iterator[tuple[int, int, str]]:
    """(first line, last line, text in one line) of each paragraph; lines from 1."""
    lines: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            lines.append(line)
        elif lines:
            yield number - len(lines), number - 1, " ".join(" ".join(lines).split())
            lines = []


def questions(rows: Sequence[Mapping[str, Any]]) -> list[Document]:
    """Question seeds from rows {id, question, answer}; the reference answer is kept in `meta`, for measuring
    only."""
    return [
        Document(
            str(r["question"]), "question", {"answer": r.get("answer")}, (str(r["id"]),) if "id" in r else ()
        )
        for r in rows
    ]


def shuffled(documents: Iterable[Document], n: int, seed: int) -> list[Document]:
    """Up to n documents in an order that depends on `seed` and what they are alone."""
    return sorted(documents, key=lambda d: (seed_of(seed, d.id), d.id))[:n]


def _functions(source: str, max_lines: int) -> list[dict[str, Any]]:
    if "def " not in source:
        return []
    try:
        with warnings.catch_warnings():  # old sources hold invalid escapes
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    rows = [_function(node, max_lines) for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [r for r in rows if r is not None]


def _function(node: ast.FunctionDef, max_lines: int) -> dict[str, Any] | None:
    a = node.args
    if (
        node.decorator_list
        or a.vararg
        or a.kwarg
        or a.kwonlyargs
        or a.posonlyargs
        or not 1 <= len(a.args) <= 3
    ):
        return None
    if node.name.startswith("test") or {x.arg for x in a.args} & {
        "self",
        "cls",
        "func",
        "fn",
        "file",
        "fp",
        "stream",
    }:
        return None
    doc = ast.get_docstring(node)
    body = node.body[1:] if doc is not None else node.body
    bare = ast.FunctionDef(node.name, a, body or [ast.Pass()], [], None, None)
    ast.copy_location(bare, node)
    returns = [x for x in ast.walk(bare) if isinstance(x, ast.Return) and x.value is not None]
    text = ast.unparse(bare)
    if not returns or text.count("\n") > max_lines or any(len(line) > 100 for line in text.split("\n")):
        return None
    if any(isinstance(x, _FOREIGN) for x in ast.walk(bare) if x is not bare):
        return None
    names = {x.id for x in ast.walk(bare) if isinstance(x, ast.Name)}
    bound = {x.id for x in ast.walk(bare) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}
    bound |= {x.arg for x in a.args} | {node.name}
    free = names - bound
    if not free <= _PURE | _MODULES or any(isinstance(d, ast.Name) for d in a.defaults):
        return None
    imports = sorted(free & _MODULES)
    return {
        "source": text, "name": node.name, "arguments": [x.arg for x in a.args], "imports": imports,
        "docstring": doc or "", "line": node.lineno,
    }  # fmt: skip


_FOREIGN = (
    ast.AsyncFunctionDef, ast.FunctionDef, ast.ClassDef, ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom,
    ast.Yield, ast.YieldFrom, ast.Await, ast.With, ast.Delete,
)  # fmt: skip


def facts(text: str) -> float:
    """Facts per word: numbers, names inside a sentence, statements. 0 for what is not prose."""
    tokens = text.split()
    if (
        not text[0].isupper()
        or not text.rstrip('"').endswith(".")
        or re.search(r"[|=<>{}\\]|\.\.\.|>>>|::|__", text)
    ):
        return 0.0
    plain = sum(t.strip(".,;:()\"'").isalpha() for t in tokens) / len(tokens)
    if plain < 0.8:
        return 0.0
    numbers = len(re.findall(r"\b\d+\b", text))
    names = len(re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", text))
    return (numbers + names + 2 * len(_STATES.findall(text))) / len(tokens)
