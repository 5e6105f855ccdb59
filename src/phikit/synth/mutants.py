"""Small faults put into a program, one at a time: tests that no fault can fail test nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

_COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


def mutants(source: str, most: int = 12) -> list[str]:
    """Up to `most` programs that differ from `source` in one operator, constant, condition or returned value, spread
    evenly over all such places. Raises SyntaxError where the source is not Python."""
    before = ast.unparse(ast.parse(source))
    found = list(dict.fromkeys(m for m in _all(source) if m != before))
    step = max(1, -(-len(found) // most))
    return found[::step][:most]


def _all(source: str) -> Iterator[str]:
    count = sum(1 for _ in ast.walk(ast.parse(source)))
    for index in range(count):
        for kind in range(2):
            tree = ast.parse(source)
            node = next(n for i, n in enumerate(ast.walk(tree)) if i == index)
            if _change(node, kind):
                yield ast.unparse(ast.fix_missing_locations(tree))


def _change(node: ast.AST, kind: int) -> bool:
    """Changes a node in place; False where it has no fault number `kind`."""
    if isinstance(node, ast.Return) and node.value is not None and kind == 1:
        node.value = ast.Constant(None)
        return True
    if kind == 1:
        return False
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        node.ops[0] = _COMPARE[type(node.ops[0])]()
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _ARITHMETIC:
        node.op = _ARITHMETIC[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        node.value += 1
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        node.value += "x"
    elif isinstance(node, ast.Slice) and node.lower is not None:
        node.lower = None
    else:
        return False
    return True
