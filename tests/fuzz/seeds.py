"""The first inputs: small sound files of our own writers, in every type they write."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

TEXT = "the cat sat on the mat, the rat on the hat. " * 3


def write_seeds(folder: Path) -> dict[str, int]:
    """Writes `folder/<target>/seed-*`; the number of files by target."""
    from phikit.model.config import ModelConfig
    from phikit.model.gguf import phi3_keys, write_rows
    from phikit.model.hf import save_hf
    from phikit.model.quantize.types import FILE_TYPES
    from phikit.model.rows import of_model
    from phikit.model.transformer import build
    from phikit.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.train([TEXT], 275)
    found: dict[str, list[bytes]] = {"gguf": [], "safetensors": [], "tokenizer": []}
    spec = tokenizer.to_json()
    found["tokenizer"] = [spec.encode(), json.dumps(small(json.loads(spec))).encode()]
    with tempfile.TemporaryDirectory() as temporary:
        at = Path(temporary)
        for tied in (False, True):
            model = build(ModelConfig(288, 8, 1, 2, 1, 16, 32, tied=tied), 0)
            save_hf(model, tokenizer, at / f"hf-{tied}")
            found["safetensors"].append((at / f"hf-{tied}" / "model.safetensors").read_bytes())
        wide = build(ModelConfig(288, 32, 1, 2, 1, 32, 32), 0)
        for type_ in FILE_TYPES:
            try:
                write_rows(
                    at / "m.gguf", of_model(wide), type_, phi3_keys(wide.config, tokenizer, type_, "m")
                )
            except ValueError:
                continue  # K-quants need rows of 256, and a network of that width is no small file
            found["gguf"].append((at / "m.gguf").read_bytes())
    found["gguf"] = [f for raw in found["gguf"] for f in (thin(raw),)]
    for target, files in found.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for i, raw in enumerate(files):
            (folder / target / f"seed-{i}").write_bytes(raw)
    return {target: len(files) for target, files in found.items()}


def small(spec: dict) -> dict:
    """The same file with the tokens of a few letters, so that a change hits something other than the vocabulary."""
    letters = set("abcehmnorst.,\u0120")
    vocab = {t: i for t, i in spec["model"]["vocab"].items() if set(t) <= letters}
    merges = [m for m in spec["model"]["merges"] if set("".join(m)) <= letters]
    return {**spec, "model": {**spec["model"], "vocab": vocab, "merges": merges}}


def thin(raw: bytes) -> bytes:
    """The same GGUF with one tensor of two rows under each name: weights are not what is fuzzed."""
    from gguf_mutator import _repair, parse

    g = parse(raw)
    for t in g.tensors:
        t.dims = (t.dims[0], *(2 for _ in t.dims[1:]))
    _repair(g)
    return g.bytes()
