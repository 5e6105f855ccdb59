"""One attention function, `attend(q, k, v, segments)`: causal, and never across documents of a packed row."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def document_mask(segments_BT: torch.Tensor) -> torch.Tensor:
    """[B, 1, T, T] bool: position t may see s where s <= t and both lie in the same document. Segment ids
    differ between neighbours; padding has its own id."""
    t = segments_BT.shape[1]
    same = segments_BT[:, None, :, None] == segments_BT[:, None, None, :]
    return same & torch.ones(t, t, dtype=torch.bool, device=segments_BT.device).tril()


def attend(
    q_BNTH: torch.Tensor, k_BKSH: torch.Tensor, v_BKSH: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Softmax attention with scale H^-0.5; K key/value heads serve N query heads. `mask` None means causal
    over equal lengths. Returns [B, N, T, H]."""
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    if groups > 1 and q_BNTH.shape[2] == 1:  # decoding: the query heads of a kv head stand in for its queries
        b, n, _, h = q_BNTH.shape
        return attend(q_BNTH.view(b, n // groups, groups, h), k_BKSH, v_BKSH, mask).view(b, n, 1, h)
    if groups > 1:
        k_BKSH, v_BKSH = (x.repeat_interleave(groups, dim=1) for x in (k_BKSH, v_BKSH))
    dtype = q_BNTH.dtype
    if q_BNTH.device.type == "cpu" and dtype == torch.bfloat16:
        # torch's CPU kernel takes 2.2x the time in bf16 at T = 128 and the same at T = 512 (forward + backward).
        with torch.autocast("cpu", enabled=False):
            return _sdpa(q_BNTH.float(), k_BKSH.float(), v_BKSH.float(), mask).to(dtype)
    return _sdpa(q_BNTH, k_BKSH, v_BKSH, mask)


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
