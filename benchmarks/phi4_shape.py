"""Phi-4 at full shape on this machine: a random Q4_K_M of 14.66 B parameters, tokens/s against memory bandwidth.

Decoding one token reads every weight once (but for the embedding, of which it reads a row), so that tokens/s is at
most bandwidth / bytes read per token: that bound is measured in the same run. The weights are blocks of small
normal numbers, quantized once and tiled with an offset of their own for each tensor: the file is what a real one
is to llama.cpp, and what the model says is noise. Prefill is bounded by arithmetic, not by memory.

`ratio` is of wall time. `cpu_ratio` is of the CPU time that the threads had, for a machine that others use: then
the bandwidth of a short burst is not what a long run can get.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Block

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.engine.llama import LlamaEngine
from phikit.model.config import PHI4, ModelConfig
from phikit.model.gguf import ARCHITECTURE, phi3_keys
from phikit.model.gguf_stream import Planned, write_gguf
from phikit.model.quantize.types import encode, mix
from phikit.model.rows import PIECE, shapes
from phikit.text import cl100k

TYPE = "Q4_K_M"
POOL = 16_381  # blocks: a prime, so that neighbouring rows of a tensor are not the same blocks
CONTEXT = 1024
PROMPT, STEPS = 96, 24  # prompt tokens of a prefill, decoded tokens of a run
TEXT = (
    "The report says that data quality matters most; the model is trained on many kinds of synthetic data. "
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--file", type=Path, help="the GGUF: written if absent, kept; without it a temporary one"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=PHI4.layers, help="fewer than 40: a quick trial")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    config = replace(PHI4, layers=args.layers)
    with tempfile.TemporaryDirectory(prefix="phi4-") as folder:
        path = args.file or Path(folder) / "phi4.gguf"
        written = None
        if not path.is_file():
            written = write(path, config)
        row = measure(path, config, args.threads, args.runs)
    row["write_seconds"] = written
    print(json.dumps(row))
    return 0 if row["agree"] else 1


def write(path: Path, config: ModelConfig) -> float:
    """Writes the file tensor by tensor; returns the seconds."""
    begin = time.perf_counter()
    tensors = shapes(config)
    blocks = mix(tensors, TYPE)
    narrow = config.init_std / math.sqrt(2 * config.layers)  # of what is added to the residual stream
    pools: dict[tuple[Block, float], np.ndarray] = {}

    def pieces(name: str) -> Callable[[], Iterator[np.ndarray]]:
        shape, block = tensors[name], blocks[name]
        if block == Block.F32:
            return lambda: iter([np.ones(shape, np.float32)])
        std = narrow if name.endswith(("attn_output.weight", "ffn_down.weight")) else config.init_std
        return lambda: tiled(name, math.prod(shape), pool(block, std))

    def pool(block: Block, std: float) -> np.ndarray:
        if (block, std) not in pools:
            rng = np.random.default_rng(len(pools))
            weights = rng.normal(0, std, (POOL, 256)).astype(np.float32)
            pools[block, std] = encode(weights, block).reshape(POOL, -1)
        return pools[block, std]

    keys = phi3_keys(config, cl100k.build(), TYPE, "random weights of Phi-4's shape")
    write_gguf(path, ARCHITECTURE, keys, [Planned(n, s, blocks[n], pieces(n)) for n, s in tensors.items()])
    seconds = time.perf_counter() - begin
    size = path.stat().st_size
    print(f"wrote {config.parameters:,} parameters, {size / 1e9:.2f} GB in {seconds:.0f} s", flush=True)
    return round(seconds, 1)


def tiled(name: str, weights: int, pool: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of the pool over and over, from an offset that the tensor's name decides."""
    at = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") % POOL
    left, step = weights // 256, PIECE // 256
    while left:
        n = min(left, step)
        yield pool[(at + np.arange(n)) % POOL]
        at, left = at + n, left - n


