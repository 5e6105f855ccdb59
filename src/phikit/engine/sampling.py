"""Drawing tokens: counter-based uniforms and inverse-CDF sampling.

No generator has a state: draw t of a sample is a hash of (key, t), so a sample is the same in any batch, after
any restart, and when `n` is raised later.
"""

from __future__ import annotations

import numpy as np
import torch


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
    logits_BV: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, u: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [B] and their log-probabilities under the model itself (temperature 1, no truncation).

    Row b: arg-max where temperature is 0, else the id whose cumulative probability first exceeds u_b, after
    scaling by temperature and keeping the smallest set of mass >= top_p.
    """
    logprobs = torch.log_softmax(logits_BV, dim=-1)
    greedy = temperature <= 0
    if bool(greedy.all()):
        ids = logits_BV.argmax(-1)
        return ids, logprobs.gather(-1, ids[:, None])[:, 0]
    scaled = logits_BV / temperature.clamp(min=1e-6)[:, None]
    p = torch.softmax(scaled, dim=-1).double()  # float64 for the cumulative sum only
    if bool((top_p < 1).any()):
        sorted_p, order = p.sort(dim=-1, descending=True)
        outside = sorted_p.cumsum(-1) - sorted_p >= top_p[:, None]
        outside[:, 0] = False  # top_p 0 keeps the most probable id
        p = torch.zeros_like(p).scatter(-1, order, sorted_p.masked_fill(outside, 0.0))
    cdf = p.cumsum(-1)
    # u scaled by the row's own total: rounding never leaves the last id with a negative share.
    ids = torch.searchsorted(cdf, (u * cdf[:, -1])[:, None], right=True)[:, 0]
    last = p.shape[-1] - 1 - (p.flip(-1) > 0).long().argmax(-1)  # the last id with any probability
    ids = torch.minimum(ids, last)
    ids = torch.where(greedy, logits_BV.argmax(-1), ids)
    return ids, logprobs.gather(-1, ids[:, None])[:, 0]
