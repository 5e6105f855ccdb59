"""Tokens per second and time to the first token of a GGUF, against the llama.cpp server of xllamacpp.

Both run the same file with the same context, cache types, threads and slots, in turns in one call. The peer
runs in this process and is called as its own API intends; our engine runs in its child process. Prompts are
new in every round (English out of Python's own help texts) and the same for both, so that neither finds them in
its cache. Answers are greedy and of a fixed length: the peer is told to ignore the end of text, ours has no stop
ids. Ours reports the log-probability of every token, which the peer is not asked for. Beside wall time stands the
ratio of CPU seconds, which a busy machine disturbs less.

The bound of the ratio is about 1: both spend their time in the same matrix products of llama.cpp.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAIRS = 30
PROMPT, CONTEXT, THREADS = 16, 512, 2  # tokens, tokens a slot
LENGTH = {1: 48, 16: 12}  # tokens of an answer, by streams
TTFT_TOKENS = 2
GOAL, TTFT_GOAL = 0.95, 0.005  # ratio; seconds


@dataclass
class Round:
    """Seconds of one engine in one round, and its texts. `cpu`: of the counted work, all threads and processes."""

    seconds: float
    cpu: float
    first: float  # median over the streams
    texts: list[str]


@dataclass
class Result:
    streams: int
    ours: list[Round] = field(default_factory=list)
    peer: list[Round] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        tokens = self.streams * LENGTH[self.streams]
        low, ratio, high = interval([p.seconds / o.seconds for o, p in zip(self.ours, self.peer)])
        late_low, late, late_high = interval([o.first - p.first for o, p in zip(self.ours, self.peer)])
        pairs = [(a, b) for o, p in zip(self.ours, self.peer) for a, b in zip(o.texts, p.texts)]
        return {
            "streams": self.streams,
            "ours": round(tokens / statistics.median(o.seconds for o in self.ours), 1),
            "peer": round(tokens / statistics.median(p.seconds for p in self.peer), 1),
            "ratio": round(ratio, 3), "low": round(low, 3), "high": round(high, 3),
            "cpu_ratio": round(statistics.median(p.cpu / o.cpu for o, p in zip(self.ours, self.peer)), 3),
            "first_ours_ms": round(1e3 * statistics.median(o.first for o in self.ours), 1),
            "first_peer_ms": round(1e3 * statistics.median(p.first for p in self.peer), 1),
            "first_later_ms": round(1e3 * late, 1),
            "first_later_low_ms": round(1e3 * late_low, 1), "first_later_high_ms": round(1e3 * late_high, 1),
            "equal_texts": round(sum(a == b for a, b in pairs) / len(pairs), 4),
            "n": len(self.ours),
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--streams", type=int, nargs="+", choices=list(LENGTH), default=list(LENGTH))
    parser.add_argument("--model", help="a GGUF file (default: the embedded teacher)")
    arguments = parser.parse_args()
    # Before llama.cpp's OpenMP is loaded, for both: the cores are shared with whatever else runs here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from phikit.store.teacher import smollm2_path

    path = arguments.model or str(smollm2_path())
    rows: list[dict[str, Any]] = []
    for streams in arguments.streams:
        rows.append(r := measure(path, streams, arguments.pairs).row())
        later = f"{r['first_later_ms']} ms [{r['first_later_low_ms']}, {r['first_later_high_ms']}]"
        print(
            f"{streams:2} streams: {r['ours']} tokens/s, llama.cpp server {r['peer']}: ratio {r['ratio']} "
            f"[{r['low']}, {r['high']}], CPU {r['cpu_ratio']}; equal texts {r['equal_texts']:.1%}; "
            f"first token {r['first_ours_ms']} ms, {r['first_peer_ms']} ms, later by {later}",
            flush=True,
        )
    worst = min(rows, key=lambda r: r["low"])
    print(
        json.dumps({
            "name": "decode", "ours": worst["ours"], "peer": worst["peer"],
            "peer_name": "xllamacpp Server.handle_completions",
            "peer_version": importlib.metadata.version("xllamacpp"),
            "unit": "tokens/s", "ratio": worst["ratio"], "low": worst["low"], "high": worst["high"],
            "agree": all(r["equal_texts"] >= 0.9 for r in rows), "n": arguments.pairs, "bound": 1.0,
            "goal": all(r["low"] >= GOAL and r["first_later_ms"] <= 1e3 * TTFT_GOAL for r in rows),
            "streams": rows,
        })
    )  # fmt: skip
    return 0


def measure(path: str, streams: int, pairs: int) -> Result:
    """`pairs` rounds after one that is not counted. Who begins changes from round to round."""
    from pydoc_data.topics import topics

    from phikit.engine.llama import LlamaEngine

    result, rng = Result(streams), random.Random(streams)
    ours = LlamaEngine(path, context=CONTEXT, parallel=streams, threads=THREADS)  # type: ignore[arg-type]
    text = ours.encode("\n".join(topics.values()))
    engines = {run_ours: ours, run_peer: server(path, streams)}
    try:
        for number in range(pairs + 1):
            starts = [rng.randrange(len(text) - PROMPT) for _ in range(2 * streams)]
            cut = [[1, *text[at : at + PROMPT - 1]] for at in starts]
            prompts, others = cut[:streams], cut[streams:]
            first, second = (run_ours, run_peer) if number % 2 else (run_peer, run_ours)
            rounds = {run: run(engines[run], prompts, others) for run in (first, second)}
            if number:
                result.ours.append(rounds[run_ours])
                result.peer.append(rounds[run_peer])
    finally:
        ours.close()
    return result


def run_ours(engine: Any, prompts: Sequence[list[int]], others: Sequence[list[int]]) -> Round:
    from phikit.engine.base import GenRequest

    length = LENGTH[len(prompts)]
    begin, cpu = time.perf_counter(), time.process_time() + _cpu_of(engine.pid)
    found = dict(engine.generate([GenRequest(tuple(p), length, temperature=0.0) for p in prompts]))
    seconds, cpu = time.perf_counter() - begin, time.process_time() + _cpu_of(engine.pid) - cpu

    def first(prompt: list[int]) -> float:
        begin, first = time.perf_counter(), 0.0
        for _ in engine.stream(GenRequest(tuple(prompt), TTFT_TOKENS, temperature=0.0)):
            first = first or time.perf_counter() - begin
        return first

    texts = [found[i][0].text for i in range(len(prompts))]
    return Round(seconds, cpu, statistics.median(together(first, others)), texts)


def run_peer(server: Any, prompts: Sequence[list[int]], others: Sequence[list[int]]) -> Round:
    length = LENGTH[len(prompts)]
    # Greedy by the shortest chain of samplers there is.
    options = {
        "temperature": 0.0,
        "samplers": ["top_k"],
        "top_k": 1,
        "ignore_eos": True,
        "cache_prompt": True,
    }
    begin, cpu = time.perf_counter(), time.process_time()
    reply = server.handle_completions({"prompt": list(prompts), "max_tokens": length, **options})
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu

    def first(prompt: list[int]) -> float:
        begin, first = time.perf_counter(), 0.0

        def chunk(_: Any) -> None:
            nonlocal first
            first = first or time.perf_counter() - begin

        body = {"prompt": prompt, "max_tokens": TTFT_TOKENS, "stream": True, **options}
        server.handle_completions(body, chunk)
        return first

    texts = [c["text"] for c in sorted(reply["choices"], key=lambda c: c["index"])]
    return Round(seconds, cpu, statistics.median(together(first, others)), texts)


def _cpu_of(pid: int) -> float:
    """CPU seconds of another process, to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def together(call: Any, prompts: Sequence[list[int]]) -> list[float]:
    """The results of concurrent calls, each in a thread of its own."""
    found = [0.0] * len(prompts)

    def work(i: int) -> None:
        found[i] = call(prompts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return found


def server(path: str, streams: int) -> Any:
    """llama.cpp's server in this process at its best setting: a slot for each stream, continuous batching, no
    second copy of prompts in memory."""
    import xllamacpp

    x: Any = xllamacpp
    params = x.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.kv_unified = CONTEXT * streams, streams, False
    params.cont_batching = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.cache_ram_mib = 0
    params.ui = False
    params.verbosity = -1
    return x.Server(params)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and the order statistics around it that hold the true median with at least 95 %."""
    ordered, n = sorted(values), len(values)
    low, mass = 0, 0.0
    while mass + math.comb(n, low) / 2**n <= 0.025:
        mass += math.comb(n, low) / 2**n
        low += 1
    low = max(low - 1, 0)
    return ordered[low], statistics.median(ordered), ordered[n - 1 - low]


if __name__ == "__main__":
    sys.exit(main())