def measure(path: Path, config: ModelConfig, threads: int, runs: int) -> dict[str, object]:
    begin = time.perf_counter()
    engine = LlamaEngine(path, context=CONTEXT, threads=threads)
    try:
        text = (TEXT * 40) + "".join(str(i) for i in range(400))
        tokens = engine.encode(text)
        generate(engine, tokens[:4], 1)  # the first read of the file is not the model's speed
        loading = time.perf_counter() - begin
        print(f"loaded, first token after {loading:.1f} s", flush=True)
        prefills, decodes, busy, bandwidths, cpu_bandwidths = [], [], [], [], []
        sure = True
        for run in range(runs):
            wall, cpu = bandwidth(threads)
            bandwidths.append(wall)
            cpu_bandwidths.append(cpu)
            # Every prompt is new: none is in the cache.
            start = cpu_seconds(engine.pid)
            short, *_ = generate(engine, tokens[9 * run + 1 :][:8], 1)
            prompt = tokens[9 * run + 2 :][:8]
            middle = cpu_seconds(engine.pid)
            long, said, logprobs = generate(engine, prompt, STEPS + 1)
            decodes.append(STEPS / (long - short))
            busy.append(STEPS * threads / (cpu_seconds(engine.pid) - 2 * middle + start))
            seconds, *_ = generate(engine, tokens[9 * run + 3 :][:PROMPT], 1)
            prefills.append(PROMPT / seconds)
            sure &= all(math.isfinite(x) and x <= 0 for x in logprobs)
            print(
                f"run {run + 1}: decode {decodes[-1]:.3f} tokens/s, prefill {prefills[-1]:.2f} tokens/s, "
                f"bandwidth {bandwidths[-1] / 1e9:.1f} GB/s", flush=True,
            )  # fmt: skip
        memory = memory_of(engine.pid)
        begin = time.perf_counter()
        score = engine.score([ScoreRequest(tuple(prompt), said)])[0]
        scoring = time.perf_counter() - begin
        sure &= abs(score.logprob - sum(logprobs)) < 0.1 * len(said)
        print(
            f"score {score.logprob:.3f}, sampled {sum(logprobs):.3f}; {len(tokens)} tokens encoded",
            flush=True,
        )
    finally:
        engine.close()
    # The embedding is a table: a token reads one row of it. Norms are small and counted.
    sizes, blocks = shapes(config), mix(shapes(config), TYPE)
    read = 0
    for name, shape in sizes.items():
        if name != "token_embd.weight":
            block, size = GGML_QUANT_SIZES[blocks[name]]
            read += math.prod(shape) // block * size
    bounds = [b / read for b in bandwidths]
    ratios = sorted(d / b for d, b in zip(decodes, bounds))
    cpu_ratio = statistics.median(busy) * read / max(cpu_bandwidths)
    return {
        "name": "phi4_shape", "ours": round(statistics.median(decodes), 4),
        "peer": round(statistics.median(bounds), 4), "peer_name": "memory bandwidth / bytes read per token",
        "peer_version": "", "unit": "tokens/s", "ratio": round(statistics.median(ratios), 4),
        "low": round(ratios[0], 4), "high": round(ratios[-1], 4), "agree": bool(sure), "n": runs,
        "bound": 1.0, "cpu_ratio": round(cpu_ratio, 4), "cpu_bandwidth_gb_s": round(max(cpu_bandwidths) / 1e9, 2),
        "bandwidth_gb_s": round(statistics.median(bandwidths) / 1e9, 2),
        "gb_per_token": round(read / 1e9, 3), "prefill_tokens_s": round(statistics.median(prefills), 3),
        "score_tokens_s": round((len(prompt) + len(said)) / scoring, 3),
        "parameters": config.parameters, "file_bytes": path.stat().st_size, "threads": threads,
        "first_token_s": round(loading, 1), "context": CONTEXT, **memory,
    }  # fmt: skip


def generate(
    engine: LlamaEngine, prompt: list[int], n: int
) -> tuple[float, tuple[int, ...], tuple[float, ...]]:
    """Seconds, tokens and log-probabilities of `n` sampled tokens."""
    begin = time.perf_counter()
    ((_, (done,)),) = engine.generate([GenRequest(tuple(prompt), n, temperature=1.0, seed=1)])
    seconds = time.perf_counter() - begin
    if len(done.tokens) != n:
        raise ValueError(f"the noise said an end token after {len(done.tokens)} tokens: take another seed")
    return seconds, done.tokens, done.logprobs


def bandwidth(threads: int) -> tuple[float, float]:
    """Bytes read per second, of wall time and of CPU time, by `threads` threads that each sum an array of 256 MB;
    best of 6 each."""
    import torch

    def read(array: torch.Tensor) -> float:
        begin = time.thread_time()
        array.sum()
        return time.thread_time() - begin

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    arrays = [torch.ones(1 << 26) for _ in range(threads)]
    wall, cpu = [], []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(6):
            begin = time.perf_counter()
            cpu.append(max(pool.map(read, arrays)))
            wall.append(time.perf_counter() - begin)
    torch.set_num_threads(before)
    size = sum(a.nbytes for a in arrays)
    return size / min(wall), size / min(cpu)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> dict[str, float]:
    """GB of the process: peak, and now its own and that of mapped files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {
        k: int(v.split()[0]) / 1e6 for k, _, v in (line.partition(":") for line in lines) if v.endswith("kB")
    }
    return {
        "peak_rss_gb": round(found["VmHWM"] * 1.024, 2), "own_gb": round(found["RssAnon"] * 1.024, 2),
        "mapped_gb": round(found["RssFile"] * 1.024, 2),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
