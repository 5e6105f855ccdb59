"""The exact bound of Pivotal Token Search, under the distribution that was sampled from.

p(prefix) is the mean of p(prefix + token) over the next token, so a token drawn with probability pi changes p by at
most 1 - pi, and a part of an answer whose tokens have probability prod(pi) by at most 1 - prod(pi). pi is that of
the *sampling* distribution, while engines report log-probabilities of the model itself (temperature 1, nothing cut).
At temperature 1 and top_p 1 they are the same. Elsewhere pi lies in a range that follows from the reported one:

    pi_T = pi^(1/T) / (pi^(1/T) + rest),   rest between (1-pi)^(1/T) (all on one token)
                                           and (V-1) ((1-pi)/(V-1))^(1/T) (spread evenly)

and top_p only removes other tokens: pi_T <= pi <= min(1, pi_T / top_p). A bound that uses the low end of the range
stays valid at every temperature; it is only wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_ROUNDING = 1e-5  # of a reported probability near 1; heat makes much of what is left beside it


def sampling_range(logprob: float, temperature: float, top_p: float, vocab: int) -> tuple[float, float]:
    """(least, greatest) probability with which a token was drawn whose log-probability under the model is
    `logprob`. Raises ValueError for temperature 0: greedy answers have no p(success) to search."""
    if temperature <= 0:
        raise ValueError("pivotal search samples: temperature must be positive, not 0")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], not {top_p}")
    if logprob > 1e-4 or math.isnan(logprob):
        raise ValueError(f"a log-probability of {logprob}: the engine reports no probabilities of its tokens")
    logprob = min(logprob, 0.0)
    p = math.exp(logprob)
    if temperature == 1:
        low = high = p
    else:
        own = math.exp(logprob / temperature)
        others, rest = max(vocab - 1, 1), max(1 - p, _ROUNDING)
        one = rest ** (1 / temperature)
        even = others * (rest / others) ** (1 / temperature)
        low, high = own / (own + max(one, even)), own / (own + min(one, even))
    return low, min(1.0, high / top_p)


def surprises(probabilities: Sequence[float]) -> list[float]:
    """Running sum of -log(least probability) before each token and at the end, [L + 1]: the part a..b moves p by at
    most 1 - exp(-(s[b] - s[a]))."""
    sums = [0.0]
    for p in probabilities:
        sums.append(sums[-1] - math.log(max(p, 1e-300)))
    return sums
