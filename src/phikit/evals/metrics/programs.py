"""Graders of programs: run with their tests in the sandbox (verify/), never elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from phikit.evals.task import Answer, Grade, Graded, Item
from phikit.verify import NoSandbox, Verdict, code


def passes(program: Callable[[Item, Answer], str], *, cpu_seconds: float = 3) -> Grade:
    """Metric `pass`: `item.reference["tests"]` pass after the program. `cpu_seconds` are those of a machine as
    fast as the sandbox's reference (`sandbox.slowness`). Raises NoSandbox where nothing can be run."""

    def grade(item: Item, answer: Answer) -> Graded:
        from phikit.verify import sandbox

        seconds = math.ceil(cpu_seconds * sandbox.slowness())
        found = code.run_tests(program(item, answer), item.reference["tests"], timeout=seconds)
        if found.verdict is None:
            raise NoSandbox(found.detail)
        outcome = "timeout" if found.status == "timeout" else found.verdict.value
        return Graded({"pass": float(found.verdict is Verdict.right)}, outcome, detail=found.detail)

    return grade


def continued(item: Item, answer: Answer) -> str:
    """The prompt's code and what follows it (base models on HumanEval)."""
    return item.reference["prompt"] + answer.text


def alone(item: Item, answer: Answer) -> str:
    """The answer itself is the program (base models on MBPP)."""
    return answer.text


def fenced(item: Item, answer: Answer) -> str:
    """The program of a chat answer; where it does not define the prompt's function, it continues the prompt."""
    return code.extract_program(answer.text, item.reference["prompt"])


def pass_at(k: int) -> Callable[[Sequence[float]], float]:
    """The unbiased estimate of pass@k from n >= k samples of one problem (Chen et al. 2021)."""

    def value(passed: Sequence[float]) -> float:
        n, c = len(passed), int(sum(passed))
        if n < k:
            raise ValueError(f"pass@{k} needs {k} samples of each problem, there are {n}")
        return 1.0 - math.comb(n - c, k) / math.comb(n, k)

    return value
