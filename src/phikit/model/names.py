"""One table of tensor names: ours <-> Phi3ForCausalLM <-> GGUF arch phi3 (facts sections 1.3 and 1.4).

Outside, the rows of q, k, v are one tensor, and so are those of gate, up; inside they are separate. Row order
is the same everywhere (half-rotation RoPE on all sides), so that going out is a concatenation and coming in a
split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phikit.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from phikit.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Name:
    """One outside tensor. `ours` are the parameters whose rows it joins, in this order."""

    ours: tuple[str, ...]
    hf: str
    gguf: str


_EMBED = Name(("embed.weight",), "model.embed_tokens.weight", "token_embd.weight")
_NORM = Name(("norm.weight",), "model.norm.weight", "output_norm.weight")
_HEAD = Name(("head.weight",), "lm_head.weight", "output.weight")
_BLOCK = (
    Name(("attn_norm.weight",), "input_layernorm.weight", "attn_norm.weight"),
    Name(("attn.q.weight", "attn.k.weight", "attn.v.weight"), "self_attn.qkv_proj.weight", "attn_qkv.weight"),
    Name(("attn.o.weight",), "self_attn.o_proj.weight", "attn_output.weight"),
    Name(("mlp_norm.weight",), "post_attention_layernorm.weight", "ffn_norm.weight"),
    Name(("mlp.gate.weight", "mlp.up.weight"), "mlp.gate_up_proj.weight", "ffn_up.weight"),
    Name(("mlp.down.weight",), "mlp.down_proj.weight", "ffn_down.weight"),
)


def table(config: ModelConfig) -> list[Name]:
    """All tensors of a network in order: 243 for Phi-4. A tied network has no head of its own."""
    blocks = [
        Name(tuple(f"blocks.{i}.{o}" for o in n.ours), f"model.layers.{i}.{n.hf}", f"blk.{i}.{n.gguf}")
        for i in range(config.layers)
        for n in _BLOCK
    ]
    return [_EMBED, *blocks, _NORM, *([] if config.tied else [_HEAD])]


def fused(model: Transformer) -> Iterator[tuple[Name, torch.Tensor]]:
    """(name, outside tensor) of each row of the table; detached, copied only where rows are joined."""
    import torch

    parameters = dict(model.named_parameters())
    for name in table(model.config):
        parts = [parameters[o].detach() for o in name.ours]
        yield name, parts[0] if len(parts) == 1 else torch.cat(parts)
