"""Tokens per second and first token over HTTP: `phikit serve` against the llama.cpp server of xllamacpp.

Both are processes of their own on the same GGUF with the same context, slots and threads, asked in turns by the same
client over loopback HTTP (/v1/completions, streamed). Prompts are new in every round (English out of Python's own
help texts) and the same for both. Answers are greedy and end by their length or the model's own end; tokens are those
that the server counts. Beside its own work ours computes the log-probability of every token.

The bound of the ratio is about 1: both spend their time in the same matrix products of llama.cpp.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent))
from decode import interval

PAIRS = 30
PROMPT, CONTEXT, THREADS = 64, 512, 2  # characters of a prompt, tokens a slot
LENGTH = {1: 48, 4: 24, 16: 12}  # tokens of an answer, by clients
GOAL, TTFT_GOAL = 0.95, 0.005  # ratio; seconds
_PEER = """
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path, p.hostnames, p.port = sys.argv[1], ["127.0.0.1"], 0
p.n_ctx, p.n_parallel, p.kv_unified = int(sys.argv[2]) * int(sys.argv[3]), int(sys.argv[3]), False
p.cont_batching = True
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[4])
p.cache_ram_mib, p.ui, p.verbosity = 0, False, -1
s = x.Server(p)
print(s.listening_address, flush=True)
sys.stdin.read()
"""


@dataclass
class Round:
    """One server in one round: tokens per second, median first token over the clients in seconds, texts."""

    rate: float
    first: float
    texts: list[str]


@dataclass
class Result:
    clients: int
    ours: list[Round] = field(default_factory=list)
    peer: list[Round] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        low, ratio, high = interval([o.rate / p.rate for o, p in zip(self.ours, self.peer)])
        late_low, late, late_high = interval([o.first - p.first for o, p in zip(self.ours, self.peer)])
        pairs = [(a, b) for o, p in zip(self.ours, self.peer) for a, b in zip(o.texts, p.texts)]
        return {
            "clients": self.clients, "ours": round(statistics.median(o.rate for o in self.ours), 1),
            "peer": round(statistics.median(p.rate for p in self.peer), 1), "ratio": round(ratio, 3),
            "low": round(low, 3), "high": round(high, 3),
            "first_ours_ms": round(1e3 * statistics.median(o.first for o in self.ours), 1),
            "first_peer_ms": round(1e3 * statistics.median(p.first for p in self.peer), 1),
            "first_later_ms": round(1e3 * late, 1), "first_later_low_ms": round(1e3 * late_low, 1),
            "first_later_high_ms": round(1e3 * late_high, 1),
            "equal_texts": round(sum(a == b for a, b in pairs) / len(pairs), 4), "n": len(self.ours),
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--clients", type=int, nargs="+", choices=list(LENGTH), default=list(LENGTH))
    parser.add_argument("--model", help="a GGUF file (default: the embedded teacher)")
    a = parser.parse_args()
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # for both: the cores are shared with whatever else runs here
    from phikit.store.teacher import smollm2_path

    path = a.model or str(smollm2_path())
    rows: list[dict[str, Any]] = []
    for clients in a.clients:
        with ours(path, clients) as us, peer(path, clients) as them:
            rows.append(r := asyncio.run(measure(us, them, clients, a.pairs)).row())
        later = f"{r['first_later_ms']} ms [{r['first_later_low_ms']}, {r['first_later_high_ms']}]"
        print(
            f"{clients:2} clients: {r['ours']} tokens/s, llama.cpp server {r['peer']}: ratio {r['ratio']} [{r['low']}, "
            f"{r['high']}]; equal texts {r['equal_texts']:.1%}; first token {r['first_ours_ms']} ms, "
            f"{r['first_peer_ms']} ms, later by {later}",
            flush=True,
        )
    worst = min(rows, key=lambda r: r["low"])
    print(
        json.dumps({
            "name": "serve", "ours": worst["ours"], "peer": worst["peer"], "peer_name": "xllamacpp Server over HTTP",
            "peer_version": importlib.metadata.version("xllamacpp"), "unit": "tokens/s", "ratio": worst["ratio"],
            "low": worst["low"], "high": worst["high"], "agree": all(r["equal_texts"] >= 0.9 for r in rows),
            "n": a.pairs, "bound": 1.0,
            "goal": all(r["low"] >= GOAL and r["first_later_ms"] <= 1e3 * TTFT_GOAL for r in rows), "clients": rows,
        })
    )  # fmt: skip
    return 0


async def measure(us: tuple[str, str], them: tuple[str, str], clients: int, pairs: int) -> Result:
    """`pairs` rounds after one that is not counted. Who begins changes from round to round."""
    from pydoc_data.topics import topics

    result, rng, text = Result(clients), random.Random(clients), "\n".join(topics.values())
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
    command = [sys.executable, "-c", _PEER, path, str(CONTEXT), str(clients), str(THREADS)]
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
