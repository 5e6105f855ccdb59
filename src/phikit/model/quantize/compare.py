"""What quantizing did to a model: KL divergence per token, perplexity and the top token, against the source.

Both networks run in fp32 on the weights as their types round them, layer by layer: a layer of each is in memory
at a time, and the head. 14.66 B parameters take about 6 GB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from phikit.model.config import ModelConfig
from phikit.model.names import table
from phikit.model.rows import Rows, of_gguf_network, of_hf
from phikit.model.transformer import Block, RMSNorm, rope_table
from phikit.stats import Estimate, clustered_share, mean, paired

POSITIONS = 256  # rows of logits at once: 100 MB at Phi-4's vocabulary


@dataclass(frozen=True, slots=True)
class Comparison:
    """`kl`: KL(source || quantized) in nats per token. `log_ratio`: mean change of the text's own loss in nats
    per token, so that perplexity changes by the factor exp(log_ratio). `same_top`: share of positions with
    the same most likely token. Intervals are over windows of the text."""

    kl: Estimate
    log_ratio: Estimate
    same_top: Estimate
    source_perplexity: float
    perplexity: float
    tokens: int


def network(path: Path) -> tuple[list[Rows], ModelConfig]:
    """The tensors of a Hugging Face folder or a GGUF in layout phi3."""
    return of_gguf_network(path) if path.suffix == ".gguf" or path.is_file() else of_hf(path)


@torch.no_grad()
def compare(source: Path, quantized: Path, windows: Sequence[Sequence[int]]) -> Comparison:
    """`windows` are token sequences of one length, at least 2, each read from its first token on. Raises
    ValueError where the two files are not one network."""
    (a_rows, config), (b_rows, other) = network(source), network(quantized)
    if not _same_shape(config, other):
        raise ValueError(f"{quantized} is not {source} quantized: the shapes differ ({other} and {config})")
    tokens = torch.tensor([list(w) for w in windows])
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise ValueError("the text is too short: give at least one window of 2 tokens")
    if int(tokens.max()) >= config.vocab:
        raise ValueError(f"token {int(tokens.max())} is beyond the vocabulary of {config.vocab}")
    a, b = _hidden(a_rows, config, tokens[:, :-1]), _hidden(b_rows, config, tokens[:, :-1])
    head = "token_embd.weight" if config.tied else "output.weight"
    a_head, b_head = _matrix(_named(a_rows, head)), _matrix(_named(b_rows, head))
    kl, a_loss, b_loss, same = [], [], [], []
    targets = tokens[:, 1:].reshape(-1)
    for at in range(0, len(targets), POSITIONS):
        part, want = slice(at, at + POSITIONS), targets[at : at + POSITIONS, None]
        p = F.log_softmax(a[part] @ a_head.T, -1)
        q = F.log_softmax(b[part] @ b_head.T, -1)
        kl += (p.exp() * (p - q)).sum(-1).tolist()
        same += (p.argmax(-1) == q.argmax(-1)).float().tolist()
        a_loss += (-p.gather(1, want)[:, 0]).tolist()
        b_loss += (-q.gather(1, want)[:, 0]).tolist()
    clusters = [i for i in range(len(windows)) for _ in range(tokens.shape[1] - 1)]
    return Comparison(
        kl=mean(kl, clusters),
        log_ratio=paired(b_loss, a_loss, clusters),
        same_top=clustered_share(same, clusters),
        source_perplexity=math.exp(sum(a_loss) / len(a_loss)),
        perplexity=math.exp(sum(b_loss) / len(b_loss)),
        tokens=len(targets),
    )


def _same_shape(a: ModelConfig, b: ModelConfig) -> bool:
    """A GGUF does not say how weights were drawn, and keeps the norm's epsilon in fp32."""
    return math.isclose(a.norm_eps, b.norm_eps, rel_tol=1e-6) and a == replace(
        b, init_std=a.init_std, norm_eps=a.norm_eps
    )


def _hidden(rows: Sequence[Rows], config: ModelConfig, tokens: torch.Tensor) -> torch.Tensor:
    """Hidden states after the final norm, [all positions, D]."""
    x = _embed(_named(rows, "token_embd.weight"), tokens)
    positions = torch.arange(tokens.shape[1])[None]
    cos, sin = rope_table(positions, config.head_dim, config.rope_base)
    rope = cos[:, None], sin[:, None]
    with torch.device("meta"):
        block = Block(config)
    block.to_empty(device="cpu")
    for layer in range(config.layers):
        _fill(block, rows, config, layer)
        # Window by window: activations of one are small beside the layer.
        x = torch.cat([block(window, rope, None) for window in x.split(1)])
    norm = RMSNorm(config.width, config.norm_eps)
    norm.weight.copy_(_matrix(_named(rows, "output_norm.weight"))[0])
    return norm(x).reshape(-1, config.width)


def _fill(block: Block, rows: Sequence[Rows], config: ModelConfig, layer: int) -> None:
    parameters = dict(block.named_parameters())
    prefix = f"blocks.{layer}."
    for name in table(config):
        if not name.ours[0].startswith(prefix):
            continue
        tensor, at = _named(rows, name.gguf), 0
        for ours in name.ours:
            target = parameters[ours.removeprefix(prefix)]
            matrix = target if target.ndim > 1 else target[None]
            for a, b in _steps(len(matrix), tensor):
                matrix[a:b] = torch.from_numpy(tensor.read(at + a, at + b))
            at += len(matrix)


def _steps(count: int, tensor: Rows) -> Iterator[tuple[int, int]]:
    for a, b in tensor.ranges():
        if a < count:
            yield a, min(b, count)


def _embed(table_: Rows, tokens: torch.Tensor) -> torch.Tensor:
    ids = sorted(set(tokens.reshape(-1).tolist()))
    found = {i: torch.from_numpy(table_.read(i, i + 1))[0] for i in ids}
    return torch.stack([torch.stack([found[i] for i in row]) for row in tokens.tolist()])


def _matrix(rows: Rows) -> torch.Tensor:
    whole = torch.empty(rows.count, rows.width)
    for a, b in rows.ranges():
        whole[a:b] = torch.from_numpy(rows.read(a, b))
    return whole


def _named(rows: Sequence[Rows], name: str) -> Rows:
    return next(r for r in rows if r.name == name)
