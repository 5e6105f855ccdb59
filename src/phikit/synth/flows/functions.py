"""What the flows on functions share: an instruction for one, code written from it, and runs in the sandbox."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from phikit.synth.flows.base import Answer, Recorder, gbnf_text, repeats, words
from phikit.verify import sandbox
from phikit.verify.sandbox import Limits

# Statements, then one top-level return, which ends the answer: a small teacher does not stop by itself.
_BODY = r"""
 line* "\n    return " [^\n#]{1,70} "\n"
line ::= "\n    " ([^ \n#r] | "r" [^e\n] | "re" [^t\n]) [^\n]{1,70} | "\n        " "    "? [^ \n#] [^\n]{1,70}
""".strip()
_TELL = r'root ::= "Return " [^\n.#`:]{10,120} "."'


async def instruction(recorder: Recorder, values: Mapping[str, object]) -> tuple[str, bool]:
    """(what a function does, in one sentence, whether the sentence can be used)."""
    told = await recorder.one("reversal_instruction", values, temperature=0.0, max_tokens=40, held=_TELL)
    text = told.text.strip()
    return text, told.finish == "stop" and len(words(text)) >= 5 and not repeats(text, 5)


async def regenerated(recorder: Recorder, original: str, told: str, **options: Any) -> list[Answer]:
    """Functions written from the instruction and the original's first line."""
    first = original.split("\n", 1)[0]
    values = {"head": head_of(original), "instruction": told}
    held = f"root ::= {gbnf_text(first)} {_BODY}"
    return await recorder.say("reversal_code", values, temperature=0.4, held=held, **options)


def head_of(source: str) -> str:
    """Name and arguments of a function."""
    return source.split("\n", 1)[0].removeprefix("def ").rstrip(":")


def shown_source(original: str, meta: Mapping[str, Any]) -> str:
    """A function with the first paragraph of its docstring put back, as a teacher is shown it."""
    first, body = original.split("\n", 1)
    doc = str(meta.get("docstring", "")).strip().partition("\n\n")[0][:200].replace('"', "'")
    return f'{first}\n    """{doc}"""\n{body}' if doc else original


def one_function(text: str, name: str) -> str | None:
    """The one function of an answer, without fences; None where it does not parse or returns nothing."""
    text = re.sub(r"^```\w*\n|```\s*$", "", text.strip()).strip("\n")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    if len(tree.body) != 1 or len(found) != 1 or found[0].name != name:
        return None
    if not any(isinstance(n, ast.Return) and n.value for n in ast.walk(found[0])):
        return None
    return ast.unparse(tree)


def renamed(source: str, name: str) -> str:
    tree = ast.parse(source)
    old = next(n for n in tree.body if isinstance(n, ast.FunctionDef))
    before = old.name
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == before:
            node.name = name
        elif isinstance(node, ast.Name) and node.id == before:
            node.id = name
    return ast.unparse(tree)


def run_values(program: str, facts: Mapping[str, Any], imports: Sequence[str], cpu_seconds: int) -> list[Any]:
    """What a program printed in the sandbox, one JSON value a line; other lines are of the functions it ran. The
    program finds the `facts` as its globals, and IMPORTS."""
    known = {**facts, "IMPORTS": "\n".join(f"import {m}" for m in imports)}
    given = "".join(f"{k} = {v!r}\n" for k, v in known.items())
    found = []
    for line in sandbox.run(given + program, limits=Limits(cpu_seconds=cpu_seconds)).stdout.splitlines():
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return found
