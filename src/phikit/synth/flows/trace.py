"""Deduction chains out of code: what a function returns, worked out line by line.

The chain is not the teacher's: the function runs in the sandbox on generated arguments, and the steps are the lines
that ran with the value each of them set, the return last. The teacher's part is to say each step in words; a
sentence that does not name the value is dropped for a plain one, and a row whose teacher got fewer than `spoken` of
its steps right is not kept.
"""

from __future__ import annotations

import asyncio
from typing import Any

from phikit.records.types import Document, Turn
from phikit.synth.flows.base import Ask, Outcome, Recorder
from phikit.synth.flows.functions import run_values
from phikit.verify import sandbox

_TRACE = r"""
import itertools, json, random, sys
values = [3, 7, 10, 2.5, -4, "abc", "Hello World", "a=b, c", " x y ", [3, 1, 2], ["b", "a", "b"], [1, 2, 3, 4],
          {"a": 1, "b": 2}, (1, 5), True, "12", "/usr/lib/x.py", b"ab"]
space = {"__name__": "program"}
exec(IMPORTS, space)
exec(compile(SOURCE, "f.py", "exec"), space)
f, lines = space[NAME], SOURCE.split("\n")
def run(args):
    steps, state = [], {"line": None, "before": {}}
    def note(frame):
        if state["line"]:
            now = {k: repr(v)[:60] for k, v in frame.f_locals.items()}
            for k, v in now.items():
                if state["before"].get(k) != v:
                    steps.append([lines[state["line"] - 1].strip(), k, v])
            state["before"] = now
    def local(frame, event, arg):
        if len(steps) > 40:
            raise RuntimeError("long")
        note(frame)
        state["line"] = frame.f_lineno
        return local
    def calls(frame, event, arg):
        if frame.f_code is f.__code__:
            state["before"] = {k: repr(v)[:60] for k, v in frame.f_locals.items()}
            return local
    sys.settrace(calls)
    try:
        value = f(*args)
    finally:
        sys.settrace(None)
    steps.append([lines[state["line"] - 1].strip(), "the result", repr(value)[:60]])
    return steps, repr(value)
found = []
tuples = list(itertools.product(values, repeat=ARITY))
random.Random(0).shuffle(tuples)
for args in tuples[:800]:
    shown = ", ".join(map(repr, args))
    try:
        steps, value = run(args)
    except Exception:
        continue
    if 2 <= len(steps) <= 6 and len(value) <= 60 and value not in ("None", shown) and " at 0x" not in value:
        found.append({"arguments": shown, "steps": steps, "value": value})
found.sort(key=lambda r: -len({s[0] for s in r["steps"]}))
print(json.dumps(found[:1]))
"""


async def trace(
    seed: Document, ask: Ask, *, spoken: float = 0.5, language: str = "English", words: int = 25
) -> Outcome:
    """`seed` is a function from `seeds.functions`. Accepts a Dialog: code and call, then the steps and the value."""
    recorder = Recorder("trace", seed, ask)
    if reason := sandbox.available():
        return recorder.give_up("not run: no sandbox", reason)
    facts = {"SOURCE": seed.text, "NAME": seed.meta["name"], "ARITY": len(seed.meta["arguments"])}
    found = _rows(await asyncio.to_thread(run_values, _TRACE, facts, seed.meta["imports"], cpu_seconds=3))
    if not found:
        return recorder.give_up("no call with a short chain", seed.text)
    chain, call = found[0], f"{seed.meta['name']}({found[0]['arguments']})"
    said, right = [], 0
    for line, name, value in chain["steps"]:
        values = {"line": line, "name": name, "value": value, "language": language}
        answer = await recorder.one("trace_step", values, temperature=0.0, max_tokens=3 * words, stop=("\n",))
        sentence = answer.text.strip()
        fits = (
            answer.finish == "stop" and value.strip("'\"") in sentence and len(sentence.split()) <= 2 * words
        )
        right += fits
        said.append(sentence if fits else f"`{line}` sets {name} to {value}.")
    share = right / len(said)
    if share < spoken:
        return recorder.give_up("steps are not told right", f"{share:.2f}: {said}")
    body = "\n".join([*(f"{i}. {s}" for i, s in enumerate(said, 1)), f"So {call} returns {chain['value']}."])
    meta = recorder.meta(
        kind="trace", spoken=round(share, 3), steps=len(said), answer=chain["value"], language=language
    )
    asked = f"```python\n{seed.text}\n```\n\nWhat does {call} return? Work it out step by step."
    return recorder.accept((Turn("user", asked), Turn("assistant", body)), meta)


def _rows(values: list[Any]) -> list[dict]:
    """The last value of the sandbox, if it is what the program prints: the function may print too."""
    value = values[-1] if values else None
    return (
        value if isinstance(value, list) and all(isinstance(r, dict) and "steps" in r for r in value) else []
    )
