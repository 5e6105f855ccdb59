"""The child process of LlamaEngine: JSON lines on stdin and stdout, llama.cpp inside.

An assert in ggml aborts this process, not its parent. The embedded llama.cpp server listens on a unix socket
in a private folder only; this module asks it for tokenization there and calls completions in process.

    {"id": 1, "op": "complete", "body": {...}, "until": [ids]}   -> {"id": 1, "result": {...}}
    {"id": 2, "op": "tokenize", "text": "...", "special": false} -> {"id": 2, "result": [ids]}
    {"id": 3, "op": "detokenize", "ids": [...]}                  -> {"id": 3, "result": "text"}
    {"op": "cancel", "ids": [1]}                                 (only what has not begun)

A failure is answered with {"id": 1, "error": "..."}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Worker:
    """One loaded model. `parallel` completions run at once, the rest wait in order."""

    def __init__(self, model: str, context: int, parallel: int, threads: int) -> None:
        # Set before llama.cpp loads OpenMP: waiting threads must not spin, the cores are shared.
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        import httpx
        import xllamacpp

        llama: Any = xllamacpp  # its names come from a compiled module without stubs

        self.folder = tempfile.TemporaryDirectory(prefix="phikit-")
        socket = os.path.join(self.folder.name, "s.sock")
        params = llama.CommonParams()
        params.model.path = model
        params.n_ctx = context * parallel  # llama.cpp divides it by the slots
        params.n_parallel = parallel
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.hostnames = [socket]
        params.cache_ram_mib = 0  # prompts are cached in their slots; a second cache only takes memory
        params.ui = False
        params.verbosity = -1
        self.server = llama.Server(params)
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=socket), base_url="http://worker", timeout=None, trust_env=False
        )
        self.pool = ThreadPoolExecutor(parallel)
        self.light = ThreadPoolExecutor(1)  # tokenization never waits behind completions

    def answer(self, request: dict[str, Any]) -> Any:
        if request["op"] == "complete":
            return self.complete(request["body"], frozenset(request.get("until", ())))
        if request["op"] == "tokenize":
            body = {"content": request["text"], "add_special": False, "parse_special": request["special"]}
            return self.post("/tokenize", body)["tokens"]
        if request["op"] == "detokenize":
            return self.post("/detokenize", {"tokens": request["ids"]})["content"]
        raise ValueError(f"unknown op {request['op']!r}")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        reply = self.http.post(path, json=body)
        if reply.status_code != 200:
            raise ValueError(f"{path}: {reply.text[:500]}")
        return reply.json()

    def complete(self, body: dict[str, Any], until: frozenset[int]) -> dict[str, Any]:
        """One sample. `until`: ids that end it although llama.cpp does not know them as ends."""
        if not until:
            reply = _good(self.server.handle_completions(body))
            choice, usage = reply["choices"][0], reply["usage"]
            cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
            steps = choice["logprobs"]["content"]
            return {
                **_steps(steps),
                "text": choice["text"],
                "finish": choice["finish_reason"],
                "cached": cached,
            }
        return self.stream(body, until)

    def stream(self, body: dict[str, Any], until: frozenset[int]) -> dict[str, Any]:
        steps: list[dict[str, Any]] = []
        text: list[str] = []
        state: dict[str, Any] = {"finish": None, "cached": 0, "error": None}

        def take(chunk: Any) -> bool:
            if isinstance(chunk, dict) and "error" in chunk:
                state["error"] = chunk["error"]
                return True
            for part in chunk if isinstance(chunk, list) else [chunk]:
                usage = part.get("usage") or {}
                state["cached"] = usage.get("prompt_tokens_details", {}).get("cached_tokens", state["cached"])
                for choice in part.get("choices", ()):
                    text.append(choice.get("text") or "")
                    state["finish"] = choice.get("finish_reason") or state["finish"]
                    for step in (choice.get("logprobs") or {}).get("content", ()):
                        steps.append(step)
                        if step["id"] in until:
                            state["finish"] = "until"
                            return True
            return False

        options = {"include_usage": True}
        self.server.handle_completions({**body, "stream": True, "stream_options": options}, take)
        if state["error"]:
            raise ValueError(_message(state["error"]))
        return {**_steps(steps), "text": "".join(text), "finish": state["finish"], "cached": state["cached"]}


def _steps(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "tokens": [s["id"] for s in steps],
        "logprobs": [s["logprob"] for s in steps],
        "top": [s["top_logprobs"][0]["id"] if s.get("top_logprobs") else s["id"] for s in steps],
    }


def _good(reply: Any) -> dict[str, Any]:
    if "error" in reply:
        raise ValueError(_message(reply["error"]))
    return reply


def _message(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def main() -> None:
    """Reads requests until stdin closes (the parent ended), then exits at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes stdin
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what llama.cpp prints must not mix with the replies
    lock = threading.Lock()

    def say(reply: dict[str, Any]) -> None:
        with lock:
            out.write(json.dumps(reply) + "\n")
            out.flush()

    model, context, parallel, threads = sys.argv[1], *(int(a) for a in sys.argv[2:5])
    try:
        worker = Worker(model, context, parallel, threads)
    except Exception as e:
        say({"error": f"{type(e).__name__}: {e}"})
        return
    say({"ready": True})
    waiting: dict[int, Future[None]] = {}

    def work(request: dict[str, Any]) -> None:
        try:
            say({"id": request["id"], "result": worker.answer(request)})
        except Exception as e:
            say({"id": request["id"], "error": f"{e}"})

    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "cancel":
            for i in request["ids"]:
                if i in waiting:
                    waiting[i].cancel()
            continue
        pool = worker.pool if request["op"] == "complete" else worker.light
        i = request["id"]
        waiting[i] = future = pool.submit(work, request)
        future.add_done_callback(lambda _, i=i: waiting.pop(i, None))
    worker.folder.cleanup()
    # Running completions and llama.cpp's destructors are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
