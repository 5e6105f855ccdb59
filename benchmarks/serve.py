"""Tokens per second and first token over HTTP: `phikit serve` against the llama.cpp server of xllamacpp.

Both are processes of their own on the same GGUF with the same context, slots and threads, asked in turns by the same
client over loopback HTTP (/v1/completions, streamed). Prompts are new in every round (English out of Python's own
help texts) and the same for both. Answers are greedy and end by their length or the model's own end; tokens are those
that the server counts. Beside its own work ours computes the log-probability of every token.

The bound of the ratio is about 1: both spend their time in the same matrix products of llama.cpp.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent))
from _turns import CONTEXT, THREADS, Result, Round, compare

PROMPT = 64  # characters
LENGTH = {1: 48, 4: 24, 16: 12}  # tokens of an answer, by clients
_PEER = """
import sys
sys.path.insert(0, sys.argv[1])
from _turns import llama_server
s = llama_server(sys.argv[2], int(sys.argv[3]), listen=True)
print(s.listening_address, flush=True)
sys.stdin.read()
"""


def main() -> int:
    peer = "xllamacpp Server over HTTP"
    return compare("serve", __doc__, measure, peer=peer, many="clients", lengths=LENGTH)


def measure(path: str, clients: int, pairs: int) -> Result:
    with ours(path, clients) as us, peer(path, clients) as them:
        return asyncio.run(rounds(us, them, clients, pairs))


async def rounds(us: tuple[str, str], them: tuple[str, str], clients: int, pairs: int) -> Result:
    """`pairs` rounds after one that is not counted. Who begins changes from round to round."""
    from pydoc_data.topics import topics

    result, rng, text = Result(), random.Random(clients), "\n".join(topics.values())
    # A connection for each request, for both: the peer closes idle ones.
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=300, limits=limits) as http:
        for number in range(pairs + 1):
            starts = [rng.randrange(len(text) - PROMPT) for _ in range(clients)]
            prompts = [text[at : at + PROMPT] for at in starts]
            order = (us, them) if number % 2 else (them, us)
            found = {server: await ask_all(http, server, prompts, LENGTH[clients]) for server in order}
            if number:
                result.ours.append(found[us])
                result.peer.append(found[them])
    return result


async def ask_all(http: httpx.AsyncClient, server: tuple[str, str], prompts: list[str], length: int) -> Round:
    begin = time.perf_counter()
    answers = await asyncio.gather(*(ask(http, server, p, length) for p in prompts))
    seconds = time.perf_counter() - begin
    return Round(
        sum(tokens for _, _, tokens in answers) / seconds,
        statistics.median(first for first, _, _ in answers),
        [text for _, text, _ in answers],
    )


async def ask(
    http: httpx.AsyncClient, server: tuple[str, str], prompt: str, length: int
) -> tuple[float, str, int]:
    """(seconds to the first text, text, tokens) of one streamed answer."""
    url, model = server
    body = {
        "model": model, "prompt": prompt, "max_tokens": length, "temperature": 0, "top_k": 1, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    begin, first, text, tokens = time.perf_counter(), 0.0, "", 0
    async with http.stream("POST", f"{url}/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"{url}: {response.status_code} {await response.aread()!r}")
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            value = json.loads(line[6:])
            for choice in value.get("choices") or ():
                if choice.get("text"):
                    first = first or time.perf_counter() - begin
                    text += choice["text"]
            if value.get("usage"):
                tokens = value["usage"]["completion_tokens"]
    return first, text, tokens


@contextmanager
def ours(path: str, clients: int) -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "phikit", "serve", "--model", path, "--port", "0", "--context", str(CONTEXT),
               "--parallel", str(clients), "--threads", str(THREADS), "--log", os.devnull]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().split()[2]
            model = httpx.get(f"{url}/api/tags", timeout=120).json()["models"][0]["name"]
            yield url, model
        finally:
            process.terminate()


@contextmanager
def peer(path: str, clients: int) -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-c", _PEER, str(Path(__file__).parent), path, str(clients)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip().rstrip("/"), "model"
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
