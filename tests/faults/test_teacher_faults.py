"""A teacher against an endpoint that fails in every way at once, and against kill -9."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))
from ask_endpoint import FaultyEndpoint

from phikit.ask.backends import Pace
from phikit.ask.budget import Budget, BudgetExhausted, Prices
from phikit.ask.log import RequestLog
from phikit.ask.structured import ReadCounts, chat_json
from phikit.ask.teacher import Teacher
from phikit.engine.endpoint import Endpoint
from phikit.records.types import turns

FAULTS = (429, 500, "slow", "cut", "junk", "schema")
SCHEMA = {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]}
PATIENT = Pace(concurrency=8, attempts=20, base=0.002, cap=0.02)
CHILD = """
import asyncio, sys
from pathlib import Path
from phikit.ask.backends import Pace
from phikit.ask.teacher import Teacher
from phikit.engine.endpoint import Endpoint
from phikit.records.types import turns
teacher = Teacher(Endpoint(sys.argv[1], "m"), Path(sys.argv[2]), pace=Pace(concurrency=4, base=0.002, cap=0.01))
async def flow():
    await asyncio.gather(*(teacher.chat(turns(("user", f"row {i}")), max_tokens=16) for i in range(120)))
teacher.run(flow())
"""


def faults(share: float, seed: int) -> list:
    rng = random.Random(seed)
    return [rng.choice(FAULTS) if rng.random() < share else None for _ in range(4000)]


@pytest.mark.parametrize("stream", [False, True])
def test_every_row_completes_none_twice_and_the_budget_is_kept(tmp_path, stream):
    planned, rows, limit = faults(0.3, 5), [f"row {i}" for i in range(50)], 400_000
    budget, counts = Budget(tokens=limit), ReadCounts()
    pace = Pace(concurrency=8, attempts=20, base=0.002, cap=0.02, stream=stream)
    with FaultyEndpoint(plan=lambda i: planned[i]) as server:
        endpoint = Endpoint(server.url, "m", timeout=0.6)

        def ask_all(teacher: Teacher):
            async def flow():
                asked = (
                    chat_json(teacher, turns(("user", r)), SCHEMA, counts, tries=6, max_tokens=32)
                    for r in rows
                )
                return [value for value, _ in await asyncio.gather(*asked)]

            return teacher.run(flow())

        with Teacher(endpoint, tmp_path, budget=budget, pace=pace) as teacher:
            assert ask_all(teacher) == [{"said": r} for r in rows]
            assert teacher.counts()["retries"] > 5
        seen = {planned[i] for i in range(server.number)}
        assert seen >= {429, 500, "cut", "junk", "schema"}, "the plan must hold every fault"
        assert counts.dropped.get("bad_schema", 0) == sum(
            planned[i] == "schema" for i in range(server.number)
        )
        # Every good reply was kept the first time it came: none was paid twice.
        good = [i for i in range(server.number) if planned[i] in (None, "schema")]
        with RequestLog(tmp_path) as log:
            assert len(good) == len(log) == sum(row["state"] == "ok" for row in log.rows())
            # tokens by the server's own count <= the log's account <= the limit
            assert server.tokens <= sum(log.spent()) == budget.tokens <= limit
        before = server.number
        with Teacher(endpoint, tmp_path, budget=Budget(tokens=0), pace=pace) as teacher:
            assert ask_all(teacher) == [{"said": r} for r in rows]
        assert server.number == before, "a second run asked again"


@pytest.mark.parametrize("limit", [{"tokens": 3_000}, {"money": 0.004, "prices": Prices(1.0, 2.0)}])
def test_a_budget_is_never_exceeded_by_many_at_once_under_faults(tmp_path, limit):
    planned, budget = faults(0.3, 9), Budget(**limit)
    spent = 0.0
    with FaultyEndpoint(plan=lambda i: planned[i], delay=0.002) as server:
        endpoint = Endpoint(server.url, "m", timeout=0.6)
        with Teacher(endpoint, tmp_path, budget=budget, pace=PATIENT) as teacher:

            async def flow():
                await asyncio.gather(
                    *(teacher.chat(turns(("user", f"r{i}")), max_tokens=64) for i in range(300))
                )

            with pytest.raises(BudgetExhausted):
                teacher.run(flow())
        answered = server.tokens // 30  # replies it computed: 20 prompt and 10 completion tokens each
        spent = answered * (20 * 1.0 + 10 * 2.0) / 1e6
        assert 0 < answered < 300
    if budget.limit is not None:
        assert server.tokens <= budget.tokens <= budget.limit
    else:
        assert budget.money_limit is not None
        assert spent <= budget.money <= budget.money_limit


def test_kill_9_repeats_no_paid_request_and_its_budget_goes_on(tmp_path):
    with FaultyEndpoint(delay=0.01, remembers=True) as server:
        for stop in (25, 60, 90):
            with subprocess.Popen([sys.executable, "-c", CHILD, server.url, str(tmp_path)]) as child:
                while server.number < stop and child.poll() is None:
                    pass
                os.kill(child.pid, signal.SIGKILL)
        with RequestLog(tmp_path) as log:
            logged = len(log)
            assert 0 < logged < 120
            # What was under way at a kill is charged although nobody saw its answer.
            assert server.tokens <= sum(log.spent())
        first = server.number
        names = [f"row {i}" for i in range(120)]
        with Teacher(
            Endpoint(server.url, "m"), tmp_path, budget=Budget(tokens=50_000), whole=True
        ) as teacher:

            async def flow():
                return await asyncio.gather(*(teacher.chat(turns(("user", n)), max_tokens=16) for n in names))

            answers = teacher.run(flow())
            assert [a[0].text for a in answers] == [f"echo {n}" for n in names]
            assert server.tokens <= teacher.budget.tokens
        assert server.number - first == 120 - logged  # nothing that was in the log is asked again
        assert set(server.answered.values()) == {
            1
        }  # by their keys, not even what was under way is computed twice
