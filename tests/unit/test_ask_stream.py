"""Streams and their cut-offs, several teachers with roles, Retry-After, load, JSON that is asked for again."""

import asyncio
import json
import time
from email.utils import formatdate

import httpx
import pytest
from ask_endpoint import FaultyEndpoint

from phikit.ask.backends import Pace
from phikit.ask.budget import Budget, Prices
from phikit.ask.cast import Cast, open_cast
from phikit.ask.log import Entry, RequestLog
from phikit.ask.pace import Gate, Load, jittered
from phikit.ask.stream import closed, loop
from phikit.ask.structured import ReadCounts, chat_json
from phikit.ask.teacher import Teacher
from phikit.engine.endpoint import Endpoint, RateLimited, Unavailable, read_reply
from phikit.engine.scripted import ScriptedEngine
from phikit.records.types import turns

STREAM = Pace(concurrency=4, attempts=8, base=0.001, cap=0.01, stream=True)
ASK = turns(("user", "Tell me."))


def saying(text):
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 20, "completion_tokens": 10}
    return lambda path, body: {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }


def test_a_loop_is_hung_up_on_and_not_asked_again(tmp_path):
    text = "Once upon a time there was a king. " + "And then he ate the golden bread again. " * 200
    budget = Budget(tokens=9_000)
    with FaultyEndpoint(reply=saying(text)) as server:
        with Teacher(Endpoint(server.url, "m"), tmp_path, budget=budget, pace=STREAM) as teacher:
            (answer,) = teacher.run(teacher.chat(ASK, max_tokens=2000))
            assert answer.finish == "length"
            assert answer.text.count("golden bread") <= 2
            assert answer.text.startswith("Once upon a time")
            (again,) = teacher.run(teacher.chat(ASK, max_tokens=4000))  # a larger limit would loop as well
            assert (again.replayed, server.number) == (True, 1)
        assert server.pieces < 500  # of 1,005: the server noticed
        assert 2000 <= budget.tokens <= 9_000  # what it cost nobody told: charged in full


def test_json_is_whole_when_its_brackets_close(tmp_path):
    value = {"said": "A lake is water with land around it, and it holds trout."}
    schema = {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]}
    with FaultyEndpoint(reply=saying(json.dumps(value) + " " + "\n" * 4000)) as server:
        with Teacher(Endpoint(server.url, "m"), tmp_path, pace=STREAM) as teacher:
            (answer,) = teacher.run(teacher.chat(ASK, schema=schema, max_tokens=900))
        assert (answer.finish, json.loads(answer.text)) == ("stop", value)
        assert server.pieces < 400


def test_streams_give_what_whole_replies_give_and_cut_ones_are_tried_again(tmp_path):
    with FaultyEndpoint(plan=lambda i: "cut" if i % 3 == 0 else 429 if i % 3 == 1 else None) as server:
        with Teacher(Endpoint(server.url, "m"), tmp_path, pace=STREAM) as teacher:
            (answer,) = teacher.run(teacher.chat(turns(("user", "a fairly long question"))))
            assert (answer.text, answer.finish) == ("echo a fairly long question", "stop")
            assert teacher.counts()["retries"] == 2
        assert teacher.budget.tokens > 30  # the cut one was charged too
    for data in (b"data: {oops\n\n", b'data: {"error": "no"}\n\n'):
        transport = httpx.MockTransport(lambda r, data=data: httpx.Response(200, content=data))

        async def go(transport=transport):
            from phikit.ask.stream import stream_chat

            async with httpx.AsyncClient(transport=transport) as client:
                await stream_chat(Endpoint("http://x/v1", "m"), client, ASK, {}, "", False)

        with pytest.raises(Exception, match="stream"):
            asyncio.run(go())


@pytest.mark.parametrize(
    ("text", "looped"),
    [
        ("abcdefgh " * 20, True),
        ("a" * 200, True),
        ("\n" * 200, False),  # blanks are no loop, only an end
        ("All work and no play makes Jack a dull boy, said the man who wrote all day. " * 6, True),
        ("The year 1901. The year 1902. The year 1903. The year 1904. The year 1905.", False),
        ("Every sentence of this text is different from the others. So nothing is cut here at all.", False),
    ],
)
def test_loop_finds_rounds_and_nothing_else(text, looped):
    end = loop(text)
    assert (end is not None) == looped
    if end is not None:
        assert text.startswith(text[:end])
        assert end < len(text)


def test_closed():
    assert closed(' {"a": [1]} ')
    assert not closed('{"a": [1]')
    assert not closed("7")


def echo(word):
    return ScriptedEngine(lambda prompt: word)


