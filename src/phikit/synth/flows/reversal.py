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
import json
import re
from collections.abc import Mapping
from typing import Any

from phikit.records.types import Dialog, Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder, gbnf_text, repeats, words
from phikit.verify import sandbox
from phikit.verify.code import run_tests
from phikit.verify.sandbox import Limits
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


# Statements, then one top-level return, which ends the answer: a small teacher does not stop by itself.
_BODY = r"""
 line* "\n    return " [^\n#]{1,70} "\n"
line ::= "\n    " ([^ \n#r] | "r" [^e\n] | "re" [^t\n]) [^\n]{1,70} | "\n        " "    "? [^ \n#] [^\n]{1,70}
""".strip()
TELL = r'root ::= "Return " [^\n.#`:]{10,120} "."'


async def reversal(seed: Document, ask: Ask, *, n: int = 4, fidelity: float = 0.9) -> Outcome:
    """`seed` is a function from `seeds.functions`. Accepts a Dialog: the instruction, then the original
    code."""
    recorder = Recorder("reversal", seed, ask)
    if reason := sandbox.available():
        recorder.reject("not run: no sandbox", reason)
        return recorder.outcome()
    name = str(seed.meta["name"]).lstrip("_")
    original = renamed(seed.text, name)
    first = original.split("\n", 1)[0]
    values = {"code": shown_source(original, seed.meta), "name": name}
    told = (await recorder.say("reversal_instruction", values, temperature=0.0, max_tokens=40, held=TELL))[0]
    instruction = told.text.strip()
    if told.finish != "stop" or len(words(instruction)) < 5 or repeats(instruction, 5):
        recorder.reject("no usable instruction", instruction)
        return recorder.outcome()
    head = first.removeprefix("def ").rstrip(":")
    answers = await recorder.say(
        "reversal_code", {"head": head, "instruction": instruction}, n=n, temperature=0.4, max_tokens=64,
        held=body_grammar(first),
    )  # fmt: skip
    parsed = (one_function(a.text, name) for a in answers if a.finish == "stop")
    candidates = list(dict.fromkeys(c for c in parsed if c is not None))
    if not candidates:
        recorder.reject("regenerated code does not parse", answers[0].text)
        return recorder.outcome()
    results = await asyncio.to_thread(_behaviour, original, candidates, seed.meta)
    if results is None:
        recorder.reject("the original cannot be run", seed.text)
        return recorder.outcome()
    by_behaviour, scores = results
    best = max(range(len(candidates)), key=lambda i: scores[i])
    if scores[best] < fidelity:
        kind = "behaviour" if by_behaviour else "syntax tree"
        recorder.reject(f"low fidelity by {kind}", f"{scores[best]:.2f}: {instruction} / {candidates[best]}")
        return recorder.outcome()
    tests = doctests(str(seed.meta.get("docstring", "")), str(seed.meta["name"]), name)
    passed = await asyncio.to_thread(_passed, candidates[best], original, tests, seed.meta) if tests else None
    if passed is not None and passed < 1:
        recorder.reject(
            "fails a test that the original passes", f"{passed:.2f} of {tests}: {candidates[best]}"
        )
        return recorder.outcome()
    meta = recorder.meta(
        kind="code", fidelity=round(scores[best], 3), by="behaviour" if by_behaviour else "syntax tree",
        syntax=round(_alike(original, candidates[best]), 3), tests=len(tests) if passed is not None else 0,
        regenerated=candidates[best], name=seed.meta["name"], path=seed.meta.get("path", ""),
    )  # fmt: skip
    turns = (Turn("user", f"Write the Python function {head}. {instruction}"), Turn("assistant", original))
    return recorder.outcome(Dialog(turns, "synthetic", meta, (seed.id,)))


def shown_source(original: str, meta: Mapping[str, Any]) -> str:
    """A function with the first paragraph of its docstring put back, as a teacher is shown it."""
    first, body = original.split("\n", 1)
    doc = str(meta.get("docstring", "")).strip().partition("\n\n")[0][:200].replace('"', "'")
    return f'{first}\n    """{doc}"""\n{body}' if doc else original


def body_grammar(first: str) -> str:
    """GBNF: a function that begins with this line and ends with its return."""
    return f"root ::= {gbnf_text(first)} {_BODY}"


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
        "IMPORTS": "\n".join(f"import {m}" for m in meta["imports"]),
    }  # fmt: skip
    program = "".join(f"{k} = {v!r}\n" for k, v in facts.items()) + _COMPARE
    result = sandbox.run(program, limits=Limits(cpu_seconds=3))
    rows = [
        json.loads(line) for line in result.stdout.splitlines() if line.startswith("{") and line.endswith("}")
    ]
    if not rows or "inputs" not in rows[0]:
        return None
    if rows[0]["inputs"] < 4 or rows[0]["outcomes"] < 2:
        return False, [_alike(original, c) for c in candidates]
    scores = [0.0] * len(candidates)
    for row in rows[1:]:
        scores[row["candidate"]] = row["equal"]
    return True, scores


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
