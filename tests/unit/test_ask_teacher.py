import asyncio
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from ask_endpoint import FaultyEndpoint

from phikit.ask.backends import Pace
from phikit.ask.budget import Budget, BudgetExhausted
from phikit.ask.log import RequestLog
from phikit.ask.pace import EndpointDown
from phikit.ask.teacher import Teacher, open_teacher
from phikit.engine.endpoint import Endpoint, Refused
from phikit.engine.scripted import ScriptedEngine
from phikit.records.types import turns

FAST = Pace(concurrency=8, base=0.001, cap=0.01)


def ask(text):
    return turns(("user", text))


def many(teacher, names, **options):
    async def flow():
        return [a[0] for a in await asyncio.gather(*(teacher.chat(ask(n), **options) for n in names))]

    return teacher.run(flow())


def scripted(reply=lambda prompt, seed: f"{prompt.count('<|')} {seed}"):
    return ScriptedEngine(reply, seeded=True)


def test_a_second_run_is_free_and_equal(tmp_path):
    engine = scripted()
    with Teacher(engine, tmp_path) as teacher:
        first = teacher.run(teacher.chat(ask("a"), n=3))
        assert [a.replayed for a in first] == [False] * 3
        assert len({a.text for a in first}) == 3
    with Teacher(engine, tmp_path, budget=Budget(tokens=0)) as teacher:  # replays take no budget
        again = teacher.run(teacher.chat(ask("a"), n=3))
        assert [(a.text, a.key, a.finish) for a in again] == [(a.text, a.key, a.finish) for a in first]
        assert all(a.replayed for a in again)
        assert teacher.counts()["replayed"] == 3
    assert len(engine.prompts) == 3


def test_more_samples_and_more_tokens_ask_only_what_is_new(tmp_path):
    engine = scripted(lambda prompt, seed: "long " * 5 if "b" in prompt.split("user")[1] else "s")
    with Teacher(engine, tmp_path) as teacher:
        many(teacher, ["b", "x"], max_tokens=10)
        assert len(engine.prompts) == 2
        teacher.run(teacher.chat(ask("x"), max_tokens=10, n=4))
        assert len(engine.prompts) == 5
        cut, kept = many(teacher, ["b", "x"], max_tokens=8)
        assert (cut.finish, cut.replayed, kept.replayed) == ("length", True, True)
        whole, kept = many(teacher, ["b", "x"], max_tokens=40)
        assert (whole.finish, whole.text, whole.replayed) == ("stop", "long " * 5, False)
        assert kept.replayed
        assert len(engine.prompts) == 6
        assert many(teacher, ["b"], max_tokens=40)[0].replayed


def test_batching_decides_neither_answers_nor_keys(tmp_path):
    names = [f"row {i}" for i in range(20)]
    found = []
    for k, (lanes, batch) in enumerate([(1, 1), (1, 32), (1, 3)]):
        with Teacher(scripted(), tmp_path / str(k), lanes=lanes, batch=batch) as teacher:
            found.append({a.key: a.text for a in many(teacher, random.sample(names, 20))})
    assert found[0] == found[1] == found[2]


def test_requests_that_wait_together_go_together(tmp_path):
    sizes = []

    class Watched(ScriptedEngine):
        def generate(self, requests):
            sizes.append(len(requests))
            yield from super().generate(requests)

    with Teacher(Watched(lambda p: "x"), tmp_path, batch=8) as teacher:
        many(teacher, [str(i) for i in range(20)])
    assert sizes == [8, 8, 4]


def test_the_same_request_at_once_is_asked_once(tmp_path):
    engine = scripted()
    with Teacher(engine, tmp_path) as teacher:
        answers = many(teacher, ["same"] * 5)
    assert len({a.text for a in answers}) == 1
    assert sorted(a.replayed for a in answers) == [False, True, True, True, True]
    assert len(engine.prompts) == 1


def test_local_budget_is_hard_and_what_was_answered_is_kept(tmp_path):
    engine = scripted(lambda prompt, seed: "12345")
    names = [f"r{i:02d}" for i in range(20)]
    budget = Budget(tokens=400)
    with Teacher(engine, tmp_path, budget=budget, batch=4) as teacher, pytest.raises(BudgetExhausted):
        many(teacher, names, max_tokens=20)
    assert 0 < budget.tokens <= 400
    asked = len(engine.prompts)
    assert asked == len(RequestLog(tmp_path))
    with Teacher(engine, tmp_path) as teacher:
        many(teacher, names, max_tokens=20)
    assert len(engine.prompts) == 20


