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

import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _turns import CONTEXT, THREADS, Result, Round, compare, llama_server

PROMPT = 16  # tokens
LENGTH = {1: 48, 16: 12}  # tokens of an answer, by streams
TTFT_TOKENS = 2


def main() -> int:
    peer = "xllamacpp Server.handle_completions"
    return compare("decode", __doc__, measure, peer=peer, many="streams", lengths=LENGTH)


def measure(path: str, streams: int, pairs: int) -> Result:
    """`pairs` rounds after one that is not counted. Who begins changes from round to round."""
    from pydoc_data.topics import topics

    from phikit.engine.llama import LlamaEngine

    result, rng = Result(), random.Random(streams)
    ours = LlamaEngine(path, context=CONTEXT, parallel=streams, threads=THREADS)  # type: ignore[arg-type]
    text = ours.encode("\n".join(topics.values()))
    engines = {run_ours: ours, run_peer: llama_server(path, streams)}
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
    return Round(len(prompts) * length / seconds, statistics.median(together(first, others)), texts, cpu)


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
    return Round(len(prompts) * length / seconds, statistics.median(together(first, others)), texts, cpu)


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


if __name__ == "__main__":
    sys.exit(main())
