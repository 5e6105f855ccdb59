"""Durations, hosts, options, metrics: the small parts of the server."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phikit.serve import doctor, http, machine
from phikit.serve.durations import FOREVER, seconds
from phikit.serve.front import host_of, is_local
from phikit.serve.metrics import Metrics
from phikit.serve.refusal import Refusal
from phikit.serve.sampling import OPENAI_DEFAULTS, sampling, stops
from phikit.serve.settings import from_environment, parse_host
from phikit.serve.wire import MAX_DEPTH, Chat, Generate, decode, deepest


@pytest.mark.parametrize(
    ("given_", "found"),
    [
        (5, 5),
        (0, 0),
        (2.5, 2.5),
        ("0", 0),
        ("300ms", 0.3),
        ("1h2m3s", 3723),
        ("-5m", FOREVER),
        (-0.1, FOREVER),
        (".5s", 0.5),
    ],
)
def test_durations(given_, found):
    assert seconds(given_) == pytest.approx(found)


@pytest.mark.parametrize("wrong", ["", "m", "5 m", "5x", "h5", True, None, [], "--5m", float("nan")])
def test_no_durations(wrong):
    with pytest.raises(ValueError, match="duration"):
        seconds(wrong)


@pytest.mark.parametrize(
    ("text", "found"),
    [("", ("h", 1)), ("0.0.0.0", ("0.0.0.0", 1)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("http://x", ("x", 80)),
     (":5", ("h", 5)),
     ("https://x/", ("x", 443)), ("[::1]:7", ("::1", 7)), ("[::1]", ("::1", 1)), ("http://x:9/y", ("x", 9))],
)  # fmt: skip
def test_hosts_of_the_environment(text, found):
    assert parse_host(text, "h", 1) == found


def test_settings_of_the_environment():
    found = from_environment({"OLLAMA_HOST": "0.0.0.0:5", "OLLAMA_KEEP_ALIVE": "-1", "OLLAMA_NUM_PARALLEL": "8",
                              "OLLAMA_ORIGINS": "http://a, http://b", "PHIKIT_SERVE_KEY": "k"})  # fmt: skip
    assert (found.host, found.port, found.keep_alive, found.parallel, found.api_key) == (
        "0.0.0.0",
        5,
        FOREVER,
        8,
        "k",
    )
    assert found.origins == ("http://a", "http://b")
    assert not found.is_loopback
    assert from_environment({}).is_loopback
    for wrong in ({"OLLAMA_MAX_QUEUE": "many"}, {"OLLAMA_KEEP_ALIVE": "soon"}, {"OLLAMA_HOST": "x:port"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            from_environment(wrong)


def test_what_is_this_machine():
    for name in ("localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "localhost."):
        assert is_local(name)
    for name in ("", "localhost.com", "127.0.0.1.com", "0.0.0.0", "10.0.0.1", "::2", "mylocalhost"):
        assert not is_local(name)
    assert [host_of(x) for x in ("a:1", "a", "[::1]:5", "[::1]", "")] == ["a", "a", "::1", "::1", ""]


def test_options_are_merged_defaults_first():
    found = sampling(
        {"temperature": 0.1, "stop": ["a"]}, {"temperature": 0.2, "top_k": None, "frob": 1, "num_gpu": 1}
    )
    assert (found.temperature, found.top_k, found.stop, found.ignored) == (
        0.2,
        40,
        ("a",),
        ("frob", "num_gpu"),
    )
    assert sampling({}, {}, OPENAI_DEFAULTS).temperature == 1.0
    assert sampling({}, {"seed": 5}).seed == 5
    assert sampling({}, {"seed": -1}).seed != sampling({}, {}).seed
    assert sampling({}, {"top_k": -1}).top_k == 0
    assert stops("x") == ("x",)
    with pytest.raises(Refusal):
        stops([1])
    with pytest.raises(Refusal):
        stops(["x"] * 100)


@given(
    st.dictionaries(
        st.text(max_size=12),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    )
)
def test_any_options_give_numbers_in_range_or_a_refusal(options):
    try:
        found = sampling({}, options)
    except Refusal:
        return
    assert 0 <= found.top_p <= 1
    assert 0 <= found.temperature <= 100
    assert 0 <= found.seed < 1 << 63
    assert found.top_k >= 0


def test_metrics():
    m = Metrics()
    m.add("phikit_requests_total", route="/a", status="200")
    m.add("phikit_requests_total", route="/a", status="200")
    m.observe("phikit_request_seconds", 0.03, route='/"x"\n')
    m.observe("phikit_request_seconds", 1e9, route='/"x"\n')
    text = m.text({("phikit_under_way", ()): 3})
    assert 'phikit_requests_total{route="/a",status="200"} 2\n' in text
    assert 'phikit_request_seconds_bucket{route="/\\"x\\"\\n",le="0.05"} 1\n' in text
    assert 'le="+Inf"} 2\n' in text
    assert "phikit_under_way 3\n" in text
    for line in text.splitlines():
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2


def test_bodies():
    found = decode(
        b'{"model": "m", "messages": [{"role": "user", "content": "x", "more": 1}], "options": {"num_ctx": 1e3}}',
        Chat,
    )
    assert found.messages
    assert found.messages[0].content == "x"
    for body, field in ((b'{"model": 5}', "model"), (b'{"model": "m", "stream": "yes"}', "stream")):
        with pytest.raises(Refusal) as e:
            decode(body, Generate)
        assert e.value.param == field
    for body in (b"", b"  ", b"{", b"[]", b"\xff", b'{"model": "\xff"}', b"null", b'{"prompt": "x"}'):
        with pytest.raises(Refusal):
            decode(body, Generate)
    assert deepest(b'{"a": "[[[[", "b": [{}]}') == 3
    assert deepest(b"[" * 10**6) > MAX_DEPTH


def test_the_doctor_says_what_fits(monkeypatch):
    phi4 = {f.quantization: f.fits for f in doctor.fitting(11 << 30) if f.model == "Phi-4"}
    assert phi4 == {"Q4_K_M": True, "Q6_K": False, "Q8_0": False, "bf16": False}
    monkeypatch.setattr(machine, "memory", lambda: (8 << 30, 1 << 29))
    lines = doctor.lines(sandbox="no bubblewrap: install it")
    text = "\n".join(lines)
    assert "less than 1 GiB is free" in text
    assert "no bubblewrap: install it" in text
    assert "too big Phi-4" in text
    assert machine.cores() >= 1


def test_a_client_that_reads_nothing_is_given_up(monkeypatch):
    """The send hangs, as it does behind a full socket; its chunks are closed."""
    monkeypatch.setattr(http, "STALLED", 0.1)
    closed = []

    async def chunks():
        try:
            for _ in range(3):
                yield b"x"
        finally:
            closed.append(True)

    async def run(stuck: bool) -> list[bytes]:
        sent: list[bytes] = []

        async def send(message):
            if stuck and sent:
                await asyncio.Event().wait()
            sent.append(message.get("body", b""))

        await http.Streamed(chunks(), "text/plain")({}, asyncio.Event().wait, send)
        return sent

    assert asyncio.run(run(False)) == [b"", b"x", b"x", b"x", b""]
    with pytest.raises(http.ClientGone):
        asyncio.run(asyncio.wait_for(run(True), 5))
    assert closed == [True, True]
