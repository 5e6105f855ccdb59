"""The network in float64, one sequence at a time and nothing shared: what fp32 engines are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F


class Exact:
    """Log-likelihoods of a phikit Transformer with every weight, angle and sum in float64."""

    def __init__(self, model: Any) -> None:
        self.config = model.config
        self.weights = {name: x.detach().double() for name, x in model.state_dict().items()}
        self.head = model.head_weight.detach().double()

    @torch.inference_mode()
    def score(self, context: Sequence[int], continuation: Sequence[int]) -> float:
        """The sum of log-probabilities of `continuation` after `context`."""
        ids = torch.tensor([*context, *continuation])
        hidden = self._hidden(ids[:-1])[len(context) - 1 :]
        logprobs = torch.log_softmax(F.linear(hidden, self.head), -1)
        return float(logprobs.gather(1, ids[len(context) :, None]).sum())

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        c, n = self.config, len(ids)
        angle = torch.arange(n).double()[:, None] * c.rope_base ** (
            -torch.arange(0, c.head_dim, 2).double() / c.head_dim
        )
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)

        def rotate(x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat((-b, a), -1) * sin

        x = self.weights["embed.weight"][ids]
        for i in range(c.layers):
            w = {k: self.weights[f"blocks.{i}.{k}.weight"] for k in _BLOCK}
            y = F.rms_norm(x, (c.width,), w["attn_norm"], c.norm_eps)
            q, k, v = (F.linear(y, w[f"attn.{p}"]).view(n, -1, c.head_dim).transpose(0, 1) for p in "qkv")
            y = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True, enable_gqa=True)
            x = x + F.linear(y.transpose(0, 1).reshape(n, -1), w["attn.o"])
            y = F.rms_norm(x, (c.width,), w["mlp_norm"], c.norm_eps)
            x = x + F.linear(F.silu(F.linear(y, w["mlp.gate"])) * F.linear(y, w["mlp.up"]), w["mlp.down"])
        return F.rms_norm(x, (c.width,), self.weights["norm.weight"], c.norm_eps)


_BLOCK = ("attn_norm", "attn.q", "attn.k", "attn.v", "attn.o", "mlp_norm", "mlp.gate", "mlp.up", "mlp.down")
