"""One table of tensor names: ours <-> Hugging Face <-> GGUF (facts sections 1.3 and 1.4).

Layout `phi3` (Phi3ForCausalLM, GGUF arch phi3): the rows of q, k, v are one tensor outside, and so are those of
gate, up; inside they are separate. Layout `llama` (LlamaForCausalLM, GGUF arch llama): separate outside too. Row
order is the same (half-rotation RoPE), so that going out is a concatenation and coming in a split; but for q and k
of GGUF arch llama, whose rows `model/gguf_read.py` puts back in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from phikit.model.config import ModelConfig

Layout = Literal["phi3", "llama"]


@dataclass(frozen=True, slots=True)
class Name:
    """One outside tensor. `ours` are the parameters whose rows it joins, in this order."""

    ours: tuple[str, ...]
    hf: str
    gguf: str


_EMBED = Name(("embed.weight",), "model.embed_tokens.weight", "token_embd.weight")
_NORM = Name(("norm.weight",), "model.norm.weight", "output_norm.weight")
_HEAD = Name(("head.weight",), "lm_head.weight", "output.weight")
_ATTN_NORM = Name(("attn_norm.weight",), "input_layernorm.weight", "attn_norm.weight")
_MLP_NORM = Name(("mlp_norm.weight",), "post_attention_layernorm.weight", "ffn_norm.weight")
_OUT = Name(("attn.o.weight",), "self_attn.o_proj.weight", "attn_output.weight")
_DOWN = Name(("mlp.down.weight",), "mlp.down_proj.weight", "ffn_down.weight")
_BLOCKS: dict[Layout, tuple[Name, ...]] = {
    "phi3": (
        _ATTN_NORM,
        Name(
            ("attn.q.weight", "attn.k.weight", "attn.v.weight"),
            "self_attn.qkv_proj.weight",
            "attn_qkv.weight",
        ),
        _OUT,
        _MLP_NORM,
        Name(("mlp.gate.weight", "mlp.up.weight"), "mlp.gate_up_proj.weight", "ffn_up.weight"),
        _DOWN,
    ),
    "llama": (
        _ATTN_NORM,
        *(Name((f"attn.{x}.weight",), f"self_attn.{x}_proj.weight", f"attn_{x}.weight") for x in "qkv"),
        _OUT,
        _MLP_NORM,
        *(Name((f"mlp.{x}.weight",), f"mlp.{x}_proj.weight", f"ffn_{x}.weight") for x in ("gate", "up")),
        _DOWN,
    ),
}


def table(config: ModelConfig, layout: Layout = "phi3") -> list[Name]:
    """All tensors of a network in order: 243 for Phi-4 in layout phi3. A tied network has no head of its own."""
    blocks = [
        Name(tuple(f"blocks.{i}.{o}" for o in n.ours), f"model.layers.{i}.{n.hf}", f"blk.{i}.{n.gguf}")
        for i in range(config.layers)
        for n in _BLOCKS[layout]
    ]
    return [_EMBED, *blocks, _NORM, *([] if config.tied else [_HEAD])]
