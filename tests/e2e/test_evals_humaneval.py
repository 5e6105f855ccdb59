"""HumanEval in the sandbox: every canonical solution passes, every known wrong one fails (SLOW=1: a minute)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from phikit.evals import packs
from phikit.evals.task import Answer
from phikit.evals.tasks.humaneval import BASE, CHAT
from phikit.verify import sandbox

DATA = Path(__file__).parents[3] / "shared/data/benchmarks"
pytestmark = [
    pytest.mark.skipif(os.environ.get("SLOW") != "1", reason="set SLOW=1 to run every program of HumanEval"),
    pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark data here"),
    pytest.mark.skipif(sandbox.available() is not None, reason=str(sandbox.available())),
]


def graded(task, answers) -> list:
    rows = packs.load(packs.PACKS["humaneval"], "test", [DATA]).rows
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda r: task.output.grade(task.item(r), Answer(answers(r))), rows))


def test_canonical_solutions_pass():
    found = graded(BASE, lambda r: r["canonical_solution"])
    assert [g.detail for g in found if g.outcome != "right"] == []
    assert len(found) == 164


def test_canonical_solutions_pass_as_chat_answers():
    found = graded(
        CHAT, lambda r: f"Sure:\n```python\n{r['prompt']}{r['canonical_solution']}```\nThat is it."
    )
    assert [g.detail for g in found if g.outcome != "right"] == []


def test_wrong_solutions_fail():
    found = graded(BASE, lambda r: "    return None\n")
    assert {g.outcome for g in found} == {"wrong"}
