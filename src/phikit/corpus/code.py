"""Which files are code, and cutting long ones at definitions."""

from __future__ import annotations

import ast
from bisect import bisect_right
from itertools import accumulate

from phikit.records import Document

# By suffix, the language as it stands in `meta.format`.
LANGUAGES = {
    ".py": "python", ".pyx": "cython", ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".hpp": "c++", ".cu": "cuda",
    ".cs": "c#", ".go": "go", ".java": "java", ".js": "javascript", ".mjs": "javascript", ".jsx": "javascript",
    ".ts": "typescript", ".tsx": "typescript", ".rs": "rust", ".rb": "ruby", ".php": "php", ".swift": "swift",
    ".kt": "kotlin", ".scala": "scala", ".hs": "haskell", ".ml": "ocaml", ".jl": "julia", ".r": "r", ".R": "r",
    ".lua": "lua", ".pl": "perl", ".sh": "shell", ".sql": "sql", ".f90": "fortran", ".lean": "lean",
    ".el": "lisp", ".lisp": "lisp", ".scm": "scheme", ".clj": "clojure", ".ex": "elixir", ".erl": "erlang",
    ".zig": "zig", ".nim": "nim",
}  # fmt: skip
NAMES = frozenset(LANGUAGES.values())


def is_code(document: Document) -> bool:
    """Whether the document is a program: it needs no language, and has quality ranges of its own."""
    return document.source == "code" or document.meta.get("format") in NAMES


def split_code(text: str, limit: int, language: str = "python") -> list[str]:
    """Parts of at most `limit` characters that join to `text` (blank lines between parts aside).

    Cuts fall before top-level statements; inside a statement that is too long, before the statements of its
    body; where even that does not help, between lines, and at last inside a line. In other languages than Python a
    line at the margin after a blank one begins a statement, and any line after a blank one is a place to cut.
    """
    lines = [line + "\n" for line in text.split("\n")]  # splitlines() would also split at form feeds
    lines = [line[i : i + limit] for line in lines for i in range(0, len(line), limit)]
    size = [0, *accumulate(map(len, lines))]
    if len(lines) == text.count("\n") + 1:
        top, inner = _cuts(text) if language == "python" else _cuts_of_layout(lines)
    else:  # line numbers of the syntax tree no longer hold
        top, inner = [], []
    parts, start = [], 0
    while start < len(lines):
        furthest = bisect_right(size, size[start] + limit) - 1
        if furthest < len(lines):
            furthest = _last(top, start, furthest) or _last(inner, start, furthest) or furthest
        part = "".join(lines[start:furthest]).strip("\n")
        if part.strip():
            parts.append(part)
        start = furthest
    return parts


def _last(cuts: list[int], start: int, furthest: int) -> int:
    """The largest cut in (start, furthest], or 0."""
    i = bisect_right(cuts, furthest)
    return cuts[i - 1] if i and cuts[i - 1] > start else 0


def _cuts(text: str) -> tuple[list[int], list[int]]:
    """Line indices (from 0) at which a top-level statement, and a statement of a body, begins; the comment
    lines just above a statement belong to it."""
    lines = text.split("\n")
    top, inner = [], []
    tree = ast.parse(text)
    for node in tree.body:
        top.append(_begin(node, lines))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.Try):
            inner.extend(_begin(child, lines) for child in node.body)
    return sorted(set(top)), sorted(set(inner))


def _cuts_of_layout(lines: list[str]) -> tuple[list[int], list[int]]:
    after = [i for i in range(1, len(lines)) if lines[i].strip() and not lines[i - 1].strip()]
    return [i for i in after if not lines[i][0].isspace() and lines[i][0] not in "})]"], after


def _begin(node: ast.stmt, lines: list[str]) -> int:
    decorators = getattr(node, "decorator_list", [])
    line = min([node.lineno, *(d.lineno for d in decorators)]) - 1
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
    return line
