"""Ollama's wire as its clients need it: the nineteen gotchas of the serving study, one test each."""

from __future__ import annotations

import json
import re
import socket
import time

import httpx
import pytest
from serve_running import running, tiny_store

from phikit.serve.settings import Settings

ASK = {"model": "tiny", "prompt": "The user", "options": {"num_predict": 4, "temperature": 0}}
CHAT = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "3 + 4?"}],
    "options": {"num_predict": 4, "temperature": 0},
}
FINAL = {
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    store = tiny_store(tmp_path_factory.mktemp("serve"))
    with running(store, Settings(port=0, threads=1, parallel=2, shutdown_time=1.0)) as found:
        yield found


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def lines(response) -> list[dict]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_01_nothing_is_written_in_many_ways(http, server):
    nulls = dict.fromkeys(("num_ctx", "temperature", "stop", "seed", "top_k", "mirostat", "num_gpu"))
    body = {
        **ASK,
        "format": "",
        "options": {**nulls, "num_predict": 4.0, "temperature": 0, "frobnicate": 1, "tfs_z": 1.0},
    }
    plain = http.post("/api/generate", json={**ASK, "stream": False}).json()
    assert http.post("/api/generate", json={**body, "stream": False}).json()["response"] == plain["response"]
    logged = json.loads(server.log.getvalue().splitlines()[-1])
    assert logged["unknown_options"] == ["frobnicate"]
    assert (
        http.post("/api/chat", json={**CHAT, "tools": [], "format": None, "think": False}).status_code == 200
    )


def test_02_a_stream_is_ndjson_and_a_whole_answer_json(http):
    streamed = http.post("/api/generate", json=ASK)
    assert streamed.headers["content-type"] == "application/x-ndjson"
    assert streamed.text.endswith("\n")
    assert "\n\n" not in streamed.text
    assert not streamed.text.startswith("data:")
    assert all(json.loads(line) for line in streamed.text.splitlines())
    whole = http.post("/api/generate", json={**ASK, "stream": False})
    assert whole.headers["content-type"] == "application/json; charset=utf-8"


def test_03_errors_before_and_inside_a_stream(http, server):
    missing = http.post("/api/generate", json={**ASK, "model": "x"})
    assert (missing.status_code, missing.json()) == (404, {"error": "model 'x' not found"})
    bad = http.post("/api/generate", content=b"{")
    assert bad.status_code == 400
    assert set(bad.json()) == {"error"}
    with http.stream(
        "POST", "/api/generate", json={**ASK, "options": {"num_predict": 200, "temperature": 1}}
    ) as r:
        rows = r.iter_lines()
        assert "response" in json.loads(next(rows))
        [model] = server.pool.loaded.values()
        model.worker.child.process.kill()
        last = [json.loads(row) for row in rows][-1]
    assert set(last) == {"error"}
    assert "process ended" in last["error"]
    assert http.post("/api/generate", json=ASK).status_code == 200  # started again


def test_04_the_last_object_has_reason_and_counts_in_nanoseconds(http):
    begin = time.monotonic_ns()
    *parts, last = lines(http.post("/api/chat", json=CHAT))
    assert not any(FINAL & set(p) for p in parts)
    assert set(last) >= FINAL
    assert last["done_reason"] in ("stop", "length")
    assert all(type(last[k]) is int for k in FINAL)
    assert 0 < last["eval_duration"] <= last["total_duration"] <= time.monotonic_ns() - begin
    assert last["message"] == {"role": "assistant", "content": ""}


def test_05_a_real_chat_never_ends_with_load(http):
    http.post("/api/generate", json={"model": "tiny", "keep_alive": 0})
    assert lines(http.post("/api/chat", json=CHAT))[-1]["done_reason"] in ("stop", "length")
    empty = http.post("/api/chat", json={"model": "tiny", "messages": []}).json()
    assert empty["done_reason"] == "load"
    assert empty["message"]["content"] == ""


def test_06_times_are_rfc_3339_with_z(http):
    for row in lines(http.post("/api/generate", json=ASK)):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z", row["created_at"])


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (10, 10),
        ("10", 10),
        ("5m", 300),
        ("1h30m", 5400),
        ("-1", float("inf")),
        (-1, float("inf")),
        (-1.0, float("inf")),
        ("1.5s", 1.5),
        (None, 300),
    ],
)
def test_07_keep_alive_in_every_spelling(http, server, given, seconds):
    assert http.post("/api/generate", json={**ASK, "keep_alive": given}).status_code == 200
    [model] = server.pool.loaded.values()
    assert model.keep_alive == seconds
    assert (
        http.post("/api/generate", json={"model": "tiny", "keep_alive": 0}).json()["done_reason"] == "unload"
    )
    assert not server.pool.loaded
    assert http.post("/api/generate", json={**ASK, "keep_alive": "5 parsecs"}).status_code == 400


