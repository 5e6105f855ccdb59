"""Reference log-probabilities of DPO: computed once by the model that enters the stage, kept as a file.

The trainer then holds one model (design section 3). The file is keyed by content, that is by the weights and the
ids of every pair, so it serves again where only the learning rate or beta changed, and never for other pairs.
"""

from __future__ import annotations

from pathlib import Path

import torch
import xxhash

from phikit.jobs.progress import bar
from phikit.model.ranks import world
from phikit.model.transformer import Transformer
from phikit.records.ids import fingerprint
from phikit.records.io import atomic_path
from phikit.train.objectives import response_logprobs
from phikit.train.pairs import PairRows

FILE = "reference.safetensors"
# Tokens of a forward pass: on a CPU larger ones take more memory and are no faster.
TOKENS, CUDA_TOKENS = 512, 8192


def add_reference(rows: PairRows, model: Transformer, cache: Path | None = None) -> bool:
    """Fills `rows.reference` [pairs, 2] in fp32, from the file `cache` where it holds the values of this model and
    these pairs; otherwise computes and writes them. True if they came from the file."""
    key = _key(rows, model) if cache else ""
    if cache and _read(cache, key, rows):
        return True
    model.eval()
    batch, device = rows.all(), model.head_weight.device
    with torch.no_grad(), bar("reference log-probs", total=len(batch), unit="pairs") as b:
        for part in batch.parts(max(1, (CUDA_TOKENS if device.type == "cuda" else TOKENS) // rows.context)):
            rows.reference[part.which] = response_logprobs(model, part.to(device)).cpu().numpy()
            b.advance(len(part.which))
    if cache and world()[0] == 0:
        _write(cache, key, rows)
    return False


def _key(rows: PairRows, model: Transformer) -> str:
    h = xxhash.xxh3_128()
    for name, p in model.named_parameters():
        h.update(name.encode())
        h.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return fingerprint({"weights": h.hexdigest(), "shape": model.config.to_dict(), "pairs": rows.sides})


def _read(path: Path, key: str, rows: PairRows) -> bool:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="numpy") as f:
            if (f.metadata() or {}).get("key") != key:
                return False
            rows.reference = f.get_tensor("logprobs")
    except SafetensorError:  # torn or foreign: it is computed again
        return False
    return True


def _write(path: Path, key: str, rows: PairRows) -> None:
    from safetensors.numpy import save

    with atomic_path(path) as tmp:
        tmp.write_bytes(save({"logprobs": rows.reference}, metadata={"key": key}))
