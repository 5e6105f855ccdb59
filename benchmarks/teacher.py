"""The teacher client against a bare load generator: requests a second at 1, 8 and 64 in flight.

Both ask the same loopback endpoint, an asyncio HTTP server in a process of its own that answers every request
after a fixed latency. The load generator keeps `k` connections busy with requests written beforehand and does
nothing with the answers; the teacher does all it does for every request: key, budget, log note, parsed answer, fsynced
log row. Bound: k / latency. Agreement: as many answers as requests, each the echo of its own question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _transformers import alternate, interval

from phikit.ask.backends import Pace
from phikit.ask.budget import Budget
from phikit.ask.teacher import Teacher
from phikit.engine.endpoint import Endpoint
from phikit.records.types import turns

GOAL = 0.95
IN_FLIGHT = (1, 8, 64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds the endpoint takes for an answer")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=8, help="requests for each one in flight")
    a = parser.parse_args()
    receiver, sender = multiprocessing.Pipe(False)
    server = multiprocessing.Process(target=serve, args=(a.latency, sender), daemon=True)
    server.start()
    port = receiver.recv()
    rows, agree = [], True
    with tempfile.TemporaryDirectory() as folder:
        for k in IN_FLIGHT:
            n = k * a.rounds
            number = iter(range(10**6))

            def ours(_: int, k=k, n=n, number=number) -> tuple[float, Any]:
                return asked(port, Path(folder) / f"{k}-{next(number)}", k, n)

            pairs = alternate(ours, lambda _, k=k, n=n: asyncio.run(bare(port, k, n)), a.pairs)
            low, ratio, high = interval([p[0] / o[0] for o, p in pairs])
            rate, peer = (n / sorted(x[i][0] for x in pairs)[len(pairs) // 2] for i in (0, 1))
            agree = agree and all(o[1] == n and p[1] == n for o, p in pairs)
            rows.append(
                {
                    "in_flight": k,
                    "ours": round(rate, 1),
                    "peer": round(peer, 1),
                    "bound": round(k / a.latency, 1),
                }
            )
            rows[-1] |= {
                "ratio": round(ratio, 3),
                "low": round(low, 3),
                "high": round(high, 3),
                "n": len(pairs),
            }
            print(
                f"{k} in flight: {rate:.1f} requests/s, bare {peer:.1f}, bound {k / a.latency:.0f}; ratio {ratio:.3f} "
                f"[{low:.3f}, {high:.3f}]"
            )
    server.terminate()
    worst = min(rows, key=lambda r: r["low"])
    out = {
        "name": "teacher", "ours": worst["ours"], "peer": worst["peer"], "peer_name": "asyncio load generator",
        "peer_version": platform.python_version(), "unit": "requests/s", "ratio": worst["ratio"],
        "low": worst["low"], "high": worst["high"], "bound": worst["bound"], "agree": agree, "n": worst["n"],
        "latency": a.latency, "cases": rows, "goal": worst["low"] >= GOAL,
    }  # fmt: skip
    print(json.dumps(out))
    return 0 if agree else 1


def asked(port: int, folder: Path, k: int, n: int) -> tuple[float, int]:
    """(seconds, right answers) of n questions through the teacher."""
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", "m")
    names = [f"question {i} of {folder.name}" for i in range(n)]
    with Teacher(endpoint, folder, budget=Budget(tokens=10**9), pace=Pace(concurrency=k)) as teacher:

        async def flow() -> tuple[float, int]:
            teacher.backend.gate.limit = k  # its full width at once: the peer has no slow start either  # type: ignore
            todo, right = iter(names), 0

            async def worker() -> None:
                nonlocal right
                for name in todo:
                    (answer,) = await teacher.chat(turns(("user", name)), max_tokens=64)
                    right += answer.text == f"echo {name}"

            begin = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(k)))
            return time.perf_counter() - begin, right

        return teacher.run(flow())


async def bare(port: int, k: int, n: int) -> tuple[float, int]:
    """(seconds, answers) of n requests over k connections, one after another on each."""
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 64}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    left, done = n, 0

    async def worker() -> None:
        nonlocal left, done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while left:
            left -= 1
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(answer.split(b"content-length: ")[1].split(b"\r\n")[0]))
            done += 1
        writer.close()
        await writer.wait_closed()

    begin = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(k)))
    return time.perf_counter() - begin, done


def serve(latency: float, port: Any) -> None:
    """The endpoint: a real HTTP server that answers after `latency` seconds with an echo of the question."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                asked = json.loads(await reader.readexactly(size))
                due = asyncio.get_running_loop().time() + latency
                message = {"role": "assistant", "content": f"echo {asked['messages'][-1]['content']}"}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                usage = {"prompt_tokens": 12, "completion_tokens": 8}
                data = json.dumps({"choices": [choice], "usage": usage}).encode()
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                kind = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                writer.write(f"{kind}content-length: {len(data)}\r\n\r\n".encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


if __name__ == "__main__":
    sys.exit(main())