def test_08_tool_arguments_are_an_object_here_and_text_there(http):
    tool = {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]},
        },
    }
    there = http.post(
        "/v1/chat/completions",
        json={
            "model": "tiny",
            "messages": CHAT["messages"],
            "tools": [tool],
            "tool_choice": "required",
            "max_tokens": 200,
        },
    ).json()["choices"][0]
    if there["finish_reason"] == "tool_calls":
        call = there["message"]["tool_calls"][0]
        assert isinstance(call["function"]["arguments"], str)
        assert json.loads(call["function"]["arguments"])["a"] in (1, 2)
    back = [
        *CHAT["messages"],
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_name": "add", "tool_call_id": "1", "content": "2"},
    ]
    assert http.post("/api/chat", json={**CHAT, "messages": back}).status_code == 200


@pytest.mark.parametrize("think", [True, "low", "medium", "high", "max"])
def test_09_what_a_model_cannot_do_is_said_in_one_wording(http, think):
    refused = http.post("/api/chat", json={**CHAT, "think": think})
    assert (refused.status_code, refused.json()) == (400, {"error": '"tiny" does not support thinking'})
    assert http.post("/api/chat", json={**CHAT, "think": "much"}).status_code == 400
    assert (
        "does not support insert" in http.post("/api/generate", json={**ASK, "suffix": "x"}).json()["error"]
    )


def test_10_show_and_tags_have_what_clients_look_for(http):
    shown = http.post("/api/show", json={"model": "tiny"}).json()
    assert set(shown) >= {
        "model_info",
        "capabilities",
        "details",
        "parameters",
        "template",
        "modelfile",
        "license",
    }
    assert shown["capabilities"] == ["completion", "tools"]
    assert shown["template_format"] == "jinja"
    assert shown["model_info"]["general.architecture"] == "phi3"
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
    verbose = http.post("/api/show", json={"name": "tiny", "verbose": True}).json()
    assert len(verbose["model_info"]["tokenizer.ggml.tokens"]) == 320
    for item in http.get("/api/tags").json()["models"]:
        assert item["name"] == item["model"] == "tiny:latest"
        assert set(item) == {"name", "model", "modified_at", "size", "digest", "details"}


def test_11_a_tag_defaults_to_latest_and_case_is_kept_but_not_compared(http, server):
    assert http.post("/api/copy", json={"source": "tiny", "destination": "Team/Name"}).status_code == 200
    assert "Team/Name:latest" in {m["name"] for m in http.get("/api/tags").json()["models"]}
    for name in ("team/name", "TEAM/NAME:LATEST", "registry.ollama.ai/team/name:latest"):
        answer = http.post("/api/generate", json={**ASK, "model": name, "stream": False}).json()
        assert answer["model"] == name
    assert http.request("DELETE", "/api/delete", json={"model": "team/NAME"}).status_code == 200


def test_12_the_heartbeat_and_a_version_new_enough(http):
    assert http.get("/").text == "Ollama is running"
    assert http.head("/").status_code == 200
    assert http.head("/api/version").status_code == 200
    assert http.head("/api/tags").status_code == 200
    version = [int(x) for x in http.get("/api/version").json()["version"].split(".")]
    assert version >= [0, 12, 11]


@pytest.mark.parametrize("top", [-1, 21])
def test_13_top_logprobs_out_of_range(http, top):
    refused = http.post("/api/generate", json={**ASK, "logprobs": True, "top_logprobs": top})
    assert refused.status_code == 400
    told = http.post(
        "/api/generate", json={**ASK, "logprobs": True, "top_logprobs": 20, "stream": False}
    ).json()
    assert len(told["logprobs"][0]["top_logprobs"]) == 20


@pytest.mark.parametrize("field", [{"template": "x"}, {"system": "x"}, {"context": [1]}])
def test_14_raw_with_a_template_is_refused(http, field):
    refused = http.post("/api/generate", json={**ASK, "raw": True, **field})
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        "raw mode does not support template, system, or context",
    )


