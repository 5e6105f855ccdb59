"""A small random network in a Hugging Face folder, with Phi-4's chat format."""

from __future__ import annotations

from pathlib import Path

import torch

from phikit.model.config import ModelConfig
from phikit.model.hf import save_hf
from phikit.model.transformer import build
from phikit.text.tokenizer import Tokenizer

TEXT = "the cat sat on the mat, the rat on the hat. It's 3 + 4? " * 3


def write_tiny_hf(folder: Path, config: ModelConfig, gain: float = 1.0) -> None:
    """`gain` on all weights makes the distributions less flat."""
    model = build(config, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(gain)
    save_hf(model, Tokenizer.train([TEXT], 280), folder)
