"""Many clients for some minutes: whole answers that are compared, streams that are left, junk, and a model's process
that is killed now and then. Nothing may hang, no answer may be another than alone, and memory must stay flat.

    python tests/security/serve_soak.py --clients 200 --seconds 300
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit"), str(HERE.parents[1] / "src")]

from serve_requests import case  # noqa: E402

QUESTIONS = [
    "The user asked",
    "Every good story",
    "def f(x):",
    "It's 7, isn't it",
    "a middle and an end",
    "3 + 4?",
]
LENGTH, GROWTH = 12, 1.10  # tokens; memory of the last third over that of the first


class Soak:
    """`patience`: seconds after which a client that has no answer counts as hanging."""

    def __init__(self, url: str, seconds: float, patience: float) -> None:
        self.url, self.end, self.patience = url, time.monotonic() + seconds, patience
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.right: dict[str, str] = {}
        self.slowest = 0.0

    async def learn(self, http: httpx.AsyncClient) -> None:
        for question in QUESTIONS:
            self.right[question] = (await http.post("/api/generate", json=ask(question))).json()["response"]

    async def client(self, number: int, http: httpx.AsyncClient) -> None:
        r = random.Random(number)
        while time.monotonic() < self.end:
            begin = time.monotonic()
            try:
                await asyncio.wait_for(self.act(r, http), self.patience)
            except TimeoutError:
                self.wrong.append(f"client {number}: no answer within {self.patience} s")
            except httpx.HTTPError as e:
                self.counts[f"{type(e).__name__}"] += 1
            self.slowest = max(self.slowest, time.monotonic() - begin)

    async def act(self, r: random.Random, http: httpx.AsyncClient) -> None:
        chance, question = r.random(), r.choice(QUESTIONS)
        if chance < 0.65:
            answer = await http.post("/api/generate", json=ask(question))
            if answer.status_code == 200:
                self.counts["answers"] += 1
                if answer.json()["response"] != self.right[question]:
                    self.wrong.append(
                        f"{question!r}: {answer.json()['response']!r}, alone {self.right[question]!r}"
                    )
            elif answer.status_code in (500, 503):
                self.counts[f"status {answer.status_code}"] += 1
                if "process ended" not in answer.text and "busy" not in answer.text:
                    self.wrong.append(answer.text[:200])
            else:
                self.wrong.append(f"{answer.status_code} {answer.text[:200]}")
        elif chance < 0.85:
            body = {**ask(question), "stream": True, "options": {"num_predict": 200, "temperature": 1.0}}
            async with http.stream("POST", "/api/generate", json=body) as response:
                lines = response.aiter_lines()
                for _ in range(r.randrange(5)):
                    await anext(lines, None)
            self.counts["left"] += 1
        else:
            method, path, headers, body = case(r.randrange(1 << 40))
            if path.startswith(
                ("/api/create", "/api/delete", "/api/copy", "/api/pull")
            ) or "keep_alive" in str(body):
                return
            headers.pop("content-length", None)
            path = "".join(c for c in path if c.isprintable() and c.isascii()) or "/"
            answer = await http.request(method, path.replace("%", ""), headers=headers, content=body)
            self.counts[f"junk {answer.status_code // 100}xx"] += 1


def ask(question: str) -> dict[str, Any]:
    return {
        "model": "tiny",
        "prompt": question,
        "stream": False,
        "options": {"num_predict": LENGTH, "temperature": 0},
    }


def children(pid: int) -> list[int]:
    """Processes of a server that run a model."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (
                int((path / "stat").read_text().rpartition(")")[2].split()[1]) == pid
                and "llama_worker" in (path / "cmdline").read_text()
            ):
                found.append(int(path.name))
        except (OSError, IndexError, ValueError):
            continue
    return found


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


async def watch(soak: Soak, pid: int, every: float) -> tuple[list[int], int]:
    """Memory of the server by the second, and how many model processes were killed."""
    memory, kills, last = [], 0, time.monotonic()
    while time.monotonic() < soak.end:
        await asyncio.sleep(1)
        memory.append(resident(pid))
        if time.monotonic() - last > every:
            last = time.monotonic()
            for child in children(pid):
                os.kill(child, signal.SIGKILL)
                kills += 1
    return memory, kills


async def run(a: argparse.Namespace, url: str, pid: int) -> dict[str, Any]:
    clients, seconds = a.clients, a.seconds
    limits = httpx.Limits(max_connections=clients + 10, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=a.patience, limits=limits) as http:
        soak = Soak(url, seconds, a.patience)
        await soak.learn(http)
        watching = asyncio.create_task(watch(soak, pid, a.kill_every))
        await asyncio.gather(*(soak.client(i, http) for i in range(clients)))
        memory, kills = await watching
        after = await http.post("/api/generate", json=ask(QUESTIONS[0]))
        third = max(len(memory) // 3, 1)
        first, last = statistics.median(memory[:third]), statistics.median(memory[-third:])
        return {
            "name": "serve_soak", "clients": clients, "seconds": seconds, "counts": dict(soak.counts), "kills": kills,
            "wrong": soak.wrong[:20], "slowest_s": round(soak.slowest, 1), "answers_after": after.status_code,
            "memory_first_mb": round(first / 1e6, 1), "memory_last_mb": round(last / 1e6, 1),
            "flat": last <= GROWTH * first, "open_files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        }  # fmt: skip


def main() -> int:
    from tiny_gguf import write_tiny

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--kill-every", type=float, default=40)
    parser.add_argument("--patience", type=float, default=120)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder) / "tiny.gguf")
        environment = {**os.environ, "PHIKIT_MODELS": f"{folder}/models", "OLLAMA_MODELS": folder}
        command = [sys.executable, "-m", "phikit", "serve", "--model", f"{folder}/tiny.gguf", "--port", "0"]
        command += ["--parallel", "16", "--threads", "1", "--log", f"{folder}/log"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            try:
                assert process.stdout
                url = process.stdout.readline().split()[2]
                found = asyncio.run(run(a, url, process.pid))
            finally:
                process.terminate()
        lines = (Path(folder) / "log").read_text().splitlines()
        found["log_lines"] = len([json.loads(line) for line in lines])
    print(json.dumps(found))
    return bool(found["wrong"] or not found["flat"] or found["answers_after"] != 200)


if __name__ == "__main__":
    sys.exit(main())
