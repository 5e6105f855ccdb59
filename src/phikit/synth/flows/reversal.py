"""Instruction reversal (report section 2.2): real code -> an instruction for it -> code regenerated from that
alone.

Only pairs are kept whose regenerated code has high fidelity to the original. Fidelity is behaviour: both
functions run in the sandbox on the same generated inputs, and the share of equal outcomes (value, type, and
what became of the arguments) counts, each different outcome with the same weight: a function that always says
False must not pass for one that mostly does. Inputs come from trying: values of the builtin types are passed
to the original, and those it takes are kept. Where no inputs are found, the syntax trees are compared
instead. Where the docstring holds examples that the original passes, the regenerated code must pass them too.
Without a sandbox nothing is run and the seed is counted as `not run: no sandbox`.
"""

from __future__ import annotations

import ast
import asyncio
import difflib
import doctest
from collections.abc import Mapping
from typing import Any

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder
from phikit.synth.flows.functions import (
    head_of,
    instruction,
    one_function,
    regenerated,
    renamed,
    run_values,
    shown_source,
)
from phikit.verify import sandbox
from phikit.verify.code import run_tests
from phikit.verify.verdict import Verdict

# Runs inside the sandbox. Outcomes are compared by repr; at most 12 inputs are kept for each value.
_COMPARE = r"""
import copy, itertools, json, random
values = [
    0, 1, 2, 3, 7, -1, 10, 64, 255, 2.5, -0.5, None, True, False, b"", b"ab", b"\x01\x02\x03\x04",
    "", "a", "abc", "Hello World", "a=b", " x ", "/usr/lib", "12", "a,b", "<x>", [], [1, 2, 3], [3, 1, 2, 1],
    ["a", "b", "a"], ["x", ""], (1, 2), ("a", "b", "c"), {"a": 1, "b": 2}, {1: "x"}, {1, 2}, [[1, 2], [3]],
    [(1, 2), (3, 4)],
]
def outcome(f, args):
    args = copy.deepcopy(args)
    try:
        value = f(*args)
        if hasattr(value, "__next__"):
            value = list(itertools.islice(value, 50))
        return True, f"{type(value).__name__} {value!r:.500}", f"{args!r:.500}"
    except Exception as e:
        return False, type(e).__name__, ""
def load(source):
    space = {"__name__": "program"}
    exec(IMPORTS, space)
    exec(compile(source, "f.py", "exec"), space)
    return space[NAME]
f = load(ORIGINAL)
tuples = list(itertools.product(values, repeat=ARITY))
random.Random(0).shuffle(tuples)
taken = []
for args in tuples[:3000]:
    got = outcome(f, args)
    if got[0] and sum(got[1] == g[1] for _, g in taken) < 12:
        taken.append((args, got))
    if len(taken) == 48:
        break
outcomes = len({g[1] for _, g in taken})
print(json.dumps({"inputs": len(taken), "outcomes": outcomes}), flush=True)
for i, source in enumerate(CANDIDATES):
    try:
        g = load(source)
    except Exception:
        print(json.dumps({"candidate": i, "equal": 0.0}), flush=True)
        continue
    right = {}
    for args, got in taken:
        right.setdefault(got[1], []).append(outcome(g, args) == got)
    equal = sum(sum(r) / len(r) for r in right.values()) / max(len(right), 1)
    print(json.dumps({"candidate": i, "equal": equal}), flush=True)
"""


