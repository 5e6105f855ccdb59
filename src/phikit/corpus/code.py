"""Cutting long Python files at definitions."""

from __future__ import annotations

import ast
from bisect import bisect_right
from itertools import accumulate


def split_code(text: str, limit: int) -> list[str]:
    """Parts of at most `limit` characters that join to `text` (blank lines between parts aside).

    Cuts fall before top-level statements; inside a statement that is too long, before the statements of its
    body; where even that does not help, between lines, and at last inside a line.
    """
    lines = [line + "\n" for line in text.split("\n")]  # splitlines() would also split at form feeds
    lines = [line[i : i + limit] for line in lines for i in range(0, len(line), limit)]
    size = [0, *accumulate(map(len, lines))]
    if len(lines) == text.count("\n") + 1:
        top, inner = _cuts(text)
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


def _begin(node: ast.stmt, lines: list[str]) -> int:
    decorators = getattr(node, "decorator_list", [])
    line = min([node.lineno, *(d.lineno for d in decorators)]) - 1
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
    return line
