"""Attention of packed documents by block mask and end to end, and the loss with its own gradients, against the dense
forms. The CUDA kernels themselves are checked by benchmarks/gpu.py; here loops stand in their place."""

from __future__ import annotations

import warnings

import pytest
import torch

from phikit.model import documents
from phikit.model.attention import attend, document_mask, mask_of
from phikit.model.config import ModelConfig
from phikit.model.layout import Layout
from phikit.model.logprob import token_logprobs, weighted_nll
from phikit.model.parallel import parallelize
from phikit.model.ranks import Ranks
from phikit.model.transformer import build

CPU = torch.device("cpu")


def segments(context: int) -> torch.Tensor:
    """Rows of few and many documents, one that fills a row, blocks that end with a document, padding."""
    g = torch.Generator().manual_seed(0)
    rows = [torch.zeros(context), torch.arange(context) // 128, torch.arange(context) // 100]
    ends = torch.randint(1, 90, (context,), generator=g).cumsum(0)
    rows += [torch.searchsorted(ends, torch.arange(context), right=True)]
    padded = rows[2].clone()
    padded[context - 77 :] = -1
    return torch.stack([*rows, padded]).long()


@pytest.mark.parametrize("context", [128, 512])
def test_the_block_mask_is_the_document_mask(context):
    ids = segments(context)
    mask, dense = documents.block_mask(ids), document_mask(ids)[:, 0]
    n = context // 128
    blocks = dense.view(len(ids), n, 128, n, 128).transpose(2, 3).flatten(3)
    seen = torch.zeros(len(ids), n, n, dtype=torch.bool)
    for counts, index, whole in (
        (mask.kv_num_blocks, mask.kv_indices, False), (mask.full_kv_num_blocks, mask.full_kv_indices, True),
    ):  # fmt: skip
        for b in range(len(ids)):
            for i in range(n):
                for j in index[b, 0, i, : counts[b, 0, i]].tolist():  # type: ignore[index]
                    assert not seen[b, i, j]
                    seen[b, i, j] = True
                    assert bool(blocks[b, i, j].all()) == whole
    assert torch.equal(seen, blocks.any(-1))
    q = torch.randn(len(ids), 4, context, 16)
    k, v = torch.randn(2, len(ids), 2, context, 16)
    from torch.nn.attention.flex_attention import flex_attention

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it runs unfused
        got = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
    assert torch.allclose(got, attend(q, k, v, document_mask(ids)), atol=1e-5)  # type: ignore[arg-type]


def test_a_context_that_blocks_do_not_divide():
    with pytest.raises(ValueError, match="multiple of 128, not 100: use flash"):
        mask_of(segments(100), "flex", CPU)


def loop(q, k, v, starts, longest):
    """What the flash kernel computes."""
    groups = q.shape[1] // k.shape[1]
    out, below = torch.zeros_like(q), q.new_zeros(q.shape[1], q.shape[0], dtype=torch.float32)
    for a, b in zip(starts.tolist(), starts[1:].tolist()):
        assert b - a <= longest
        if a == b:
            continue
        qs, ks, vs = (x[a:b].transpose(0, 1).double() for x in (q, k, v))
        ks, vs = (x.repeat_interleave(groups, 0) for x in (ks, vs))
        scores = qs @ ks.mT * q.shape[2] ** -0.5
        scores = scores.masked_fill(~torch.ones(b - a, b - a, dtype=torch.bool).tril(), -torch.inf)
        out[a:b] = (scores.softmax(-1) @ vs).transpose(0, 1).to(q.dtype)
        below[:, a:b] = scores.logsumexp(-1).float()
    return out, below


def loop_backward(grad, q, k, v, out, below, starts, longest):
    """By the formulas, from the denominators that were kept."""
    n, groups = len(q), q.shape[1] // k.shape[1]
    ids = torch.searchsorted(starts.long(), torch.arange(n), right=True)
    mask = (ids[:, None] == ids[None]) & torch.ones(n, n, dtype=torch.bool).tril()
    dense = [x.transpose(0, 1) for x in (q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))]
    scale = q.shape[2] ** -0.5
    p = ((dense[0] @ dense[1].mT * scale) - below[:, :, None]).exp() * mask
    g, o = grad.transpose(0, 1), out.transpose(0, 1)
    ds = p * (g @ dense[2].mT - (g * o).sum(-1, keepdim=True)) * scale

    def joined(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(0, (-1, groups)).sum(1).transpose(0, 1).contiguous()

    return (ds @ dense[1]).transpose(0, 1).contiguous(), joined(ds.mT @ dense[0]), joined(p.mT @ g)


def test_end_to_end_is_the_dense_mask(monkeypatch):
    monkeypatch.setattr(documents, "_run", loop)
    monkeypatch.setattr(documents, "_run_backward", loop_backward)
    ids = segments(128)
    mask = mask_of(ids, "flash", CPU)
    assert len(mask.starts) - 1 == 1 << (len(mask.starts) - 2).bit_length()
    inputs = [torch.randn(len(ids), n, 128, 16, requires_grad=True) for n in (4, 2, 2)]
    grad = torch.randn(len(ids), 4, 128, 16)
    got, want = attend(*inputs, mask), attend(*inputs, document_mask(ids))
    assert torch.allclose(got, want, atol=1e-5)
    for a, b in zip(torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad)):
        assert torch.allclose(a, b, atol=1e-5)
    # The whole network, each block recomputed in the backward pass.
    tokens, position = torch.randint(0, 50, ids.shape), torch.arange(128).expand_as(ids)
    config = ModelConfig(50, 32, 2, 4, 2, 48, 128)
    plain, other = build(config, 0), build(config, 0)
    parallelize(other, Ranks(Layout(device="cpu", recompute="blocks")), compile=False)
    loss = plain(tokens, position, ids).square().sum()
    again = other(tokens, position, None, mask).square().sum()
    loss.backward(), again.backward()
    for (name, p), r in zip(plain.named_parameters(), other.parameters()):
        if p.grad is not None:
            assert torch.allclose(p.grad, r.grad, rtol=1e-3, atol=1e-4), name  # type: ignore[arg-type]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("chunk", [4, 7, 64])
def test_the_loss_that_makes_its_own_gradients(half, chunk):
    g = torch.Generator().manual_seed(1)
    hidden = torch.randn(30, 16, generator=g, requires_grad=True)
    head = torch.randn(50, 16, generator=g, requires_grad=True)
    targets, weight = torch.randint(0, 50, (30,), generator=g), torch.rand(30, generator=g)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        want = -(token_logprobs(hidden, head, targets) * weight).sum()
        got = weighted_nll(hidden, head, targets, weight, chunk)
    near = {"rtol": 2e-2, "atol": 2e-2} if half else {"rtol": 1e-5, "atol": 1e-5}
    assert torch.allclose(got, want, **near)
    for a, b in zip(
        torch.autograd.grad(got / 3, (hidden, head)), torch.autograd.grad(want / 3, (hidden, head))
    ):
        assert a.dtype == torch.float32
        assert torch.allclose(a, b, **near)
    with torch.no_grad():
        assert torch.allclose(weighted_nll(hidden, head, targets, weight, chunk), want, **near)
    frozen = weighted_nll(hidden, head.detach(), targets, weight, 4)
    plain = -(token_logprobs(hidden, head.detach(), targets) * weight).sum()
    (a,), (b,) = (torch.autograd.grad(x, hidden) for x in (frozen, plain))
    assert torch.allclose(a, b, atol=1e-5)
