"""A network from whatever holds one: a Hugging Face folder or a GGUF file."""

from __future__ import annotations

from pathlib import Path

from phikit.model.assemble import DTypeName
from phikit.model.config import ModelConfig
from phikit.model.transformer import Transformer


def load_model(path: Path, *, dtype: DTypeName = "fp32") -> tuple[Transformer, ModelConfig]:
    """The network at `path` in evaluation mode. Memory peaks below 1.1 times its weights. Raises
    FileNotFoundError or ValueError that names the file and what is wrong with it."""
    if path.suffix == ".gguf" or path.is_file():  # a GGUF of the store is a blob without a suffix
        from phikit.model.gguf_read import load_gguf

        return load_gguf(path, dtype=dtype)
    from phikit.model.hf_read import load_hf

    return load_hf(path, dtype=dtype)