async def reversal(seed: Document, ask: Ask, *, n: int = 4, fidelity: float = 0.9) -> Outcome:
    """`seed` is a function from `seeds.functions`. Accepts a Dialog: the instruction, then the original
    code."""
    recorder = Recorder("reversal", seed, ask)
    if reason := sandbox.available():
        return recorder.give_up("not run: no sandbox", reason)
    name = str(seed.meta["name"]).lstrip("_")
    original = renamed(seed.text, name)
    values = {"code": shown_source(original, seed.meta), "name": name}
    told, usable = await instruction(recorder, values)
    if not usable:
        return recorder.give_up("no usable instruction", told)
    answers = await regenerated(recorder, original, told, n=n, max_tokens=64)
    parsed = (one_function(a.text, name) for a in answers if a.finish == "stop")
    candidates = list(dict.fromkeys(c for c in parsed if c is not None))
    if not candidates:
        return recorder.give_up("regenerated code does not parse", answers[0].text)
    results = await asyncio.to_thread(_behaviour, original, candidates, seed.meta)
    if results is None:
        return recorder.give_up("the original cannot be run", seed.text)
    by_behaviour, scores = results
    best = max(range(len(candidates)), key=lambda i: scores[i])
    if scores[best] < fidelity:
        kind = "behaviour" if by_behaviour else "syntax tree"
        return recorder.give_up(f"low fidelity by {kind}", f"{scores[best]:.2f}: {told} / {candidates[best]}")
    tests = doctests(str(seed.meta.get("docstring", "")), str(seed.meta["name"]), name)
    passed = await asyncio.to_thread(_passed, candidates[best], original, tests, seed.meta) if tests else None
    if passed is not None and passed < 1:
        return recorder.give_up(
            "fails a test that the original passes", f"{passed:.2f} of {tests}: {candidates[best]}"
        )
    meta = recorder.meta(
        kind="code", fidelity=round(scores[best], 3), by="behaviour" if by_behaviour else "syntax tree",
        syntax=round(_alike(original, candidates[best]), 3), tests=len(tests) if passed is not None else 0,
        regenerated=candidates[best], name=seed.meta["name"], path=seed.meta.get("path", ""),
    )  # fmt: skip
    turns = (
        Turn("user", f"Write the Python function {head_of(original)}. {told}"),
        Turn("assistant", original),
    )
    return recorder.accept(turns, meta)


def doctests(docstring: str, old: str, new: str) -> list[str]:
    """The examples of a docstring as assertions about the function, which is called `new` now."""
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
    except ValueError:
        return []
    found = []
    for e in examples:
        call, want = e.source.strip(), e.want.strip()
        if call.startswith(f"{old}(") and want and "\n" not in call + want and "Traceback" not in want:
            found.append(f"assert repr({new}{call[len(old) :]}) == {want!r}")
    return found


def _passed(candidate: str, original: str, tests: list[str], meta: Mapping[str, Any]) -> float | None:
    """The share of the tests that the original passes which the candidate passes; None where it passes none."""
    imports = "".join(f"import {m}\n" for m in meta["imports"])
    fair = [t for t in tests if run_tests(imports + original, t).verdict == Verdict.right]
    return (
        sum(run_tests(imports + candidate, t).verdict == Verdict.right for t in fair) / len(fair)
        if fair
        else None
    )


def _alike(a: str, b: str) -> float:
    """How alike two syntax trees are, 0 to 1."""
    return difflib.SequenceMatcher(None, ast.dump(ast.parse(a)), ast.dump(ast.parse(b)), False).ratio()


def _behaviour(
    original: str, candidates: list[str], meta: Mapping[str, Any]
) -> tuple[bool, list[float]] | None:
    """(by behaviour, fidelity of each candidate). A program that the sandbox ends scores 0 for whatever it
    had not yet compared. Fewer than 4 inputs or 2 different outcomes say too little: then the syntax trees
    decide."""
    facts = {
        "NAME": meta["name"].lstrip("_"), "ORIGINAL": original, "CANDIDATES": candidates,
        "ARITY": len(meta["arguments"]),
    }  # fmt: skip
    values = run_values(_COMPARE, facts, meta["imports"], cpu_seconds=3)
    rows = [r for r in values if isinstance(r, dict) and ("inputs" in r or "candidate" in r)]
    if not rows or "inputs" not in rows[0]:
        return None
    if rows[0]["inputs"] < 4 or rows[0]["outcomes"] < 2:
        return False, [_alike(original, c) for c in candidates]
    scores = [0.0] * len(candidates)
    for row in rows[1:]:
        scores[row["candidate"]] = row["equal"]
    return True, scores