def test_a_cast_plays_roles_with_one_budget(tmp_path):
    budget = Budget(tokens=1000)
    with (
        Teacher(echo("wrote"), tmp_path / "w", budget=budget) as writer,
        Teacher(echo("judged"), tmp_path / "j", budget=budget) as judge,
    ):
        cast = Cast({"writer": writer, "judge": judge})
        said = cast.run(cast.role("judge").chat(ASK)), cast.run(cast.role("solver").chat(ASK))
        assert [s[0].text for s in said] == ["judged", "wrote"]
        assert cast.counts()["asked"] == 2
        assert cast.counts()["tokens"] == budget.tokens == writer.counts()["tokens"]
        assert cast.holds
        assert writer.role("anything") is writer
    with pytest.raises(ValueError, match="needs a writer"):
        Cast({"judge": judge})
    with pytest.raises(ValueError, match="two teachers"):
        open_cast(["http://a/v1#m", "http://b/v1#m"], log=tmp_path / "x")


def test_each_role_has_its_own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("PHIKIT_API_KEY", "all")
    monkeypatch.setenv("PHIKIT_API_KEY_JUDGE", "judge's")
    with open_cast(["http://a/v1#m", "judge=http://b/v1#m"], log=tmp_path) as cast:
        keys = {r: t.backend.endpoint.headers()["Authorization"] for r, t in cast.teachers.items()}
        assert keys == {"writer": "Bearer all", "judge": "Bearer judge's"}
        assert not cast.holds


def test_prices_are_each_teachers_own():
    budget = Budget(money=1.0, prices=Prices(1.0, 1.0))

    async def flow():
        cheap, dear = await budget.reserve(1000, 1000), await budget.reserve(1000, 1000, Prices(100.0, 100.0))
        cheap.settle(1000, 1000)
        dear.settle(None, None)

    asyncio.run(flow())
    assert budget.money == pytest.approx(0.002 + 0.2)
    assert budget.tokens == 4000


def test_a_whole_budget_counts_earlier_runs_and_what_never_came_back(tmp_path):
    with RequestLog(tmp_path) as log:
        log.append(Entry("a", "ok", "x", 9, 10, 5), "m", {}, 0)
        log.append(Entry("b", "retryable", "", 9, spent=(7, 7)), "m", {}, 0)
        log.asking("c", 100, 50)  # killed
    with RequestLog(tmp_path) as log:
        assert log.spent() == (117, 62)
        log.asking("c", 100, 50)  # asked again by another process: the first is lost, this one is under way
        assert log.spent() == (217, 112)
        log.append(Entry("c", "ok", "x", 9, 20, 5), "m", {}, 0)
        assert log.spent() == (137, 67)
    with RequestLog(tmp_path) as log:
        assert log.spent() == (137, 67)
        assert len(log) == 3
    with Teacher(echo("x"), tmp_path, budget=Budget(tokens=10_000), whole=True) as teacher:
        assert teacher.budget.tokens == 204


def test_retry_after_is_seconds_or_a_date_and_is_waited_out():
    def reply(status, after):
        return httpx.Response(status, headers={"retry-after": after}, content=b"{}")

    with pytest.raises(RateLimited) as e:
        read_reply("u", reply(429, "2.5"))
    assert e.value.retry_after == 2.5
    with pytest.raises(Unavailable) as e:
        read_reply("u", reply(503, formatdate(time.time() + 60, usegmt=True)))
    assert 50 < e.value.retry_after < 61
    with pytest.raises(RateLimited) as e:
        read_reply("u", reply(429, "soon"))
    assert e.value.retry_after is None
    assert all(10 <= jittered(10) <= 12.5 for _ in range(100))


def test_the_gate_starts_wide_enough_doubles_and_then_grows_by_one():
    gate = Gate(200)
    assert gate.limit == 16
    for _ in range(100):
        gate.success(0.1)
    assert gate.limit == 116
    gate.overload(gate.generation)
    gate.overload(gate.generation - 1)  # of the same burst
    assert gate.limit == 58
    for _ in range(58):
        gate.success(0.1)
    assert gate.limit == 59


def test_load_is_slower_and_less_in_all(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def window(load, seconds, each, limit=8):
        seen = []
        for _ in range(16):
            now[0] += each
            seen.append(load.overloaded(seconds, 10, limit))
        return any(seen)

    load = Load()
    load._begin = 0.0
    assert not window(load, 0.1, 0.01)
    assert not window(load, 0.5, 0.005)  # slower, but faster in all: a batching server
    assert not window(load, 0.1, 0.05)  # few were asked
    assert window(load, 0.9, 0.05)  # queueing
    assert not window(Load(), 0.9, 0.05, limit=1)


def test_json_of_a_wrong_schema_is_asked_for_again(tmp_path):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    texts = iter(['{"b": 1}', "none", '{"a": 3}'])
    counts = ReadCounts()
    with Teacher(ScriptedEngine(lambda prompt, seed: next(texts), seeded=True), tmp_path) as teacher:
        value, answer = teacher.run(chat_json(teacher, ASK, schema, counts, tries=3))
        assert (value, answer.text) == ({"a": 3}, '{"a": 3}')
        assert counts.dropped == {"bad_schema": 1, "no_json": 1}
        value, _ = teacher.run(
            chat_json(teacher, ASK, schema, counts, tries=2)
        )  # replayed: no fourth text is asked
        assert value is None
