"""Does a program pass its tests: run in the sandbox, never elsewhere."""

from __future__ import annotations

import ast
import re
import secrets
from dataclasses import dataclass

from phikit.verify import sandbox
from phikit.verify.sandbox import Limits, Status
from phikit.verify.verdict import Verdict

# The token is printed after the last test, so a program that exits early, even with code 0, has not passed.
_HARNESS = """
import sys
def _tests(program, tests, token, write):
    space = {{"__name__": "program"}}
    exec(compile(program, "program.py", "exec"), space)
    exec(compile(tests, "tests.py", "exec"), space)
    write("\\n" + token + "\\n")
_tests({program!r}, {tests!r}, {token!r}, sys.stdout.write)
"""


_FENCE = re.compile(r"```(?:python|py)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_HEAD = re.compile(r"^(?:async\s+)?def\s+(\w+)\s*\(", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CodeCheck:
    """`verdict` is None where nothing could be run (`status` no_sandbox). A program that is not Python is
    `unparsed`; time-outs and kills are `wrong`, told apart by `status`."""

    verdict: Verdict | None
    status: Status
    detail: str


def extract_program(completion: str, prompt: str = "") -> str:
    """The program of a completion: its fenced Python blocks that parse, one after another, else the text itself.

    Where `prompt` ends in a function head (HumanEval) and the program does not define that function, the program
    is the prompt continued. Chatter after an unfenced program is cut at the first line that is no longer Python.
    """
    blocks = [b for b in _FENCE.findall(completion) if b.strip()]
    body = "\n".join([b for b in blocks if _syntax(b) is None] or blocks[-1:]) if blocks else completion
    heads = _HEAD.findall(prompt)
    if heads and heads[-1] not in _HEAD.findall(body):
        body = prompt + (body if body.startswith((" ", "\t", "\n")) else "\n" + body)
    return body if blocks or _syntax(body) is None else _cut(body)


def run_tests(program: str, tests: str, timeout: int = 2) -> CodeCheck:
    """Whether `tests` (assert statements) pass in the namespace of `program`; `timeout` in CPU seconds.

    Raises ValueError where the tests themselves are not Python: that is the caller's mistake, not the
    program's.
    """
    if (problem := _syntax(tests)) is not None:
        raise ValueError(f"the tests are not valid Python: {problem}")
    if (problem := _syntax(program)) is not None:
        return CodeCheck(Verdict.unparsed, "failed", problem)
    token = secrets.token_hex(16)
    harness = _HARNESS.format(program=program, tests=tests, token=token)
    result = sandbox.run(harness, limits=Limits(cpu_seconds=timeout))
    if result.status == "no_sandbox":
        return CodeCheck(None, "no_sandbox", result.stderr)
    if result.status == "ok" and result.stdout.endswith(f"\n{token}\n"):
        return CodeCheck(Verdict.right, "ok", "")
    detail = result.stderr.strip().splitlines()
    ended = "ended before its tests" if result.status == "ok" else result.status
    return CodeCheck(Verdict.wrong, result.status, detail[-1][:200] if detail else ended)


def _cut(text: str) -> str:
    """The longest run of whole lines from the start that is Python, or the text where there is none."""
    lines = text.splitlines(keepends=True)
    for end in range(len(lines) - 1, 0, -1):
        head = "".join(lines[:end])
        if not lines[end].startswith((" ", "\t")) and head.strip() and _syntax(head) is None:
            return head
    return text


def _syntax(source: str) -> str | None:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        return f"{type(e).__name__}: {e}"
    return None
