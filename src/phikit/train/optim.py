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
        hidden = [p for n, p in named if p.ndim == 2 and (".attn." in n or ".mlp." in n)]
        is_hidden = {id(p) for p in hidden}
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

    def state_dict(self) -> list[dict]:
        return [o.state_dict() for o in self.members]

    def load_state_dict(self, states: list[dict]) -> None:
        if len(states) != len(self.members):
            raise ValueError(
                "the checkpoint was written with another optimizer; set optimizer to what it had"
            )
        own = [{k: v for k, v in group.items() if k != "params"} for group in self._groups()]
        for o, state in zip(self.members, states):
            o.load_state_dict(state)
        for group, settings, peak in zip(self._groups(), own, self._peaks):
            group |= settings | {"lr": peak}  # torch takes those of the checkpoint: moments of another stage


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
