"""The two objectives of the recipe: language modelling (pretrain, midtrain, SFT) and DPO.

An objective turns rows into a loss *sum* and a *count*; the trainer divides once per step by the count of the
whole step, so that accumulation, masks and ranks do not change the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from phikit.mixture.loader import Batch
from phikit.model.logprob import branch_logprobs, token_logprobs
from phikit.model.transformer import Transformer
from phikit.train.pairs import PairBatch, TreeBatch


class Rows(Protocol):
    """Where rows come from: random access, so that the state of training is the number of rows consumed. A
    batch has `source` names and `parts(micro)`, the forward passes, each with `size`, its tokens."""

    def batch(self, first: int, count: int) -> Any: ...


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


class DirectPreference:
    """DPO (Rafailov et al. 2023): -log sigmoid(beta * (margin of policy - of reference)), plus the NLL term. A
    pivotal pair has a one-token response and no end of turn (facts section 5.4). Count = pairs."""

    def __init__(self, config: DPOConfig) -> None:
        self.config = config

    def count(self, batch: PairBatch) -> float:
        return len(batch)

    def __call__(self, model: Transformer, part: TreeBatch) -> LossSum:
        c = self.config
        logp = response_logprobs(model, part)
        scale = part.lengths if c.length_normalize else torch.ones_like(part.lengths)
        ratio = (logp - part.reference) / scale
        margin = c.beta * (ratio[:, 0] - ratio[:, 1])
        s = c.label_smoothing
        loss = -(1 - s) * F.logsigmoid(margin) - s * F.logsigmoid(-margin)
        nll = -logp[:, 0] / part.lengths[:, 0]
        total = (loss + c.nll_weight * nll).sum()
        shown = {"margin": float(margin.detach().sum()), "accuracy": float((margin.detach() > 0).sum())}
        return LossSum(total, shown)


def response_logprobs(model: Transformer, part: TreeBatch) -> torch.Tensor:
    """Sum of the log-probabilities of the tokens of each pair's two responses, [P, 2]."""
    hidden = model(part.tokens, part.position, None, part.rows, (part.nodes, part.asked))
    logprobs = branch_logprobs(hidden[0], model.head_weight, part.at, part.targets)
    responses = torch.zeros(int(part.response.max()) + 1, dtype=logprobs.dtype)
    return responses.index_add(0, part.response, logprobs)[part.sides]


def tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    arrays = (batch.tokens, batch.targets, batch.weight, batch.segment, batch.position)
    return tuple(torch.from_numpy(x) for x in arrays)
