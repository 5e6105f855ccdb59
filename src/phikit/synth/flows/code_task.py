"""Code tasks with tests (report section 2.2, "validation of code by execution loops and tests").

A real function is the seed. The teacher writes the task and the tests; both are checked by running. A test is kept
where the real function passes it and at least one small fault put into the function (a mutant) fails it; together the
kept tests must fail a share of all mutants that change what the function does at all. Then the teacher solves the task
from its text alone, and `meta.solved` tells how many of its tries pass: a measure of difficulty, not a condition.
"""

from __future__ import annotations

import ast
import asyncio

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder, gbnf_text
from phikit.synth.flows.functions import (
    head_of,
    instruction,
    one_function,
    regenerated,
    renamed,
    run_values,
    shown_source,
)
from phikit.synth.mutants import mutants
from phikit.verify import sandbox

# Runs inside the sandbox: which tests each program passes. A program that does not load passes none.
_MATRIX = r"""
import json
def passes(source, tests):
    space = {"__name__": "program"}
    try:
        exec(IMPORTS, space)
        exec(compile(source, "f.py", "exec"), space)
    except Exception:
        return [False] * len(tests)
    row = []
    for test in tests:
        try:
            exec(compile(test, "t.py", "exec"), dict(space))
            row.append(True)
        except Exception:
            row.append(False)
    return row
for source in PROGRAMS:
    print(json.dumps(passes(source, TESTS)), flush=True)
"""
_VALUE = r"""
value ::= number | string | list | "True" | "False" | "None"
number ::= "-"? ("0" | [1-9] [0-9]{0,2}) ("." [0-9])?
string ::= "'" [a-zA-Z0-9 =,./<>_-]{0,12} "'"
list ::= "[" (value (", " value){0,3})? "]"
"""


async def code_task(
    seed: Document, ask: Ask, *, tests: int = 12, least: int = 2, killed: float = 0.5, tries: int = 2
) -> Outcome:
    """`seed` is a function from `seeds.functions`. Accepts a Dialog: task and two of its tests, then the function.
    `tests`: samples asked for; `least`: tests that must be kept; `killed`: share of the mutants they must fail."""
    recorder = Recorder("code_task", seed, ask)
    if reason := sandbox.available():
        return recorder.give_up("not run: no sandbox", reason)
    name = str(seed.meta["name"]).lstrip("_")
    original = renamed(seed.text, name)
    values = {"code": shown_source(original, seed.meta), "name": name}
    task, usable = await instruction(recorder, values)
    if not usable:
        return recorder.give_up("no usable task", task)
    arity = len(seed.meta["arguments"])
    arguments = ' ", " '.join(["value"] * arity)
    held = f'root ::= {gbnf_text(f"assert {name}(")} {arguments} ") == " value "\\n"{_VALUE}'
    replies = await recorder.say(
        "code_task_test", values, n=tests, temperature=0.9, max_tokens=48, held=held, stop=("\n",)
    )
    written = list(dict.fromkeys(t for r in replies if (t := _test(r.text, name)) is not None))
    if not written:
        return recorder.give_up("no test can be read", replies[0].text)
    faulty = mutants(original)
    rows = await asyncio.to_thread(_passes, [original, *faulty], written, seed.meta["imports"])
    if rows is None or not faulty:
        return recorder.give_up("the function cannot be tested", original)
    right = [i for i in range(len(written)) if rows[0][i]]
    kept = [i for i in right if any(not row[i] for row in rows[1:])]
    if len(kept) < least:
        return recorder.give_up(
            "too few tests hold", f"{len(written)} written, {len(right)} right, {len(kept)} fail a fault"
        )
    share = sum(any(not row[i] for i in kept) for row in rows[1:]) / len(faulty)
    if share < killed:
        return recorder.give_up(
            "the tests miss too many faults", f"{share:.2f}: {[written[i] for i in kept]}"
        )
    answers = await regenerated(recorder, original, task, role="solver", n=tries, max_tokens=96)
    programs = [p for a in answers if (p := one_function(a.text, name)) is not None]
    solved = (
        await asyncio.to_thread(_passes, programs, [written[i] for i in kept], seed.meta["imports"]) or []
    )
    meta = recorder.meta(
        kind="code", tests=[written[i] for i in kept], killed=round(share, 3), mutants=len(faulty),
        written=len(written), solved=round(sum(all(r) for r in solved) / tries, 3), name=name,
        path=seed.meta.get("path", ""),
    )  # fmt: skip
    shown = "\n".join(written[i] for i in kept[:2])
    asked = f"Write the Python function {head_of(original)}. {task}\n\nIt must pass tests such as:\n{shown}"
    return recorder.accept((Turn("user", asked), Turn("assistant", original)), meta)


def _test(text: str, name: str) -> str | None:
    """One assertion about a call of the function, else None."""
    line = text.strip().strip("`").partition("\n")[0].strip()
    try:
        tree = ast.parse(line)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    calls = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Assert) or name not in calls:
        return None
    return ast.unparse(tree)


def _passes(programs: list[str], tests: list[str], imports: list[str]) -> list[list[bool]] | None:
    """[program][test]; None where the first program could not be run. A program that the sandbox ends (an endless
    loop) passes nothing, and those after it are run again without it."""
    rows: list[list[bool]] = []
    while len(rows) < len(programs):
        facts = {"PROGRAMS": programs[len(rows) :], "TESTS": tests}
        got = [
            row for row in run_values(_MATRIX, facts, imports, cpu_seconds=2)
            if isinstance(row, list) and len(row) == len(tests) and all(isinstance(x, bool) for x in row)
        ]  # fmt: skip
        rows += got[: len(programs) - len(rows)]
        if len(rows) < len(programs):
            if not rows:
                return None
            rows.append([False] * len(tests))
    return rows
