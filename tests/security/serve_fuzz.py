"""Requests that nobody means: sound ones with something wrong, junk, wrong methods, on every route of the server.

A case is decided by its number alone. `python tests/security/serve_fuzz.py --cases 100000` runs many;
`test_serve_fuzz.py` a few thousand. What must hold of every answer: a documented status, a body in the API's own form,
and a server that still answers.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit"), str(HERE.parents[1] / "src")]

from serve_requests import SHORT, case  # noqa: E402

# 501: push. 500: a model whose load fails for want of memory; it cannot happen here, where the model is tiny.
DOCUMENTED = {200, 201, 204, 400, 401, 403, 404, 405, 408, 413, 415, 501, 503}


async def ask(
    app: Any, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, str, bytes]:
    """(status, content type, body) of one request, without a socket."""
    path, _, query = path.partition("?")
    told = {"content-length": str(len(body)), **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.encode(), v.encode()) for k, v in told.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    given, done, sent = False, asyncio.Event(), []

    async def receive() -> dict[str, Any]:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    try:
        await asyncio.wait_for(app(scope, receive, send), 60)
    finally:
        done.set()
    start = next(m for m in sent if m["type"] == "http.response.start")
    kind = dict(start["headers"]).get(b"content-type", b"").decode()
    return start["status"], kind, b"".join(m.get("body", b"") for m in sent)


def wrong(number: int, status: int, kind: str, body: bytes) -> str | None:
    """What is wrong with an answer."""
    method, path, _, _ = case(number)
    if status not in DOCUMENTED:
        return f"status {status}: {body[:200]!r}"
    if status == 501 and path != "/api/push":
        return "501 on another route than push"
    if status >= 400 and method != "HEAD" and "/api/blobs" not in path:
        try:
            error = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            return f"status {status} without an error body: {body[:100]!r}"
        if path.startswith("/v1/") and set(error) != {"message", "type", "param", "code"}:
            return f"an error that is not OpenAI's: {error}"
        if not path.startswith("/v1/") and not isinstance(error, str):
            return f"an error that is not Ollama's: {error}"
    if status == 200 and kind == "application/x-ndjson":
        for line in body.splitlines():
            if "process ended" in json.loads(line).get("error", ""):
                return f"the model's process ended: {line[:200]!r}"
    return None


async def run(
    cases: range, say: Any = None, *, safetensors: bool = False
) -> tuple[Counter[int], list[str], int]:
    """Counts of statuses, what went wrong, and how often the model's process ended. The model is a GGUF, or a folder
    with safetensors."""
    from serve_running import tiny_store

    from phikit.serve.app import create_app
    from phikit.serve.settings import Settings

    statuses: Counter[int] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        log = io.StringIO()
        store = tiny_store(Path(folder), safetensors=safetensors)
        tiny = store.find("tiny")
        app = create_app(store, Settings(threads=1, parallel=2, context=96, body_time=5.0), log)
        try:
            for number in cases:
                store.remember(tiny.name, tiny.manifest)  # a case may have deleted it
                try:
                    status, kind, body = await ask(app, *case(number))
                    why = wrong(number, status, kind, body)
                except Exception as e:
                    status, why = 0, f"{type(e).__name__}: {e}"
                statuses[status] += 1
                if why:
                    faults.append(f"case {number} {case(number)[:2]}: {why}; body {case(number)[3][:300]!r}")
                if number % 500 == 0:
                    log.seek(0)
                    log.truncate()
                    if say:
                        say(f"{number} cases, {len(faults)} faults, {dict(sorted(statuses.items()))}")
            status, _, body = await ask(
                app,
                "POST",
                "/api/generate",
                {"host": "localhost"},
                json.dumps({"model": "tiny", "prompt": "The", "stream": False, "options": SHORT}).encode(),
            )
            if status != 200:
                faults.append(f"in the end the server answers {status}: {body[:200]!r}")
            return statuses, faults, app.state.pool.crashes
        finally:
            await app.state.pool.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--safetensors", action="store_true", help="the model is run by TorchEngine")
    a = parser.parse_args()
    begin = time.monotonic()
    cases = range(a.first, a.first + a.cases)
    statuses, faults, crashes = asyncio.run(
        run(cases, lambda line: print(line, flush=True), safetensors=a.safetensors)
    )
    for fault in faults[:50]:
        print(fault)
    print(
        json.dumps(
            {
                "name": "serve_fuzz",
                "model": "safetensors" if a.safetensors else "gguf",
                "cases": a.cases,
                "faults": len(faults),
                "crashes": crashes,
                "statuses": {str(k): v for k, v in sorted(statuses.items())},
                "seconds": round(time.monotonic() - begin, 1),
            }
        )
    )
    return bool(faults or crashes)


if __name__ == "__main__":
    sys.exit(main())
