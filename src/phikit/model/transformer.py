"""The Phi-4 network: pre-norm decoder, grouped-query attention, half-rotation RoPE, SwiGLU, no biases.

Same numbers as Hugging Face's Phi3ForCausalLM (facts section 1.3; tests/numerics). The projections q, k, v
and gate, up are separate here and fused by one name table on the way out (`model/hf.py`). This file knows no
parallelism, no loss and no tokenizer. Shapes: B batch, T time, D width, N heads, K kv heads, H head dim.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from phikit.model.attention import Ragged, attend, document_mask
from phikit.model.config import ModelConfig
from phikit.model.layout import Kernel


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * scaled.to(x.dtype)


def rope_table(positions: torch.Tensor, head_dim: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """cos, sin of shape positions.shape + [H], fp32; the two halves of a head rotate together (NeoX form)."""
    inverse = 1.0 / base ** (torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim)
    angle = positions[..., None].float() * inverse
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)


def rotate(x_BNTH: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x_BNTH.chunk(2, dim=-1)
    return x_BNTH * cos + torch.cat((-b, a), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.head_dim = c.head_dim
        self.q = nn.Linear(c.width, c.heads * c.head_dim, bias=False)
        self.k = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=False)
        self.v = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=False)
        self.o = nn.Linear(c.heads * c.head_dim, c.width, bias=False)

    def forward(self, x_BTD, rope, mask, read: torch.Tensor | None = None) -> torch.Tensor:
        """`read` [m]: the positions that ask, so that the outputs are [B, m, D]; without it all."""
        asking = x_BTD if read is None else x_BTD.index_select(1, read)
        q = self.q(asking).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        k = self.k(x_BTD).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        v = self.v(x_BTD).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
        cos, sin = rope
        q_rope = rope if read is None else (cos.index_select(2, read), sin.index_select(2, read))
        q, k = rotate(q, *q_rope).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        out = attend(q, k, v, mask)
        return self.o(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(c.width, c.ffn, bias=False)
        self.up = nn.Linear(c.width, c.ffn, bias=False)
        self.down = nn.Linear(c.ffn, c.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(c.width, c.norm_eps)
        self.attn = Attention(c)
        self.mlp_norm = RMSNorm(c.width, c.norm_eps)
        self.mlp = MLP(c)

    def forward(self, x, rope, mask, read: torch.Tensor | None = None) -> torch.Tensor:
        attended = self.attn(self.attn_norm(x), rope, mask, read)
        x = (x if read is None else x.index_select(1, read)) + attended
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """`forward` gives hidden states [B, T, D] after the final norm; the head is `head_weight` [V, D], applied
    by `model.logprob` so that [B, T, V] is never built. `kernel` is what attends packed documents on a GPU
    (None: a dense mask), `stream` the dtype of the residual stream (None: that of the embedding)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.kernel: Kernel | None = None
        self.stream: torch.dtype | None = None
        # Not nn.Embedding(V, D): drawing its default weights on the meta device imports torch._dynamo and sympy,
        # 800 modules and 50 MB.
        self.embed = nn.Embedding.from_pretrained(torch.empty(config.vocab, config.width), freeze=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tied else nn.Linear(config.width, config.vocab, bias=False)

    @property
    def head_weight(self) -> torch.Tensor:
        return self.embed.weight if self.head is None else self.head.weight

    def forward(
        self,
        tokens_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        segments_BT: torch.Tensor | None,
        mask: Any = None,
        read: tuple[torch.Tensor, torch.Tensor | Ragged] | None = None,
    ) -> torch.Tensor:
        """`segments_BT` None: one document a row, plain causal attention. `mask` stands in place of segments:
        what `mask_of` made of them, [B, 1, T, T] bool, or `Ragged` rows in one row of tokens. `read`: positions
        [m] whose hidden states are wanted, [B, m, D], and the mask of these queries; the last block computes
        nothing but keys and values for the others."""
        if mask is None and segments_BT is not None:
            mask = document_mask(segments_BT)
        cos, sin = rope_table(positions_BT, self.config.head_dim, self.config.rope_base)
        rope = cos[:, None], sin[:, None]
        x = self.embed(tokens_BT)
        if self.stream is not None:
            x = x.to(self.stream)
        if read is None:
            for block in self.blocks:
                x = block(x, rope, mask)
            return self.norm(x)
        for block in self.blocks[:-1]:
            x = block(x, rope, mask)
        return self.norm(self.blocks[-1](x, rope, read[1], read[0]))


def build(config: ModelConfig, seed: int) -> Transformer:
    """A freshly initialised network. Each parameter is drawn from a stream seeded by (seed, its name), so the
    weights are the same on any number of ranks and in any build order."""
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.fill_(1.0)
                continue
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            g = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
            std = config.init_std
            if name.endswith(("attn.o.weight", "mlp.down.weight")):
                std /= (2 * config.layers) ** 0.5  # GPT-2's scaling of what is added to the residual stream
            p.normal_(0.0, std, generator=g)
    return model
