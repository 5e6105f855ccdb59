"""Quantizers against llama.cpp's own: equal bytes, weights/s on one thread; and what each type costs a model.

Theory gives no bound here: both do the same arithmetic (the same search, the same order of sums), llama.cpp in
compiled loops over one block, ours in numpy over 256 blocks at a time. A network of width 512 is trained for about
a minute on Python's standard library and written in every type: KL divergence from the source must fall from
Q4_K_M over Q5_K_M and Q6_K to Q8_0, and llama.cpp has to compute what the dequantized weights give in torch.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Block

from phikit.model.config import ModelConfig
from phikit.model.quantize.types import encode

PAIRS = 10
# The median of 10 lies between these order statistics (from 0) with 97.9 % confidence.
LOW, HIGH = 1, 8
ROWS, WIDTH = 256, 5120  # of a measured tensor: Phi-4's rows
CONFIG = ModelConfig(1024, 512, 3, 8, 4, 1024, 256, rope_base=250_000.0)
KINDS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
MODULES = ("argparse", "ast", "calendar", "codecs", "csv", "datetime", "difflib", "inspect", "json.decoder",
           "pathlib", "random", "shutil", "statistics", "tarfile", "textwrap", "typing", "zipfile")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="training steps; 0 leaves the network out")
    args = parser.parse_args()
    row = speed()
    if args.steps:
        with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
            row |= cost(Path(folder), args.steps)
        row["agree"] = bool(row["agree"] and row["monotonic"] and row["llama_cpp_mean_difference"] < 0.05)
    print(json.dumps(row))
    return 0 if row["agree"] else 1


def speed() -> dict[str, Any]:
    import xllamacpp

    so = next(iter(Path(xllamacpp.__file__).parent.glob("*.so")))
    function = ctypes.CDLL(str(so)).ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        *[ctypes.c_void_p] * 2,
    ]
    x = np.random.default_rng(0).normal(0, 0.02, (ROWS, WIDTH)).astype(np.float32)
    rates: dict[str, float] = {}
    ratios: dict[str, list[float]] = {}
    agree = True
    for block in (Block.Q4_K, Block.Q5_K, Block.Q6_K, Block.Q8_0):
        weights, size = GGML_QUANT_SIZES[block]
        theirs = np.empty(x.size // weights * size, np.uint8)
        ours_s, peer_s = [], []
        for _ in range(PAIRS):
            begin = time.process_time()  # CPU time: others may use the cores
            function(int(block), x.ctypes.data, theirs.ctypes.data, 0, ROWS, WIDTH, None, None)
            middle = time.process_time()
            ours = encode(x, block)
            ours_s.append(time.process_time() - middle)
            peer_s.append(middle - begin)
            agree &= np.array_equal(ours.reshape(-1), theirs)
        ratios[block.name] = sorted(p / o for p, o in zip(peer_s, ours_s))
        rates[block.name] = x.size / statistics.median(ours_s) / 1e6
        rates[f"{block.name} llama.cpp"] = x.size / statistics.median(peer_s) / 1e6
        print(
            f"{block.name}: {rates[block.name]:.1f} M weights/s, llama.cpp "
            f"{rates[block.name + ' llama.cpp']:.1f}, ratio {statistics.median(ratios[block.name]):.2f}", flush=True,
        )  # fmt: skip
    main_ = ratios["Q4_K"]
    return {
        "name": "quantize", "ours": round(rates["Q4_K"], 2), "peer": round(rates["Q4_K llama.cpp"], 2),
        "peer_name": "ggml_quantize_chunk", "peer_version": getattr(xllamacpp, "__version__", ""),
        "unit": "M weights/s (Q4_K, CPU time)", "ratio": round(statistics.median(main_), 3),
        "low": round(main_[LOW], 3), "high": round(main_[HIGH], 3), "agree": bool(agree), "n": PAIRS,
        "ratios": {k: round(statistics.median(v), 3) for k, v in ratios.items()},
    }  # fmt: skip


def cost(folder: Path, steps: int) -> dict[str, Any]:
    """Trains, quantizes, compares."""
    from phikit.model.hf import save_hf
    from phikit.recipe.weights import quantize, show_quantized

    model, tokenizer, held_out = train(steps)
    save_hf(model, tokenizer, folder / "hf")
    found = {}
    for kind in KINDS:
        row = quantize(
            str(folder / "hf"), kind, folder / f"{kind}.gguf", text=held_out, tokens=4096, threads=1
        )
        print("\n".join(show_quantized(row)).replace(str(folder), ""), flush=True)
        found[kind] = row
    kl = [found[k]["kl"]["value"] for k in KINDS]
    differences = [llama_difference(folder / f"{k}.gguf", held_out) for k in KINDS]
    print(
        "mean |log p(llama.cpp) - log p(dequantized, torch)|:", [round(d, 4) for d in differences], flush=True
    )
    return {
        "monotonic": kl == sorted(kl) and kl[0] > 0, "kl": {k: found[k]["kl"]["value"] for k in KINDS},
        "perplexity": {"source": found["Q8_0"]["source_perplexity"]} | {k: found[k]["perplexity"] for k in KINDS},
        "same_top": {k: found[k]["same_top"]["value"] for k in KINDS},
        "bits_per_weight": {k: round(found[k]["bits_per_weight"], 3) for k in KINDS},
        "llama_cpp_mean_difference": max(differences),
    }  # fmt: skip


def train(steps: int) -> tuple[Any, Any, str]:
    """A network, its tokenizer and a text that it has not seen."""
    import importlib
    import inspect

    import torch

    from phikit.model.logprob import token_logprobs
    from phikit.model.transformer import build
    from phikit.text.tokenizer import Tokenizer

    torch.set_num_threads(1)
    *seen, last = (inspect.getsource(importlib.import_module(m)) for m in MODULES)
    tokenizer = Tokenizer.train(seen, CONFIG.vocab)
    ids = torch.tensor(tokenizer.encode("\n".join(seen)))
    model = build(CONFIG, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(0)
    begin = time.perf_counter()
    loss = torch.zeros(())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        at = torch.randint(0, len(ids) - 129, (4,), generator=generator).tolist()
        batch = torch.stack([ids[i : i + 129] for i in at])
        hidden = model(batch[:, :-1], torch.arange(128)[None], None).reshape(-1, CONFIG.width)
        loss = -token_logprobs(hidden, model.head_weight, batch[:, 1:].reshape(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(
        f"trained {CONFIG.parameters:,} parameters for {steps} steps in {time.perf_counter() - begin:.0f} s, "
        f"loss {loss.item():.2f}", flush=True,
    )  # fmt: skip
    return model.eval(), tokenizer, last


def llama_difference(path: Path, text: str) -> float:
    """Mean difference of log p per token between llama.cpp and the dequantized weights in torch; llama.cpp also
    generates from the file."""
    import torch

    from phikit.engine.base import GenRequest, ScoreRequest
    from phikit.engine.llama import LlamaEngine
    from phikit.model.gguf_read import load_gguf

    model, config = load_gguf(path)
    engine = LlamaEngine(path, threads=1)
    try:
        tokens = engine.encode(text)[: config.context]
        requests = [ScoreRequest(tuple(tokens[:i]), (tokens[i],)) for i in range(1, len(tokens))]
        theirs = torch.tensor([s.logprob for s in engine.score(requests)])
        ((_, (said,)),) = engine.generate([GenRequest(tuple(tokens[:32]), 16, temperature=0.0)])
    finally:
        engine.close()
    print(f"{path.stem}, greedy: {said.text!r}", flush=True)
    with torch.no_grad():
        hidden = model(torch.tensor([tokens[:-1]]), torch.arange(len(tokens) - 1)[None], None)[0]
        logprobs = torch.log_softmax(hidden @ model.head_weight.T, -1)
    ours = logprobs[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
    return float((ours - theirs).abs().mean())


if __name__ == "__main__":
    sys.exit(main())
