"""The network as `TorchEngine` runs it: fused projections, a table of rotations, and any way to attend.

Prefill (`prefill.py`) and decoding (`slots.py`) differ only in how a query finds its keys, so both hand an
`attend` to `Network.run`. Tokens are one packed dimension n: no row is padded. The same numbers as
`model.transformer.Transformer` up to rounding (tests/numerics). Shapes: D width, N heads, K kv heads, H head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from phikit.model.transformer import Block, Transformer, rope_table

# attend(layer, q [n, N, H], k [n, K, H], v [n, K, H]) -> [n, N * H], all fp32
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Network:
    """Weights of `model`, its q/k/v and gate/up joined (the modules of `model` become views of the joined
    tensors: no second copy). With bf16 weights the matrix products run in bf16, all else in fp32."""

    def __init__(self, model: Transformer) -> None:
        c = self.config = model.config
        self.embed, self.head, self.norm = model.embed.weight, model.head_weight, model.norm.weight
        self.layers = [Layer(b, c.norm_eps) for b in model.blocks]  # type: ignore[arg-type]
        self.dtype, self.device = self.head.dtype, self.head.device
        self.heads, self.kv_heads, self.head_dim = c.heads, c.kv_heads, c.head_dim
        self.reach(c.context)

    def reach(self, context: int) -> None:
        """Makes the table of rotations for positions below `context`."""
        c, half = self.config, self.head_dim // 2
        cos, sin = rope_table(torch.arange(context, device=self.device), c.head_dim, c.rope_base)
        self.cos, self.sin = cos, torch.cat((-sin[:, :half], sin[:, half:]), 1)  # the sign of the rotation

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values of one position, all layers (fp32)."""
        return 2 * 4 * self.config.layers * self.kv_heads * self.head_dim

    def run(self, tokens_n: torch.Tensor, positions_n: torch.Tensor, attend: Attend) -> torch.Tensor:
        """Hidden states after the final norm, [n, D] fp32 on the device; tokens and positions may come from the
        host."""
        n, half = tokens_n.shape[0], self.head_dim // 2
        tokens_n, positions_n = tokens_n.to(self.device), positions_n.to(self.device)
        rotated = self.heads + self.kv_heads
        cos, sin = self.cos[positions_n, None], self.sin[positions_n, None]
        x = F.embedding(tokens_n, self.embed).float()
        for i, layer in enumerate(self.layers):
            qkv = layer.project(x).view(n, -1, self.head_dim)
            qk, v = qkv[:, :rotated], qkv[:, rotated:]
            swapped = torch.cat((qk[..., half:], qk[..., :half]), -1)
            qk = torch.mul(qk, cos).addcmul_(swapped, sin)
            x = layer.finish(x, attend(i, qk[:, : self.heads], qk[:, self.heads :], v))
        return F.rms_norm(x, (x.shape[1],), self.norm.float(), self.config.norm_eps)

    def logits(self, hidden_nD: torch.Tensor) -> torch.Tensor:
        """[n, V] fp32."""
        return _linear(hidden_nD, self.head)


class Layer:
    """One block; `project` and `finish` are what comes before and after attention."""

    def __init__(self, block: Block, eps: float) -> None:
        self.eps = eps
        self.norm1, self.norm2 = block.attn_norm.weight.float(), block.mlp_norm.weight.float()
        self.qkv = _joined([block.attn.q, block.attn.k, block.attn.v])
        self.gate_up = _joined([block.mlp.gate, block.mlp.up])
        self.o, self.down = block.attn.o.weight, block.mlp.down.weight

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return _linear(F.rms_norm(x, (x.shape[1],), self.norm1, self.eps), self.qkv)

    def finish(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = _add_linear(x, attended, self.o)
        gate, up = _linear(F.rms_norm(x, (x.shape[1],), self.norm2, self.eps), self.gate_up).chunk(2, -1)
        return _add_linear(x, F.silu(gate).mul_(up), self.down)


def _joined(parts: Sequence[nn.Linear]) -> torch.Tensor:
    whole = torch.cat([p.weight.detach() for p in parts])
    for part, view in zip(parts, whole.split([p.weight.shape[0] for p in parts])):
        part.weight.data = view
    return whole


def _linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if weight.dtype == torch.float32:
        return F.linear(x, weight)
    return F.linear(x.to(weight.dtype), weight).float()


def _add_linear(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x + y weight^T."""
    if weight.dtype == torch.float32:
        return torch.addmm(x, y, weight.t())
    return x + F.linear(y.to(weight.dtype), weight).float()
