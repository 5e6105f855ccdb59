"""Drawing tokens: counter-based uniforms and inverse-CDF sampling.

No generator has a state: draw t of a sample is a hash of (key, t), so a sample is the same in any batch, after
any restart, and when `n` is raised later.
"""

from __future__ import annotations

import numpy as np
import torch

BLOCK = 64  # ids whose probabilities are added up first: a draw finds its block, then its id in the block
TOP = 256  # most probable ids in which the set of top_p is looked for before all are sorted


def uniforms(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """float64 in [0, 1) from uint64 keys and draw numbers, by splitmix64's finalizer applied twice."""
    with np.errstate(over="ignore"):
        x = _mix(keys.astype(np.uint64)) + counters.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = _mix(x)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def pick(
    logits_BV: torch.Tensor,
    temperature_B: torch.Tensor,
    top_p_B: torch.Tensor,
    u_M: torch.Tensor,
    rows_M: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [M] and their log-probabilities under the model itself (temperature 1, no truncation).

    Draw m is from row rows_M[m] (default: one draw a row): the arg-max where the row's temperature is 0, else
    the id whose cumulative probability first exceeds u_m, after scaling by temperature and keeping the smallest
    set of mass >= top_p. Temperatures and top_p may stay on the host: what they ask for is then decided without
    waiting for the device.
    """
    device = logits_BV.device
    rows = torch.arange(len(logits_BV), device=device) if rows_M is None else rows_M
    greedy = temperature_B <= 0
    model = torch.softmax(logits_BV, dim=-1)
    if bool(greedy.all()):
        return _with_logprobs(model, logits_BV, rows, _arg_max(logits_BV)[rows])
    p = model
    if bool(((temperature_B != 1) & ~greedy).any()):
        p = torch.softmax(logits_BV / torch.where(greedy, 1.0, temperature_B)[:, None].to(device), dim=-1)
    cut = ((top_p_B < 1) & ~greedy).nonzero()[:, 0]
    if len(cut):
        where = cut.to(device)
        p = p.index_copy(0, where, _nucleus(p[where], top_p_B[cut].to(device)))
    ids = _invert(p, u_M, rows)
    if bool(greedy.any()):
        ids = torch.where(greedy.to(device)[rows], _arg_max(logits_BV)[rows], ids)
    return _with_logprobs(model, logits_BV, rows, ids)


def _with_logprobs(
    model: torch.Tensor, logits: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    p = model[rows, ids]
    if bool((p > 1e-30).all()):
        return ids, p.log()
    return ids, torch.log_softmax(logits, -1)[rows, ids]  # the temperature drew what hardly ever happens


def _arg_max(x: torch.Tensor) -> torch.Tensor:
    """The first index of each row's maximum; several times as fast as `argmax` on long rows."""
    if x.shape[1] % BLOCK:
        return x.argmax(-1)
    block = x.unflatten(1, (-1, BLOCK)).amax(-1).argmax(-1)
    return block * BLOCK + _of_block(x, torch.arange(len(x), device=x.device), block).argmax(-1)


def _nucleus(p: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zeroes all but the smallest set of mass >= top_p; the most probable id stays in any case."""
    top = min(TOP, p.shape[1])
    sorted_p, order = p.topk(top)
    if top < p.shape[1] and bool((sorted_p.sum(-1, dtype=torch.float64) < top_p).any()):
        sorted_p, order = p.sort(dim=-1, descending=True, stable=True)
    outside = sorted_p.cumsum(-1, dtype=torch.float64) - sorted_p >= top_p[:, None]
    outside[:, 0] = False
    return torch.zeros_like(p).scatter(-1, order, sorted_p.masked_fill(outside, 0.0))


def _invert(p: torch.Tensor, u: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Ids whose cumulative share of their row's own total first exceeds u: first the block, then the id."""
    whole = p.shape[1] // BLOCK * BLOCK
    sums = p[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1)
    if whole < p.shape[1]:
        sums = torch.cat((sums, p[:, whole:].sum(-1, keepdim=True)), 1)
    cdf = sums.cumsum(-1, dtype=torch.float64)
    mine = cdf[rows]
    target = (u * mine[:, -1])[:, None]
    block = torch.minimum(torch.searchsorted(mine, target, right=True)[:, 0], _last_positive(sums)[rows])
    before = torch.where(block > 0, cdf[rows, (block - 1).clamp(min=0)], 0.0)[:, None]
    inner = _of_block(p, rows, block)
    # Rounding of the sums must reach neither an id of probability 0 nor the end of the block.
    at = torch.searchsorted(inner.cumsum(-1, dtype=torch.float64), target - before, right=True)[:, 0]
    return block * BLOCK + torch.minimum(at, _last_positive(inner))


def _of_block(x: torch.Tensor, rows: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """[M, BLOCK]: a block of each of `rows`; past the end of the row 0."""
    if x.shape[1] % BLOCK == 0:
        return x.view(-1, BLOCK)[rows * (x.shape[1] // BLOCK) + block]
    at = block[:, None] * BLOCK + torch.arange(BLOCK, device=x.device)
    some = x[rows[:, None], at.clamp(max=x.shape[1] - 1)]
    return some.masked_fill_(at >= x.shape[1], 0.0)


def _last_positive(x: torch.Tensor) -> torch.Tensor:
    return x.shape[1] - 1 - (x.flip(1) > 0).long().argmax(1)