def test_flows_that_follow_one_another_at_once_do_not_hang(tmp_path):
    class Lingers(ScriptedEngine):
        def generate(self, requests):
            yield from super().generate(requests)
            time.sleep(0.02)  # answers are out, the lane is not free yet

    with Teacher(Lingers(lambda p: "x"), tmp_path) as teacher:
        for i in range(5):
            assert many(teacher, [str(i)])[0].text == "x"


def test_a_row_too_long_fails_alone_and_bad_calls_are_errors(tmp_path):
    with Teacher(ScriptedEngine(lambda p: "ok", context=80), tmp_path) as teacher:
        long, short = many(teacher, ["x" * 200, "y"])
        assert (long.finish, long.text) == ("error", "")
        assert "context of 80" in long.error
        assert short.finish == "stop"
        with pytest.raises(ValueError, match="not both"):
            teacher.run(teacher.chat(ask("a"), grammar="g", schema={"type": "object"}))


def test_an_engine_that_breaks_is_raised_and_its_finished_answers_are_kept(tmp_path):
    class Breaks(ScriptedEngine):
        def generate(self, requests):
            yield from list(super().generate(requests))[:2]
            raise RuntimeError("the engine broke")

    with Teacher(Breaks(lambda p: "x"), tmp_path) as teacher:
        with pytest.raises(RuntimeError, match="the engine broke"):
            many(teacher, ["a", "b", "c"])
        assert len(teacher.log) == 2


def test_faulty_endpoint_every_row_completes_none_twice_budget_kept(tmp_path):
    rng = random.Random(3)
    faults = [
        rng.choice([429, 500, "cut", "junk", "empty"]) if rng.random() < 0.4 else None for _ in range(2000)
    ]
    names = [f"row {i}" for i in range(60)]
    budget = Budget(tokens=60_000)
    with FaultyEndpoint(plan=lambda i: faults[i], delay=0.002) as server:
        endpoint = Endpoint(server.url, "m")
        pace = Pace(concurrency=8, attempts=12, base=0.001, cap=0.01)
        with Teacher(endpoint, tmp_path, budget=budget, pace=pace) as teacher:
            answers = many(teacher, names, max_tokens=16)
            assert [a.text for a in answers] == [f"echo {n}" for n in names]
            assert teacher.counts()["retries"] > 10
            # cut bodies were answered by the server, so they count as answered there; good replies come once
            good = server.number - sum(f is not None for f in faults[: server.number])
            assert good == 60
            assert server.tokens <= budget.tokens <= 60_000
            assert server.most <= 8
            asked = server.number
            assert all(a.replayed for a in many(teacher, names, max_tokens=16))
        with Teacher(endpoint, tmp_path, pace=FAST) as teacher:
            assert all(a.replayed for a in many(teacher, names, max_tokens=16))
        assert server.number == asked


def test_endpoint_budget_is_never_exceeded(tmp_path):
    budget = Budget(tokens=700)
    with FaultyEndpoint(plan=lambda i: "cut" if i % 4 == 1 else None) as server:
        with (
            Teacher(Endpoint(server.url, "m"), tmp_path, budget=budget, pace=FAST) as teacher,
            pytest.raises(BudgetExhausted, match="run again"),
        ):
            many(teacher, [f"row {i}" for i in range(60)], max_tokens=16)
        assert 0 < server.tokens <= 700
        assert budget.tokens <= 700


def test_breaker_ends_a_run_against_a_dead_endpoint(tmp_path):
    pace = Pace(concurrency=4, attempts=2, base=0.001, cap=0.01, breaker=3)
    with FaultyEndpoint(plan=lambda i: 500) as server:
        with (
            Teacher(Endpoint(server.url, "m"), tmp_path, pace=pace) as teacher,
            pytest.raises(EndpointDown, match=r"[3-9] requests in a row"),
        ):
            many(teacher, [str(i) for i in range(200)])
        assert server.number < 40
    with FaultyEndpoint() as server, Teacher(Endpoint(server.url, "m"), tmp_path, pace=pace) as teacher:
        # failed rows are retryable: a later run asks them again
        assert {a.finish for a in many(teacher, ["0", "1"])} == {"stop"}


def test_refusals_wrong_keys_rate_limits_and_slow_replies(tmp_path):
    with (
        FaultyEndpoint(plan=lambda i: 400) as server,
        Teacher(Endpoint(server.url, "m"), tmp_path / "a", pace=FAST) as teacher,
    ):
        (answer,) = teacher.run(teacher.chat(ask("a")))
        assert (answer.finish, server.number) == ("error", 1)
        (answer,) = teacher.run(teacher.chat(ask("a")))  # final: not asked again
        assert (answer.replayed, server.number) == (True, 1)
    with (
        FaultyEndpoint(plan=lambda i: 401) as server,
        Teacher(Endpoint(server.url, "m"), tmp_path / "b", pace=FAST) as teacher,
        pytest.raises(Refused, match="PHIKIT_API_KEY"),
    ):
        teacher.run(teacher.chat(ask("a")))
    with (
        FaultyEndpoint(plan=lambda i: 429 if i < 30 else None) as server,  # more than `attempts`
        Teacher(Endpoint(server.url, "m"), tmp_path / "c", pace=FAST) as teacher,
    ):
        assert teacher.run(teacher.chat(ask("a")))[0].text == "echo a"
        assert teacher.backend.gate.limit == 2  # down to 1, and up by one after the success
    with FaultyEndpoint(plan=lambda i: "slow" if i == 0 else None) as server:
        endpoint = Endpoint(server.url, "m", timeout=0.3)
        with Teacher(endpoint, tmp_path / "d", pace=FAST) as teacher:
            assert teacher.run(teacher.chat(ask("a")))[0].text == "echo a"
            assert teacher.backend.gate.limit == 4
    with pytest.raises(ValueError, match="#model"):
        open_teacher("http://localhost:1/v1", log=tmp_path / "e")


def test_kill_9_and_run_again_repeats_no_logged_request(tmp_path):
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from phikit.ask.teacher import *; from phikit.ask.backends import Pace\n"
        "from phikit.records.types import turns\n"
        "t = Teacher(Endpoint(sys.argv[1], 'm'), Path(sys.argv[2]), pace=Pace(concurrency=2))\n"
        "async def flow():\n"
        "    await asyncio.gather(*(t.chat(turns(('user', f'row {i}'))) for i in range(200)))\n"
        "t.run(flow())\n"
    )
    names = [f"row {i}" for i in range(200)]
    with FaultyEndpoint(delay=0.01) as server:
        arguments = [sys.executable, "-c", code, server.url, str(tmp_path)]
        with subprocess.Popen(arguments) as child:
            while server.number < 40 and child.poll() is None:
                pass
            os.kill(child.pid, signal.SIGKILL)
        with RequestLog(tmp_path) as log:
            logged = {row["payload"]["turns"][0][1] for row in log.rows()}
        assert 20 <= len(logged) < 200
        with Teacher(Endpoint(server.url, "m"), tmp_path, pace=FAST) as teacher:
            answers = many(teacher, names)
        assert [a.text for a in answers] == [f"echo {n}" for n in names]
        assert all(server.answered[n] == 1 for n in logged)
        assert sum(server.answered.values()) <= 200 + 2  # two were under way when it was killed


def test_penalties_reach_endpoint_and_engine_and_only_then_change_the_key(tmp_path):
    said = {"presence_penalty": 0.6, "frequency_penalty": 0.2}
    with (
        FaultyEndpoint() as server,
        Teacher(Endpoint(f"{server.url}", "m"), tmp_path / "a", pace=FAST) as teacher,
    ):
        plain, shaped, zero = (many(teacher, ["x"], **o)[0] for o in ({}, said, dict.fromkeys(said, 0.0)))
        assert plain.key == zero.key != shaped.key
        assert zero.replayed
        bodies = [{k: b.get(k) for k in said} for _, b in server.bodies]
        assert bodies == [dict.fromkeys(said), said]

    class Seen(ScriptedEngine):
        def generate(self, requests):
            self.asked = [*getattr(self, "asked", []), *requests]
            return super().generate(requests)

    engine = Seen(lambda prompt, seed: "s", seeded=True)
    with Teacher(engine, tmp_path / "b") as teacher:
        many(teacher, ["x"], **said)
        many(teacher, ["x"])
    assert [(r.presence_penalty, r.frequency_penalty) for r in engine.asked] == [(0.6, 0.2), (0.0, 0.0)]
