"""The fields of every answer against those of Ollama's own documentation and types (facts, sections 8.3 and 8.5): no
field is missing, none is there where Ollama leaves it out."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from serve_running import running, tiny_store

from phikit.serve.settings import Settings

SHAPES = json.loads((Path(__file__).parents[1] / "golden" / "ollama_shapes.json").read_text())
FEW = {"num_predict": 3, "temperature": 0}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "3 + 4?"}], "options": FEW}
ASK = {"model": "tiny", "prompt": "The user", "options": FEW}


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    store = tiny_store(tmp_path_factory.mktemp("shapes"))
    with (
        running(store, Settings(port=0, threads=1, shutdown_time=1.0)) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


def kind(value: object) -> object:
    """The shape of a JSON value: types, and for lists that of their first item."""
    if isinstance(value, dict):
        return {k: kind(v) for k, v in value.items()}
    if isinstance(value, list):
        return [kind(value[0])] if value else []
    if isinstance(value, bool):
        return "bool"
    return {int: "int", float: "number", str: "str", type(None): "null"}[type(value)]


def fits(found: object, wanted: object) -> bool:
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or (wanted.get("*") is None and set(found) != set(wanted)):
            return False
        return all(k == "*" or (k in found and fits(found[k], w)) for k, w in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and (not found or not wanted or fits(found[0], wanted[0]))
    return found == wanted or (wanted == "number" and found == "int")


@pytest.mark.parametrize(
    ("name", "method", "path", "body"),
    [
        ("generate", "POST", "/api/generate", {**ASK, "stream": False}),
        ("generate_raw", "POST", "/api/generate", {**ASK, "stream": False, "raw": True}),
        ("generate_load", "POST", "/api/generate", {"model": "tiny"}),
        ("chat", "POST", "/api/chat", {**CHAT, "stream": False}),
        ("chat_load", "POST", "/api/chat", {"model": "tiny", "messages": []}),
        ("tags", "GET", "/api/tags", None),
        ("ps", "GET", "/api/ps", None),
        ("show", "POST", "/api/show", {"model": "tiny"}),
        ("version", "GET", "/api/version", None),
        ("embed", "POST", "/api/embed", {"model": "tiny", "input": "x"}),
        ("embeddings", "POST", "/api/embeddings", {"model": "tiny", "prompt": "x"}),
        ("error", "POST", "/api/show", {"model": "nothing"}),
        (
            "openai_chat",
            "POST",
            "/v1/chat/completions",
            {"model": "tiny", "messages": CHAT["messages"], "max_tokens": 2},
        ),
        ("openai_text", "POST", "/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 2}),
        ("openai_models", "GET", "/v1/models", None),
        ("openai_embeddings", "POST", "/v1/embeddings", {"model": "tiny", "input": "x"}),
        ("openai_error", "POST", "/v1/embeddings", {"model": "nothing", "input": "x"}),
    ],
)
def test_whole_answers(http, name, method, path, body):
    found = http.request(method, path, json=body).json()
    assert fits(kind(found), SHAPES[name]), json.dumps(kind(found))


@pytest.mark.parametrize(
    ("name", "path", "body"), [("generate", "/api/generate", ASK), ("chat", "/api/chat", CHAT)]
)
def test_streams(http, name, path, body):
    rows = [json.loads(line) for line in http.post(path, json=body).text.splitlines()]
    for row in rows[:-1]:
        assert fits(kind(row), SHAPES[f"{name}_part"]), row
    assert fits(kind(rows[-1]), SHAPES[name]), rows[-1]


def test_openai_streams(http):
    body = {"model": "tiny", "messages": CHAT["messages"], "max_tokens": 2, "stream": True}
    *events, done, end = http.post("/v1/chat/completions", json=body).text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    rows = [json.loads(e.removeprefix("data: ")) for e in events]
    for row in rows:
        assert fits(kind(row), SHAPES["openai_chunk"]), row
    assert rows[0]["choices"][0]["delta"]["role"] == "assistant"
    assert rows[-1]["choices"][0]["delta"] == {}
    assert rows[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_progress_lines(http):
    text = http.post("/api/create", json={"model": "made", "from": "tiny", "system": "x"}).text
    rows = [json.loads(line) for line in text.splitlines()]
    assert all(set(r) == {"status"} for r in rows)
    assert rows[-1] == {"status": "success"}
    text = http.post("/api/pull", json={"model": "127.0.0.1:1/a/b", "insecure": True}).text
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows[0] == {"status": "pulling manifest"}
    assert set(rows[-1]) == {"error"}
