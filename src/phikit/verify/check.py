"""The one definition of a right answer: what synthesis, pivotal search, judged pairs and evaluations ask.

check("math", "Half of 10 is 5. The answer is 5.", "5")            -> Verdict.right
check("code", "```python\\ndef f(x): return x\\n```", "assert f(1) == 1")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from phikit.verify.verdict import Verdict

Kind = Literal["math", "choice", "text", "code"]


class NoSandbox(ValueError):
    """A program could not be run; the message holds the fix. It was neither right nor wrong."""


def check(
    kind: str,
    completion: str,
    reference: str | Sequence[str],
    *,
    question: str = "",
    options: int | Sequence[str] = 4,
) -> Verdict:
    """The verdict on a completion, which is given without its prompt.

    `reference` is by kind: `math` the answer (GSM8K's "... #### 72" too), `choice` the letter, `text` one answer
    or all that are accepted, `code` the tests (assert statements, one text or a list). `question` keeps a
    completion that repeats it from being marked by it; for `code` it is what the program continues, where it
    holds a function head. `options`: how many, or their texts.

    Raises ValueError for an unknown kind or a bad reference, NoSandbox for code where no sandbox works.
    """
    if kind == "math":
        from phikit.verify import math_answer

        return math_answer.judge(completion, reference_answer(_one(kind, reference)), question)
    if kind == "choice":
        from phikit.verify import choice

        return choice.judge(completion, _one(kind, reference), options)
    if kind == "text":
        from phikit.verify import text

        return text.judge(completion, [reference] if isinstance(reference, str) else list(reference))
    if kind == "code":
        return _code(completion, reference, question)
    raise ValueError(f"there is no check for answers of kind {kind!r}; kinds are {', '.join(get_args(Kind))}")


def reference_answer(reference: str) -> str:
    """The answer in a reference: what follows "####" in GSM8K's solutions, else the whole."""
    return reference.rpartition("####")[2].strip() if "####" in reference else reference


def _code(completion: str, tests: str | Sequence[str], question: str) -> Verdict:
    from phikit.verify import code

    found = code.run_tests(
        code.extract_program(completion, question), tests if isinstance(tests, str) else "\n".join(tests)
    )
    if found.verdict is None:
        raise NoSandbox(found.detail)
    return found.verdict


def _one(kind: str, reference: str | Sequence[str]) -> str:
    if not isinstance(reference, str):
        raise ValueError(f"an answer of kind {kind} has one reference, got {len(reference)}")
    return reference
