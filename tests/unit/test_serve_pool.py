"""Models in memory: what is unloaded and when, queues, memory, shutdown."""

from __future__ import annotations

import json
import threading
import time

import httpx
import pytest
from serve_running import ASK, running, tiny_store

from phikit.serve import machine
from phikit.serve.settings import Settings

LONG = {**ASK, "options": {"num_predict": 150, "temperature": 1.0, "seed": 1, "stop": ["\0"]}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("pool"))


@pytest.fixture
def small(store):
    """One model at a time, two requests at a time."""
    with (
        running(
            store, Settings(port=0, threads=1, parallel=2, max_loaded=1, max_queue=2, shutdown_time=1.0)
        ) as found,
        httpx.Client(base_url=found.url, timeout=60) as http,
    ):
        yield found, http


def names(http) -> list[str]:
    return [m["name"] for m in http.get("/api/ps").json()["models"]]


def test_the_model_unused_for_longest_goes(small):
    server, http = small
    http.post("/api/create", json={"model": "second", "from": "tiny", "system": "x", "stream": False})
    assert http.post("/api/generate", json=ASK).status_code == 200
    [first] = server.pool.loaded.values()
    assert http.post("/api/generate", json={**ASK, "model": "second"}).status_code == 200
    assert names(http) == ["second:latest"]
    assert not first.worker.is_alive


def test_names_of_one_manifest_share_a_process(small):
    server, http = small
    http.post("/api/copy", json={"source": "tiny", "destination": "again"})
    pids = set()
    for name in ("tiny", "again", "AGAIN:latest"):
        http.post("/api/generate", json={**ASK, "model": name})
        [model] = server.pool.loaded.values()
        pids.add(model.worker.pid)
    assert len(pids) == 1


def test_one_request_too_many_is_a_503(small):
    _, http = small
    http.post("/api/generate", json=ASK)
    statuses: list[int] = []

    def ask() -> None:
        answer = httpx.post(str(http.base_url) + "/api/generate", json=LONG, timeout=60)
        statuses.append(answer.status_code)
        if answer.status_code == 503:
            assert answer.json()["error"].startswith("server busy")
            assert answer.headers["retry-after"] == "1"

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert statuses.count(200) >= 2
    assert statuses.count(503) == 12 - statuses.count(200) > 0


def test_a_model_ends_after_its_keep_alive(small):
    _, http = small
    http.post("/api/generate", json={**ASK, "keep_alive": "100ms"})
    deadline = time.monotonic() + 5
    while names(http) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not names(http)
    assert http.post("/api/generate", json=ASK).status_code == 200


def test_a_client_that_goes_while_the_model_loads_leaves_no_process_behind(small):
    server, http = small
    with pytest.raises(httpx.ReadTimeout):
        http.post("/api/generate", json=ASK, timeout=0.05)
    deadline = time.monotonic() + 20
    while not server.pool.loaded and time.monotonic() < deadline:
        time.sleep(0.02)
    [model] = server.pool.loaded.values()  # it came up, nobody uses it, and its time runs
    assert model.users == 0
    assert model.timer is not None
    assert http.post("/api/generate", json=ASK).status_code == 200
    assert list(server.pool.loaded.values()) == [model]


def test_a_larger_num_ctx_loads_the_model_again(small):
    server, http = small
    assert (
        http.post("/api/generate", json={**ASK, "options": {"num_ctx": 100, "num_predict": 1}}).status_code
        == 200
    )
    [model] = server.pool.loaded.values()
    assert model.worker.context == 100
    assert (
        http.post("/api/generate", json={**ASK, "options": {"num_ctx": 200, "num_predict": 1}}).status_code
        == 200
    )
    [model] = server.pool.loaded.values()
    assert model.worker.context == 200


def test_a_model_larger_than_the_memory_is_refused_with_both_numbers(small, monkeypatch):
    _, http = small
    monkeypatch.setattr(machine, "memory", lambda: (1 << 30, 1 << 20))
    answer = http.post("/api/generate", json=ASK)
    assert answer.status_code == 500
    assert "requires more system memory (0.2 GiB) than is available (0.0 GiB)" in answer.json()["error"]


def test_shutdown_lets_answers_end_and_leaves_no_process(store):
    with running(store, Settings(port=0, threads=1, parallel=1, shutdown_time=10.0)) as server:
        assert httpx.post(f"{server.url}/api/generate", json=ASK, timeout=60).status_code == 200
        [model] = server.pool.loaded.values()
        with httpx.stream(
            "POST", f"{server.url}/api/generate", json={**LONG, "stream": True}, timeout=60
        ) as response:
            rows = response.iter_lines()
            next(rows)
            server.serving.stop()
            last = [json.loads(row) for row in rows][-1]
        assert last["done"] is True
    assert not model.worker.is_alive


def test_a_taken_port_is_said_in_words(store):
    import asyncio

    from phikit.serve.app import Serving

    with running(store, Settings(port=0)) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: .*choose another port"):
            asyncio.run(Serving(store, Settings(port=port)).run())


def test_metrics_and_log_tell_what_happened(small):
    server, http = small
    http.post("/api/generate", json=ASK)
    text = http.get("/metrics").text
    assert 'phikit_requests_total{route="/api/generate",status="200"} 1' in text
    assert 'phikit_generated_tokens_total{model="tiny:latest"}' in text
    assert "phikit_models_loaded 1" in text
    line = json.loads(server.log.getvalue().splitlines()[0])
    assert (line["method"], line["path"], line["status"], line["model"]) == (
        "POST",
        "/api/generate",
        200,
        "tiny",
    )
    assert line["generated_tokens"] <= 3
    assert "The user" not in server.log.getvalue()
