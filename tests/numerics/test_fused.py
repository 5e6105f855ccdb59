"""`model.fused`, attention by blocks of queries and the loss with its gradient are equal to the plain network."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from phikit.model.attention import attend, document_mask, mask_of
from phikit.model.blockwise import BLOCK, Packed, attend_blockwise, packed
from phikit.model.config import ModelConfig
from phikit.model.fused import fuse
from phikit.model.logprob import weighted_nll
from phikit.model.product import product
from phikit.model.transformer import Block, build

CPU = torch.device("cpu")
CONFIG = ModelConfig(97, 48, 2, 4, 2, 80, 256)


def segments(b: int, t: int) -> torch.Tensor:
    """Documents of unequal length and padding; the first row is one document."""
    ids = torch.zeros(b, t, dtype=torch.long)
    for row in range(1, b):
        for number, at in enumerate(range(7 * row, t, 41 + row)):
            ids[row, at:] = number + 1
    ids[-1, -5:] = -1
    return ids


def networks():
    plain = build(CONFIG, 3)
    with torch.no_grad():
        for name, p in plain.named_parameters():
            if "norm" in name:
                p.add_(torch.linspace(-0.5, 0.5, len(p)))
            else:
                p.mul_(4)  # scores far from 0
    fused = copy.deepcopy(plain)
    for block in fused.blocks:
        assert isinstance(block, Block)
        block.forward = fuse(block)
    return plain, fused


def loss_and_gradients(model, tokens, ids, mask, half: bool):
    place = torch.arange(tokens.shape[1]).expand_as(tokens)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        hidden = model(tokens, place, None, mask)
        loss = weighted_nll(
            hidden.flatten(0, 1),
            model.head_weight,
            tokens.roll(-1, 1).flatten(),
            (ids >= 0).float().flatten(),
        )
    (loss / tokens.numel()).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert len(grads) == len(list(model.parameters()))
    return loss.detach() / tokens.numel(), grads


@pytest.mark.parametrize(("b", "t"), [(3, 100), (1, BLOCK), (2, 300)])
@pytest.mark.parametrize("documents", [False, True])
def test_the_network_of_fused_blocks_is_the_network(b, t, documents):
    tokens = torch.randint(0, CONFIG.vocab, (b, t), generator=torch.Generator().manual_seed(0))
    ids = segments(b, t) if documents else torch.zeros(b, t, dtype=torch.long)
    plain, fused = networks()
    want, grads = loss_and_gradients(plain, tokens, ids, document_mask(ids), False)
    got, mine = loss_and_gradients(fused, tokens, ids, mask_of(ids, None, CPU), False)
    assert float(got) == pytest.approx(float(want), rel=1e-6)
    for name, g in grads.items():
        assert float((mine[name] - g).norm() / g.norm()) < 1e-5, name


def test_bf16_products_are_as_near_to_fp32_as_autocast():
    tokens = torch.randint(0, CONFIG.vocab, (3, 100), generator=torch.Generator().manual_seed(0))
    ids = segments(3, 100)
    plain, fused = networks()
    exact, truth = loss_and_gradients(plain, tokens, ids, document_mask(ids), False)
    plain.zero_grad()
    want, grads = loss_and_gradients(plain, tokens, ids, document_mask(ids), True)
    got, mine = loss_and_gradients(fused, tokens, ids, mask_of(ids, None, CPU), True)
    assert abs(float(got - exact)) < max(2 * abs(float(want - exact)), 2e-3)
    for name, g in truth.items():
        assert (mine[name] - g).norm() < 1.5 * (grads[name] - g).norm() + 1e-3 * g.norm(), name


@pytest.mark.parametrize("t", [5, BLOCK + 1, 3 * BLOCK, 300])
@pytest.mark.parametrize("documents", [False, True])
def test_attention_by_blocks(t, documents):
    ids = segments(2, t) if documents else torch.zeros(2, t, dtype=torch.long)
    shapes = [(2, 4, t, 8), (2, 2, t, 8), (2, 2, t, 8)]
    g = torch.Generator().manual_seed(t)
    inputs = [torch.randn(*s, generator=g, requires_grad=True) for s in shapes]
    mask = packed(ids)
    assert (mask is None) == (not ((ids[:, 1:] != ids[:, :-1]) & (ids[:, 1:] >= 0)).any())
    q, k, v = inputs
    got = attend_blockwise(q, k, v, mask)
    want = F.scaled_dot_product_attention(
        q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), document_mask(ids)
    )
    real = (ids >= 0)[:, None, :, None]
    weight = torch.randn(want.shape, generator=g) * real
    torch.testing.assert_close(got * real, want * real, rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad((got * weight).sum(), inputs)
    theirs = torch.autograd.grad((want * weight).sum(), inputs)
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_keys_of_earlier_documents_are_left_out():
    ids = torch.arange(4 * BLOCK)[None] // (2 * BLOCK)
    mask = packed(ids)
    assert isinstance(mask, Packed)
    assert mask.first == (0, 0, 2 * BLOCK, 2 * BLOCK)
    q = torch.randn(1, 2, 4 * BLOCK, 8)
    torch.testing.assert_close(attend(q, q, q, mask), attend(q, q, q, document_mask(ids)))


@pytest.mark.parametrize("chunk", [1, 16, 512])
def test_gradients_of_the_loss(chunk):
    g = torch.Generator().manual_seed(1)
    hidden = torch.randn(37, 16, generator=g, requires_grad=True)
    head = torch.randn(50, 16, generator=g, requires_grad=True)
    targets, weight = torch.randint(0, 50, (37,), generator=g), torch.rand(37, generator=g)
    got = weighted_nll(hidden * 5, head, targets, weight, chunk)
    want = (F.cross_entropy(hidden * 5 @ head.T, targets, reduction="none") * weight).sum()
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=1e-6)
    for a, b in zip(torch.autograd.grad(got, (hidden, head)), torch.autograd.grad(want, (hidden, head))):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_targets_of_next_to_no_probability():
    """Probabilities that fp32 holds with few digits or as 0, beside a token that does not count."""
    hidden = torch.eye(3, requires_grad=True)
    head = torch.tensor([[0.0, 0.0, 0.0], [80.0, 300.0, 300.0], [-1.0, 2.0, 2.0]], requires_grad=True)
    targets, weight = torch.zeros(3, dtype=torch.long), torch.tensor([1.0, 1.0, 0.0])
    got = weighted_nll(hidden, head, targets, weight, 2)
    want = (F.cross_entropy(hidden @ head.T, targets, reduction="none") * weight).sum()
    assert float(got.detach()) == pytest.approx(380.0, rel=1e-6)
    for a, b in zip(torch.autograd.grad(got, (hidden, head)), torch.autograd.grad(want, (hidden, head))):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_is_the_product(dtype):
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(33, 48, generator=g).to(dtype), torch.randn(20, 48, generator=g).to(dtype)
    rtol, atol = (1e-5, 1e-5) if dtype == torch.float32 else (1e-2, 5e-2)
    torch.testing.assert_close(product(x, w), x @ w.T, rtol=rtol, atol=atol)
    torch.testing.assert_close(product(x[:, :20].contiguous(), w.T), x[:, :20] @ w, rtol=rtol, atol=atol)


def test_a_loss_that_is_no_number_stays_one():
    hidden = torch.full((3, 4), torch.nan, requires_grad=True)
    loss = weighted_nll(hidden, torch.randn(5, 4), torch.zeros(3, dtype=torch.long), torch.ones(3))
    assert not torch.isfinite(loss)