def test_15_context_is_a_list_to_be_given_back(http):
    first = http.post("/api/generate", json={**ASK, "stream": False}).json()
    again = http.post("/api/generate", json={**ASK, "context": first["context"], "stream": False}).json()
    assert again["context"][: len(first["context"])] == first["context"]
    assert http.post("/api/generate", json={**ASK, "context": [10**12]}).status_code == 400
    assert http.post("/api/generate", json={**ASK, "context": "x"}).status_code == 400


def test_16_a_prompt_too_long_is_refused_with_both_numbers(http):
    long = {
        **CHAT,
        "messages": [
            *CHAT["messages"],
            {"role": "assistant", "content": "7"},
            {"role": "user", "content": "and " * 20},
        ],
    }
    refused = http.post("/api/chat", json={**long, "options": {"num_ctx": 40}})
    assert refused.status_code == 400
    count, context = re.search(
        r"has (\d+) tokens and does not fit the context of (\d+) tokens", refused.json()["error"]
    ).groups()
    assert int(count) > int(context) == 40
    many = {
        **CHAT,
        "messages": [
            m
            for i in range(20)
            for m in ({"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": "7"})
        ]
        + CHAT["messages"],
    }
    cut = http.post(
        "/api/chat", json={**many, "options": {"num_ctx": 40, "num_predict": 2}, "truncate": True}
    )
    assert lines(cut)[-1]["prompt_eval_count"] < 40
    assert http.post("/api/generate", json={**ASK, "options": {"num_ctx": 1 << 20}}).status_code == 400


def test_17_origins_and_keys(http, tmp_path):
    assert http.get("/api/tags", headers={"origin": "http://localhost:3000"}).headers[
        "access-control-allow-origin"
    ]
    assert http.get("/api/tags", headers={"origin": "https://evil.example"}).status_code == 403
    preflight = http.options(
        "/api/chat", headers={"origin": "http://127.0.0.1:8000", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    settings = Settings(port=0, api_key="s3cret", origins=("https://friend.example",), shutdown_time=1.0)
    with running(tiny_store(tmp_path), settings) as locked, httpx.Client(base_url=locked.url) as client:
        assert client.get("/api/tags").status_code == 401
        assert client.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
        assert client.get("/").status_code == 200
        assert client.get("/api/tags", headers={"authorization": "Bearer s3cret"}).status_code == 200
        assert client.get("/api/tags", headers={"authorization": "Bearer s3cre"}).status_code == 401
        allowed = client.get("/", headers={"origin": "https://friend.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://friend.example"


def test_18_a_client_that_goes_stops_the_work(http, server):
    http.post("/api/generate", json=ASK)
    [model] = server.pool.loaded.values()
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(
        {**ASK, "options": {"num_predict": 10**6, "temperature": 3, "stop": ["\0"]}, "stream": True}
    ).encode()
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(
            b"POST /api/generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        assert model.users == 1
    deadline = time.monotonic() + 5
    while (model.users or model.worker.child.waiting) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert model.users == 0
    assert not model.worker.child.waiting


def test_19_defaults_are_the_models_own_and_shown(http):
    parameters = {"temperature": 0, "num_predict": 3, "stop": ["###"]}
    assert (
        http.post(
            "/api/create", json={"model": "own", "from": "tiny", "parameters": parameters, "stream": False}
        ).status_code
        == 200
    )
    shown = http.post("/api/show", json={"model": "own"}).json()
    assert "temperature          0" in shown["parameters"]
    assert shown["effective_parameters"]["temperature"] == 0
    assert shown["effective_parameters"]["top_k"] == 40
    assert shown["effective_parameters"]["stop"][0] == "###"
    said = [
        http.post("/api/generate", json={"model": "own", "prompt": "The", "stream": False}).json()
        for _ in range(2)
    ]
    assert said[0]["response"] == said[1]["response"]
    assert said[0]["eval_count"] <= 3
    http.request("DELETE", "/api/delete", json={"model": "own"})


@pytest.mark.parametrize("path", ["/api/embed", "/v1/score", "/api/chat"])
def test_a_process_that_ends_is_an_error_of_its_requests_and_starts_again(http, server, path):
    body = {"/api/embed": {"model": "tiny", "input": "x"}, "/api/chat": {**CHAT, "stream": False},
            "/v1/score": {"model": "tiny", "context": "The", "continuations": [" user"]}}[path]  # fmt: skip
    assert http.post(path, json=body).status_code == 200
    [model] = server.pool.loaded.values()
    model.worker.child.process.kill()
    answers = [http.post(path, json=body) for _ in range(3)]
    assert answers[-1].status_code == 200
    for failed in (a for a in answers if a.status_code != 200):
        assert failed.status_code == 500
        assert "process ended" in failed.text
