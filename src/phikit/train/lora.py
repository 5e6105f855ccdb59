"""Low-rank adapters (LoRA, Hu et al. 2021) around the linear maps of a network: y = W x + scale B (A x), W frozen.

The network file knows nothing of them: `wrap` puts a module in place of each target, `merge` puts the plain ones
back with W + scale B A. What is one tensor in Phi3ForCausalLM (qkv_proj, gate_up_proj) has one A, shared by its
parts, as PEFT trains it there; `save_adapter` writes PEFT's own files. At the start B = 0: the wrapped model is
still its own reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from phikit.model.config import ModelConfig
from phikit.model.names import Layout, table
from phikit.model.transformer import Transformer
from phikit.records.io import atomic_path, write_json

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # names that PEFT looks for


@dataclass(frozen=True)
class LoRAConfig:
    """`alpha` None: 2 x rank. The report trains all parameters; this is for a model on a small machine."""

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS

    @property
    def scale(self) -> float:
        return (2.0 * self.rank if self.alpha is None else self.alpha) / self.rank


class LoRALinear(nn.Module):
    """In place of `base`, whose weight it holds under the same name. `lora_a` [rank, in], `lora_b` [out, rank]."""

    def __init__(self, base: nn.Linear, lora_a: nn.Parameter, config: LoRAConfig) -> None:
        super().__init__()
        self.base = (base,)  # in a tuple: its parameter is registered once, as `weight`
        self.weight = base.weight
        self.lora_a = lora_a
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, config.rank))
        self.scale, self.dropout = config.scale, config.dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a)
        return F.linear(x, self.weight) + F.linear(low, self.lora_b) * self.scale


def wrap(model: Transformer, config: LoRAConfig, seed: int) -> None:
    """Freezes every parameter and puts adapters around the targets of every block. A is drawn from a stream
    seeded by (seed, its name), uniform within 1 / sqrt(in) as PEFT does; B is 0. Raises ValueError for a target
    that is not there."""
    if unknown := sorted(set(config.targets) - set(TARGETS)):
        raise ValueError(f"lora.targets: {unknown} are not among {list(TARGETS)}")
    model.requires_grad_(False)
    for group in _groups(model.config):
        chosen = [name for name in group if name.rpartition(".")[2] in config.targets]
        if not chosen:
            continue
        width = model.get_parameter(f"{chosen[0]}.weight").shape[1]
        digest = hashlib.sha256(f"{seed}/{chosen[0]}.lora_a".encode()).digest()
        g = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        a = nn.Parameter(torch.empty(config.rank, width).uniform_(-1, 1, generator=g) / width**0.5)
        for name in chosen:
            base = model.get_submodule(name)
            assert isinstance(base, nn.Linear)
            model.set_submodule(name, LoRALinear(base, a, config))


def merge(model: Transformer) -> None:
    """Adds scale B A to the weights and takes the adapters away; all parameters are trainable again."""
    for name, module in list(_adapters(model)):
        with torch.no_grad():
            module.weight += module.scale * (module.lora_b @ module.lora_a)
        model.set_submodule(name, module.base[0])
    model.requires_grad_(True)


def save_adapter(
    model: Transformer, config: LoRAConfig, folder: Path, base: str, layout: Layout = "phi3"
) -> None:
    """Writes PEFT's folder for a model of `layout`; `base` is the path of the base model that PEFT will look for.
    A part of a fused tensor without an adapter has rows of zeros in B."""
    from safetensors.torch import save

    adapters = dict(_adapters(model))
    tensors: dict[str, torch.Tensor] = {}
    targets: set[str] = set()
    for name in table(model.config, layout):
        parts = [o.removesuffix(".weight") for o in name.ours]
        if not (own := [adapters[p] for p in parts if p in adapters]):
            continue
        outside = name.hf.removesuffix(".weight")
        targets.add(outside.rpartition(".")[2])
        b = [
            adapters[p].lora_b if p in adapters else torch.zeros(_rows(model, p), config.rank) for p in parts
        ]
        tensors[f"base_model.model.{outside}.lora_A.weight"] = own[0].lora_a.detach().clone()
        tensors[f"base_model.model.{outside}.lora_B.weight"] = torch.cat([x.detach() for x in b])
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as tmp:
        tmp.write_bytes(save(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG, {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": config.rank,
        "lora_alpha": config.scale * config.rank, "lora_dropout": config.dropout, "target_modules": sorted(targets),
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
        "use_rslora": False,
    })  # fmt: skip


def _groups(config: ModelConfig) -> list[list[str]]:
    """Module names of the blocks' linear maps, those together that are one tensor in Phi3ForCausalLM."""
    names = [[o.removesuffix(".weight") for o in n.ours] for n in table(config, "phi3")]
    return [n for n in names if n[0].rpartition(".")[2] in TARGETS]


def _adapters(model: Transformer) -> Iterator[tuple[str, LoRALinear]]:
    return ((n, m) for n, m in model.named_modules() if isinstance(m, LoRALinear))


def _rows(model: Transformer, name: str) -> int:
    return model.get_parameter(f"{name}.weight").shape[0]
