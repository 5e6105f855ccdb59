"""Optimizers and the learning-rate schedule.

AdamW is the recipe's default. `muon` (nano) gives the hidden matrices to torch.optim.Muon, whose orthogonal
updates learn more from few tokens, and everything else (embedding, head, norms) to AdamW. Weight decay is not
applied to norms. The report discloses neither optimizer nor betas (facts section 4.1, ND).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class OptimConfig:
    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 3e-4  # of AdamW; its parameters
    matrix_lr: float = 2e-2  # of Muon; hidden matrices
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8


class Optimizers:
    """One or two torch optimizers that step together and share a schedule factor."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._names = {p: n for n, p in named}
        hidden = [p for n, p in named if p.ndim == 2 and (".attn." in n or ".mlp." in n)]
        is_hidden = {id(p) for p in hidden}
        if config.name == "muon" and any(hasattr(p, "device_mesh") for p in hidden):
            raise ValueError("optimizer muon needs whole matrices: take adamw, or a layout of one rank")
        if config.name == "adamw":
            is_hidden, hidden = set(), []
        rest = [p for _, p in named if id(p) not in is_hidden]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.members: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
        ]
        if hidden:
            self.members.append(
                torch.optim.Muon(hidden, lr=config.matrix_lr, weight_decay=config.weight_decay, momentum=0.95)
            )
        self._peaks = [g["lr"] for o in self.members for g in o.param_groups]

    def step(self, factor: float) -> None:
        """One step at `factor` times the peak learning rates; clears gradients."""
        for group, peak in zip(self._groups(), self._peaks):
            group["lr"] = peak * factor
        for o in self.members:
            o.step()
            o.zero_grad(set_to_none=True)

    def _groups(self) -> Iterable[dict]:
        return (g for o in self.members for g in o.param_groups)

    def state(self) -> dict[str, torch.Tensor]:
        """The moments by name, as they are updated: `<parameter>/exp_avg`. Zeros before the first step."""
        found = {}
        for optimizer in self.members:
            muon = isinstance(optimizer, torch.optim.Muon)
            for p in (p for g in optimizer.param_groups for p in g["params"]):
                kept = optimizer.state[p]
                if not kept:
                    for key in ("momentum_buffer",) if muon else ("exp_avg", "exp_avg_sq"):
                        kept[key] = torch.zeros_like(p)
                    if not muon:
                        kept["step"] = torch.zeros((), dtype=torch.float32, device=_plain(p).device)
                found |= {f"{self._names[p]}/{key}": value for key, value in kept.items()}
        return found


def _plain(p: torch.Tensor) -> torch.Tensor:
    return p.to_local() if hasattr(p, "to_local") else p  # type: ignore[operator]


def lr_factor(step: int, total: int, *, warmup: float, decay: float, final: float) -> float:
    """Linear warm-up over the first `warmup` share of steps, constant, then linear to `final` over the last
    `decay` share (decay = 1 - warmup is the report's linear warm-up and linear decay, facts 4.1)."""
    warm = max(1.0, warmup * total)
    if step < warm:
        return (step + 1) / warm
    start = total * (1 - decay)
    if step <= start:
        return 1.0
    return final + (1 - final) * max(0.0, (total - step) / max(1.0, total - start))
