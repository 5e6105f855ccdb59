"""The two objectives of the recipe: language modelling (pretrain, midtrain, SFT) and DPO.

An objective turns rows into a loss *sum* and a *count*; the trainer divides once per step by the count of the
whole step, so that accumulation, masks and ranks do not change the loss.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import torch
import torch.nn.functional as F

from phikit.mixture.loader import Batch
from phikit.model.logprob import token_logprobs
from phikit.model.transformer import Transformer


class Rows(Protocol):
    """Where rows come from: random access, so that the state of training is the number of rows consumed."""

    def batch(self, first: int, count: int) -> Batch: ...


@dataclass(frozen=True)
class LossSum:
    """`total` is differentiable; `shown` are sums for the log (divided by the step's count)."""

    total: torch.Tensor
    shown: dict[str, float]


class LanguageModeling:
    """Weighted next-token cross-entropy. Count = sum of target weights."""

    def count(self, batch: Batch) -> float:
        return float(batch.weight.sum(dtype="float64"))

    def __call__(self, model: Transformer, batch: Batch) -> LossSum:
        tokens, targets, weight, segment, position = tensors(batch)
        hidden = model(tokens, position, segment)
        logprobs = token_logprobs(hidden.flatten(0, 1), model.head_weight, targets.flatten())
        return LossSum(-(logprobs * weight.flatten()).sum(), {})


@dataclass(frozen=True)
class DPOConfig:
    """`beta`, and per chosen token the weight of a plain NLL term, which keeps the chosen probability from
    sinking while the margin grows. All ND in the report (facts section 5.2)."""

    beta: float = 0.1
    nll_weight: float = 0.0
    length_normalize: bool = False
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class PairBatch(Batch):
    """Rows 2i and 2i+1 are the chosen and rejected side of pair i; weight 1 marks response targets.
    `reference` [B] holds the response log-probabilities of the model that entered the stage."""

    reference: torch.Tensor = None  # type: ignore[assignment]

    def slice(self, a: int, b: int) -> PairBatch:
        if a % 2 or b % 2:
            raise ValueError("a pair must not be split between micro-batches: rows and micro must be even")
        part = super().slice(a, b)
        return PairBatch(
            **{f.name: getattr(part, f.name) for f in fields(Batch)}, reference=self.reference[a:b]
        )


class DirectPreference:
    """DPO on packed pairs (Rafailov et al. 2023): -log sigmoid(beta * (margin of policy - of reference)).
    A pivotal pair has a one-token response and no end of turn. Count = pairs."""

    def __init__(self, config: DPOConfig) -> None:
        self.config = config

    def count(self, batch: Batch) -> float:
        return len(batch.tokens) / 2

    def __call__(self, model: Transformer, batch: PairBatch) -> LossSum:  # type: ignore[override]
        c = self.config
        logp, length = response_logprobs(model, batch)
        scale = length.clamp(min=1) if c.length_normalize else torch.ones_like(length)
        ratio = (logp - batch.reference) / scale
        margin = c.beta * (ratio[0::2] - ratio[1::2])
        s = c.label_smoothing
        loss = -(1 - s) * F.logsigmoid(margin) - s * F.logsigmoid(-margin)
        nll = -logp[0::2] / length[0::2].clamp(min=1)
        total = (loss + c.nll_weight * nll).sum()
        shown = {"margin": float(margin.detach().sum()), "accuracy": float((margin.detach() > 0).sum())}
        return LossSum(total, shown)


def response_logprobs(model: Transformer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of log-probabilities and number of the response tokens of each row, [B]. Only positions that count go
    through the head."""
    tokens, targets, weight, segment, position = tensors(batch)
    hidden = model(tokens, position, segment)
    row, at = torch.nonzero(weight > 0, as_tuple=True)
    logprobs = token_logprobs(hidden[row, at], model.head_weight, targets[row, at])
    zeros = torch.zeros(len(tokens), dtype=logprobs.dtype)
    return zeros.index_add(0, row, logprobs), zeros.index_add(0, row, torch.ones_like(logprobs))


def tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    arrays = (batch.tokens, batch.targets, batch.weight, batch.segment, batch.position)
    return tuple(torch.from_numpy(x) for x in arrays)
