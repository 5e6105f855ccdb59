"""A briefly trained network whose rows K-quants can cut: width 256, on a text of this repository's own words."""

from __future__ import annotations

import random

import torch

from phikit.model.config import ModelConfig
from phikit.model.logprob import token_logprobs
from phikit.model.transformer import Transformer, build
from phikit.text.tokenizer import Tokenizer

CONFIG = ModelConfig(512, 256, 2, 4, 2, 512, 128, rope_base=250_000.0)


def sentences(n: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    who = ("Ann", "Bob", "the cat", "a child", "the old man", "she")
    does = ("sees", "likes", "finds", "sells", "paints", "asks for")
    what = ("apples", "a house", "the river", "7 stones", "some bread", "the moon", "12 books")
    return " ".join(f"{rng.choice(who)} {rng.choice(does)} {rng.choice(what)}." for _ in range(n))


def trained(steps: int = 40) -> tuple[Transformer, Tokenizer]:
    """About ten seconds on one core."""
    text = sentences(1500)
    tokenizer = Tokenizer.train([text, "The user asked: def f(x):\n    return x\n" * 9], 300)
    ids = torch.tensor(tokenizer.encode(text))
    model = build(CONFIG, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        at = torch.randint(0, len(ids) - 65, (8,), generator=generator)
        batch = torch.stack([ids[i : i + 65] for i in at.tolist()])
        hidden = model(batch[:, :-1], torch.arange(64)[None], None)
        loss = -token_logprobs(hidden.reshape(-1, 256), model.head_weight, batch[:, 1:].reshape(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer
