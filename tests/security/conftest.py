"""One server for the attacks, with short bounds, and a tiny model."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "unit")]

from serve_running import ASK, running, tiny_store  # noqa: E402

from phikit.serve.settings import Settings  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    settings = Settings(
        port=0, threads=1, parallel=2, shutdown_time=1.0, header_time=1.0, body_time=1.0, max_body=1 << 20
    )
    with running(tiny_store(tmp_path_factory.mktemp("attacks")), settings) as found:
        yield found


@pytest.fixture(scope="session")
def http(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def still_serves(http):
    """After every attack the server answers, and its model is the same process or a new one."""
    yield
    assert http.post("/api/generate", json=ASK).status_code == 200
