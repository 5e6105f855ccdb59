"""LiteLLM (both of its providers for local servers) and curl."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings

import pytest

MODEL = "smollm2"
HI = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def litellm(monkeypatch_module):
    monkeypatch_module.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("litellm", reason="pip install litellm: the real client")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as found:
        yield found


@pytest.mark.parametrize("provider", ["ollama_chat", "ollama", "openai"])
def test_litellm_chat_whole_and_streamed(server, litellm, provider):
    base = f"{server.url}/v1" if provider == "openai" else server.url
    options = {"api_base": base, "api_key": "none", "max_tokens": 8, "temperature": 0}
    said = litellm.completion(f"{provider}/{MODEL}", HI, **options)
    text = said.choices[0].message.content
    assert text
    assert said.usage.completion_tokens == 8
    parts = list(litellm.completion(f"{provider}/{MODEL}", HI, stream=True, **options))
    assert "".join(p.choices[0].delta.content or "" for p in parts) == text


def test_litellm_embeddings_and_errors(server, litellm):
    found = litellm.embedding(f"ollama/{MODEL}", ["a cat"], api_base=server.url)
    assert len(found.data[0]["embedding"]) == 576
    with pytest.raises(Exception, match="not found"):
        litellm.completion("ollama_chat/nothing", HI, api_base=server.url, num_retries=0)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server):
    def curl(*arguments: str) -> str:
        return subprocess.run(
            ["curl", "-s", "-S", "-m", "60", *arguments], capture_output=True, text=True, check=True
        ).stdout

    body = {"model": MODEL, "prompt": "Hi", "options": {"num_predict": 4}}
    lines = curl(f"{server.url}/api/generate", "-d", json.dumps(body)).splitlines()
    assert json.loads(lines[-1])["done"] is True
    assert all(not json.loads(line)["done"] for line in lines[:-1])
    head = curl("-I", server.url)
    assert head.startswith("HTTP/1.1 200")
    assert curl(server.url) == "Ollama is running"
    assert "404" in curl("-o", "/dev/null", "-w", "%{http_code}", f"{server.url}/api/nothing")
