"""Attention of packed documents on CUDA, in memory that grows with the length: no [T, T] mask is built.

Two kernels for one rule, "t may see s where s <= t and both lie in the same document": FlexAttention (`flex`,
compiled) and torch's flash kernel over the tokens of all rows laid end to end (`flash`, half precision only). On an
H100 at Phi-4's heads and 16,384 tokens flex takes 23.6 ms forward and backward for one document and flash 30.0; cuDNN's
kernel for documents of unequal length took 149 and its gradient was not finite (`benchmarks/gpu.py`, torch 2.11).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from phikit.model.layout import BLOCK, Kernel


@dataclass(frozen=True)
class Documents:
    """The documents of B rows laid end to end: document d is tokens starts[d] .. starts[d + 1] - 1. Its length is
    padded (documents of no tokens) and `longest` is rounded up, both to powers of two: few shapes to compile."""

    starts: torch.Tensor  # [documents + 1], int32
    longest: int


def of_segments(segments_BT: torch.Tensor, kernel: Kernel, device: torch.device):
    """What `attend` takes for rows whose ids are on the CPU: a BlockMask for flex, else `Documents`. The tokens of a
    document lie together and its id is no other's in the row. Raises ValueError for flex where T is no multiple of
    128."""
    if kernel == "flex":
        return block_mask(copied(segments_BT, device))
    return documents(segments_BT, device)


def copied(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On `device`; to CUDA through pinned memory, so that nothing waits."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def documents(segments_BT: torch.Tensor, device: torch.device) -> Documents:
    b, t = segments_BT.shape
    first = torch.ones(b, t, dtype=torch.bool)
    first[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    starts = first.flatten().nonzero().flatten()
    padded = torch.full((_power_of_two(len(starts)) + 1,), b * t, dtype=torch.int32)
    padded[: len(starts)] = starts
    longest = min(t, _power_of_two(int(padded.diff().max())))
    return Documents(copied(padded, device), longest)


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def block_mask(segments_BT: torch.Tensor):
    """The BlockMask, from the ids at the ends of blocks alone."""
    from torch.nn.attention.flex_attention import BlockMask

    t = segments_BT.shape[1]
    if t % BLOCK:
        raise ValueError(
            f"layout.attention flex needs a context that is a multiple of {BLOCK}, not {t}: use flash"
        )
    first, last = segments_BT[:, ::BLOCK], segments_BT[:, BLOCK - 1 :: BLOCK]
    n = t // BLOCK
    ones = torch.ones(n, n, dtype=torch.bool, device=segments_BT.device)
    # Documents lie together: a block sees an earlier one where its first token is of that one's last document.
    seen = (ones.tril(-1) & (first[:, :, None] == last[:, None, :])) | ones.triu().tril()
    whole = ones.tril(-1) & (last[:, :, None] == first[:, None, :])

    def ordered(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        index = blocks.int().argsort(dim=-1, descending=True, stable=True)
        return blocks.sum(-1, dtype=torch.int32)[:, None], index.int()[:, None]

    def visible(batch, head, q, k):
        return (q >= k) & (segments_BT[batch, q] == segments_BT[batch, k])

    return BlockMask.from_kv_blocks(
        *ordered(seen & ~whole), *ordered(whole), BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(t, t)
    )


def is_block_mask(mask: object) -> bool:
    return type(mask).__name__ == "BlockMask"


@cache
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask) -> torch.Tensor:
    """[B, N, T, H]; K heads serve N."""
    from torch.nn.attention.flex_attention import flex_attention

    run = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    return run(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])  # type: ignore[return-value]


def end_to_end(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Documents) -> torch.Tensor:
    """[B, N, T, H]; K heads serve N."""
    b, n, t, h = q.shape
    flat = [x.transpose(1, 2).reshape(b * t, x.shape[1], h) for x in (q, k, v)]
    out = _forward(*flat, mask.starts, mask.longest)[0]
    return out.view(b, t, n, h).transpose(1, 2)


def _run(q, k, v, starts, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ops.aten._flash_attention_forward(
        q, k, v, starts, starts, longest, longest, 0.0, True, False
    )[:2]


def _run_backward(grad, q, k, v, out, denominators, starts, longest: int):
    seed = torch.zeros(2, dtype=torch.uint64, device=q.device)  # of a dropout that is not there
    return torch.ops.aten._flash_attention_backward(
        grad, q, k, v, out, denominators, starts, starts, longest, longest, 0.0, True, seed, seed
    )


@torch.library.custom_op("phikit::documents", mutates_args=())
def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, longest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention within each document, [tokens, N, H], and the log of each softmax's denominator, [N, tokens]."""
    return _run(q, k, v, starts, longest)


@_forward.register_fake
def _(q, k, v, starts, longest):
    return torch.empty_like(q), q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)


@torch.library.custom_op("phikit::documents_backward", mutates_args=())
def _backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    denominators: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _run_backward(grad, q, k, v, out, denominators, starts, longest)


@_backward.register_fake
def _(grad, q, k, v, out, denominators, starts, longest):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx, inputs, output) -> None:
    q, k, v, starts, ctx.longest = inputs
    ctx.save_for_backward(q, k, v, *output, starts)


def _differentiate(ctx, grad: torch.Tensor, _):
    return *_backward(grad, *ctx.saved_tensors, ctx.longest), None, None


_forward.register_autograd(_differentiate, setup_context=_save)
