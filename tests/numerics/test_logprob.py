"""`token_logprobs`: chunked equals dense, values and gradients."""

from __future__ import annotations

import pytest
import torch

from phikit.model.logprob import token_logprobs

N, D, V = 37, 16, 50


def inputs(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, dtype=dtype, generator=g, requires_grad=True)
    head = torch.randn(V, D, dtype=dtype, generator=g, requires_grad=True)
    return hidden, head, torch.randint(0, V, (N,), generator=g)


def dense(hidden, head, targets):
    return torch.log_softmax((hidden @ head.T).float(), -1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 4096])
def test_values_and_gradients(chunk):
    hidden, head, targets = inputs(torch.float32)
    weight = torch.linspace(0, 2, N)
    expected = dense(hidden, head, targets)
    wanted = torch.autograd.grad((expected * weight).sum(), (hidden, head))
    got = token_logprobs(hidden, head, targets, chunk)
    assert got.dtype == torch.float32
    assert got.shape == (N,)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    for a, b in zip(torch.autograd.grad((got * weight).sum(), (hidden, head)), wanted):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_without_gradients_nothing_is_kept():
    hidden, head, targets = inputs(torch.float32)
    with torch.no_grad():
        got = token_logprobs(hidden, head, targets, 5)
    assert not got.requires_grad
    torch.testing.assert_close(got, dense(hidden, head, targets).detach(), rtol=0, atol=1e-5)


def test_gradient_reaches_the_head_when_the_states_are_fixed():
    hidden, head, targets = inputs(torch.float32)
    fixed = hidden.detach()
    (got,) = torch.autograd.grad(token_logprobs(fixed, head, targets, 5).sum(), head)
    (wanted,) = torch.autograd.grad(dense(fixed, head, targets).sum(), head)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_bf16_states_give_fp32_probabilities():
    hidden, head, targets = inputs(torch.float32)
    got = token_logprobs(hidden.bfloat16(), head.bfloat16(), targets, 8)
    assert got.dtype == torch.float32
    assert (got - dense(hidden, head, targets)).abs().max() < 0.3


def test_no_positions():
    hidden, head, _ = inputs(torch.float32)
    assert token_logprobs(hidden[:0], head, torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_probabilities_of_all_tokens_add_up_to_one():
    hidden, head, _ = inputs(torch.float32)
    one = hidden[:1].expand(V, D)
    total = token_logprobs(one, head, torch.arange(V), 7).detach().exp().sum()
    assert abs(float(total) - 1) < 1e-5
