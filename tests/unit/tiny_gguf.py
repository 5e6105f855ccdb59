"""A tiny random network as a GGUF: what the tests of LlamaEngine open."""

from pathlib import Path

import torch

from phikit.model.config import ModelConfig
from phikit.model.gguf import save_gguf
from phikit.model.transformer import Transformer, build
from phikit.text.tokenizer import Tokenizer

TEXT = (
    "The user asked: 3 + 4? It's 7, isn't it. def f(x):\n    return x\n"
    "Every good story has a beginning, a middle and an end; whoever tells it knows where he comes from.\n"
)
CONFIG = ModelConfig(320, 64, 2, 4, 2, 160, 256, rope_base=250_000.0)


def network(config: ModelConfig = CONFIG, factor: float = 4.0) -> Transformer:
    model = build(config, 5)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(factor)  # larger than a fresh network's: its distributions are not flat
    return model


def write_tiny(path: Path) -> tuple[Transformer, Tokenizer]:
    model, tokenizer = network(), Tokenizer.train([TEXT * 4], 310)
    save_gguf(model, tokenizer, path, ftype="f32")
    return model, tokenizer
