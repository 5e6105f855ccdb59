"""Uniforms without a state, and inverse-CDF sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phikit.engine.sampling import pick, uniforms


def draw(logits, u, temperature=1.0, top_p=1.0):
    """ids and log-probabilities of one distribution at many u."""
    n = len(u)
    rows = torch.tensor(logits).float().expand(n, -1)
    return pick(rows, torch.full((n,), temperature), torch.full((n,), top_p), torch.as_tensor(u))


@pytest.mark.parametrize("over", ["keys", "counters"])
def test_uniforms_are_uniform(over):
    n, zero = np.arange(20_000, dtype=np.uint64), np.zeros(20_000, dtype=np.uint64)
    u = uniforms(n, zero + 7) if over == "keys" else uniforms(zero + 7, n)
    assert 0 <= u.min() < 1e-3
    assert 1 - 1e-3 < u.max() < 1
    counts = np.bincount((u * 50).astype(int), minlength=50)
    assert ((counts - 400) ** 2 / 400).sum() < 100  # chi-square of 49 degrees: 99.99 % lie below 93
    # Neighbours are independent: their joint cells are even too.
    cells = np.bincount((u[:-1] * 7).astype(int) * 7 + (u[1:] * 7).astype(int), minlength=49)
    assert ((cells - 19_999 / 49) ** 2 / (19_999 / 49)).sum() < 100


def test_uniforms_depend_on_key_and_counter_alone():
    keys = np.asarray([1, 2, 2**64 - 1, 1], dtype=np.uint64)
    u = uniforms(keys, np.asarray([0, 0, 5, 1]))
    assert len(set(u.tolist())) == 4
    assert uniforms(keys[2:3], np.asarray([5]))[0] == u[2]


def test_picks_follow_the_distribution():
    p = np.asarray([0.5, 0.2, 0.0, 0.25, 0.05])
    with np.errstate(divide="ignore"):
        logits = np.log(p)
    u = (np.arange(20_000) + 0.5) / 20_000
    ids, logprobs = draw(logits, u)
    assert np.bincount(ids.numpy(), minlength=5) / 20_000 == pytest.approx(p, abs=2e-4)
    assert logprobs.numpy() == pytest.approx(logits[ids.numpy()], abs=1e-6)


def test_temperature_sharpens_but_log_probs_are_the_models_own():
    p = np.asarray([0.6, 0.3, 0.1])
    u = (np.arange(10_000) + 0.5) / 10_000
    ids, logprobs = draw(np.log(p), u, temperature=0.5)
    assert np.bincount(ids.numpy()) / 10_000 == pytest.approx(p**2 / (p**2).sum(), abs=3e-4)
    assert logprobs.numpy() == pytest.approx(np.log(p)[ids.numpy()], abs=1e-6)


def test_temperature_0_takes_the_most_probable_whatever_u():
    for u in (0.0, 0.5, 1 - 2**-53):
        ids, logprobs = draw([0.0, 3.0, 1.0], np.asarray([u]), temperature=0.0)
        assert ids.tolist() == [1]
        assert logprobs[0] == pytest.approx(-np.log1p(np.exp(-3) + np.exp(-2)), abs=1e-6)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.45, [3]), (0.55, [1, 3]), (0.79, [1, 3]), (0.85, [1, 3, 4]), (1.0, [0, 1, 3, 4])]
)
def test_top_p_keeps_the_smallest_set_of_that_mass(top_p, kept):
    p = np.asarray([0.05, 0.3, 0.0, 0.5, 0.15])
    with np.errstate(divide="ignore"):
        logits = np.log(p)
    u = (np.arange(10_000) + 0.5) / 10_000
    ids, _ = draw(logits, u, top_p=top_p)
    counts = np.bincount(ids.numpy(), minlength=5)
    assert np.flatnonzero(counts).tolist() == kept
    assert counts[kept] / 10_000 == pytest.approx(p[kept] / p[kept].sum(), abs=3e-4)


def test_top_p_0_still_keeps_the_most_probable():
    ids, _ = draw([0.0, 3.0, 1.0], np.asarray([0.0, 0.5, 1 - 2**-53]), top_p=0.0)
    assert ids.tolist() == [1, 1, 1]


def test_rows_have_their_own_settings():
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]])).repeat(4, 1)
    ids, _ = pick(
        logits,
        torch.tensor([0.0, 1.0, 1.0, 1.0]),
        torch.tensor([1.0, 1.0, 0.5, 1.0]),
        torch.tensor([0.99, 0.99, 0.99, 0.05], dtype=torch.float64),
    )
    assert ids.tolist() == [1, 2, 1, 0]


def test_the_largest_u_never_leaves_the_distribution():
    """Rounding of the running sum must not reach an id of probability 0, nor past the vocabulary."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 1000, generator=g) * 4
    logits[:, -100:] = float("-inf")
    for u in (0.0, 1 - 2**-53):
        for top_p in (1.0, 0.9):
            n = torch.ones(200)
            ids, logprobs = pick(logits, n, n * top_p, torch.full((200,), u, dtype=torch.float64))
            assert int(ids.max()) < 900
            assert bool(torch.isfinite(logprobs).all())
