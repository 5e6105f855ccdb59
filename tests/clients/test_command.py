"""The commands as they are typed: `phikit serve`, `list`, `show`, `cp`, `rm`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

SOURCE = str(Path(__file__).parents[2] / "src")


@pytest.fixture
def environment(tmp_path, store):
    """Without this machine's own models; `store` skips where the teacher is not installed."""
    return {
        **os.environ,
        "PYTHONPATH": SOURCE,
        "PHIKIT_MODELS": str(tmp_path / "models"),
        "OLLAMA_MODELS": str(tmp_path),
    }


def phikit(environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "phikit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_serve_as_scripts_start_it_and_end_it(environment):
    command = [sys.executable, "-m", "phikit", "serve", "--port", "0", "--model", "smollm2", "--alias",
               "vanilj/Phi-4=smollm2", "--threads", "1"]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout
        assert process.stderr
        first = process.stdout.readline()
        assert first.startswith("phikit serves http://127.0.0.1:")
        assert "vanilj/Phi-4:latest" in process.stdout.readline()
        body = {"model": "vanilj/Phi-4", "prompt": "Hi", "stream": False, "options": {"num_predict": 2}}
        answer = httpx.post(f"{first.split()[2]}/api/generate", json=body, timeout=120).json()
        assert answer["done"]
        children = _children(process.pid)
        assert len(children) >= 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        deadline = time.monotonic() + 5
        while any(Path(f"/proc/{c}").exists() for c in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(Path(f"/proc/{c}").exists() for c in children)
        [line] = [json.loads(x) for x in process.stderr.read().splitlines()]
        assert line["model"] == "vanilj/Phi-4"


def test_list_show_cp_rm(environment):
    assert "smollm2:latest" in phikit(environment, "list").stdout
    assert (
        phikit(environment, "cp", "smollm2", "vanilj/Phi-4").stdout
        == "copied 'smollm2' to 'vanilj/Phi-4:latest'\n"
    )
    shown = phikit(environment, "show", "VANILJ/phi-4").stdout
    assert "quantization  Q4_1" in shown
    assert "tools         prompt" in shown
    assert phikit(environment, "show", "smollm2", "--modelfile").stdout.startswith(
        "# Modelfile of smollm2:latest"
    )
    rows = json.loads(phikit(environment, "list", "--json").stdout)["models"]
    assert {r["name"] for r in rows} == {"smollm2:latest", "vanilj/Phi-4:latest"}
    assert phikit(environment, "rm", "vanilj/Phi-4").stdout == "deleted 'vanilj/Phi-4:latest'\n"
    failed = phikit(environment, "rm", "vanilj/Phi-4")
    assert failed.returncode == 2
    assert failed.stderr == "error: model 'vanilj/Phi-4' not found\n"


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
