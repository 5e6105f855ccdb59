"""The two objectives of the recipe: language modelling (pretrain, midtrain, SFT) and DPO.

An objective turns rows into a loss *sum* and a *count*; the trainer divides once per step by the count of the
whole step, so that accumulation, masks and ranks do not change the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from phikit.mixture.loader import Batch
from phikit.model.attention import Ulysses, mask_of
from phikit.model.documents import copied
from phikit.model.logprob import branch_logprobs, weighted_nll
from phikit.model.ranks import Ranks
from phikit.model.transformer import Transformer
from phikit.train.feed import Rows, Share
from phikit.train.pairs import PairBatch, TreeBatch


@dataclass(frozen=True)
class LossSum:
    """`total` is differentiable; `shown` are sums for the log (divided by the step's count), on the device: nothing
    waits for them within a step."""

    total: torch.Tensor
    shown: dict[str, torch.Tensor]


class LanguageModeling:
    """Weighted next-token cross-entropy. Count = sum of target weights."""

    shows: tuple[str, ...] = ()
    shapes_repeat = True

    def check(self, config: Any) -> None:
        each, rest = divmod(config.rows, config.layout.data)
        if rest or (each % config.micro and config.layout.ranks > 1):
            raise ValueError(
                f"{config.rows} rows a step are not whole forward passes of {config.micro} rows on "
                f"{config.layout.data} ranks: set batch to a multiple of layout.fsdp x layout.replicas x micro"
            )

    def count(self, batch: Batch) -> float:
        return float(batch.weight.sum(dtype="float64"))

    def share(self, rows: Rows, first: int, count: int, micro: int, ranks: Ranks) -> Share:
        """Rows are independent: a rank makes its own alone. cp ranks have the same ones."""
        each = count // ranks.layout.data
        batch = rows.batch(first + ranks.data_rank * each, each)
        parts = list(batch.parts(micro))
        sizes = batch.sizes
        by_source: dict[str, int] = {}
        for name, size in zip(batch.source, sizes):
            by_source[name] = by_source.get(name, 0) + int(size)
        lengths = batch.position.astype("float64") + 1
        pairs = float(lengths.sum())
        return Share(parts, len(parts), self.count(batch), int(sizes.sum()), batch.source, pairs, by_source)

    def __call__(self, model: Transformer, batch: Batch, ranks: Ranks | None = None) -> LossSum:
        device = ranks.device if ranks else model.head_weight.device
        cp = ranks.layout.cp if ranks else 1
        mask = mask_of(torch.from_numpy(batch.segment), model.kernel, device)
        arrays = (batch.tokens, batch.targets, batch.weight, batch.position)
        if ranks and cp > 1:
            own = batch.tokens.shape[1] // cp
            at = slice(ranks.cp_rank * own, (ranks.cp_rank + 1) * own)
            arrays = tuple(np.ascontiguousarray(x[:, at]) for x in arrays)
            mask = Ulysses(mask, ranks.cp_group, cp)
        tokens, targets, weight, position = (copied(torch.from_numpy(x), device) for x in arrays)
        hidden = model(tokens, position, None, mask)
        # After the forward pass: only then are the weights of a sharded head there.
        total = weighted_nll(hidden.flatten(0, 1), model.head_weight, targets.flatten(), weight.flatten())
        return LossSum(total, {})


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

    shows = ("margin", "accuracy")
    shapes_repeat = False

    def __init__(self, config: DPOConfig) -> None:
        self.config = config

    def check(self, config: Any) -> None:
        if config.layout.cp > 1:
            raise ValueError("DPO trains whole trees of tokens on each rank: set layout.cp to 1")

    def count(self, batch: PairBatch) -> float:
        return len(batch)

    def share(self, rows: Rows, first: int, count: int, micro: int, ranks: Ranks) -> Share:
        """Forward passes are dealt out in turn, and a rank builds its own alone; one that gets none of the last round
        runs its first again."""
        batch = rows.batch(first, count)
        plan, n = batch.plan(micro), ranks.layout.data
        own = [batch.part(p) for p in plan[ranks.data_rank :: n]]
        along = [own[0] if own else batch.part(plan[0])] * (-(-len(plan) // n) - len(own))
        found = float(sum(len(p.which) for p in own))
        return Share([*own, *along], len(own), found, sum(p.size for p in own), batch.source)

    def __call__(self, model: Transformer, part: TreeBatch, ranks: Ranks | None = None) -> LossSum:
        c = self.config
        part = part.to(ranks.device if ranks else model.head_weight.device)
        logp = response_logprobs(model, part)
        scale = part.lengths if c.length_normalize else torch.ones_like(part.lengths)
        ratio = (logp - part.reference) / scale
        margin = c.beta * (ratio[:, 0] - ratio[:, 1])
        s = c.label_smoothing
        loss = -(1 - s) * F.logsigmoid(margin) - s * F.logsigmoid(-margin)
        nll = -logp[:, 0] / part.lengths[:, 0]
        total = (loss + c.nll_weight * nll).sum()
        shown = {"margin": margin.detach().sum(), "accuracy": (margin.detach() > 0).sum()}
        return LossSum(total, shown)


def response_logprobs(model: Transformer, part: TreeBatch) -> torch.Tensor:
    """Sum of the log-probabilities of the tokens of each pair's two responses, [P, 2]; `part` is on the model's
    device."""
    hidden = model(part.tokens, part.position, None, part.rows, (part.nodes, part.asked))
    logprobs = branch_logprobs(hidden[0], model.head_weight, part.at, part.targets)
    responses = logprobs.new_zeros(part.responses)
    return responses.index_add(0, part.response, logprobs)[part.sides]
