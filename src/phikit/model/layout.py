"""How a network is laid out on devices: the keys, and whether they fit a network, in words. Plans read this: no torch
is imported before a device is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from phikit.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

Kernel = Literal["flex", "flash"]  # of packed documents on CUDA (`model.documents`)
BLOCK = 128  # of FlexAttention's sparsity: only blocks at the edges of documents are masked by element
CHUNK = 4096  # positions whose logits are made at once; at V = 100,352 in fp32 1.6 GB
CPU_CHUNK = 512  # of `weighted_nll`: within 4 % of the best at V = 2,048 and 8,192
CUDA_CHUNK = 8192  # of `weighted_nll` in bf16: 1.6 GB of logits and as much of their gradients


@dataclass(frozen=True)
class Layout:
    """Ranks = replicas x fsdp x cp x tp; rows are divided among replicas x fsdp of them. Weights, gradients and
    moments are sharded over fsdp x cp, and over tp by heads, by the MLP's width and by the vocabulary. cp ranks
    divide the tokens of a row.

    `device` auto: CUDA where there is one. `precision` bf16 keeps fp32 weights, gradients and moments, and
    multiplies in bf16; fp8 multiplies the blocks' matrices in fp8 (`model.fp8`), all else as bf16. `recompute` blocks:
    the backward pass computes each block again instead of keeping what is inside it. `attention` is the kernel of
    packed documents on CUDA (`model.documents`). `timeout`: seconds that a rank in training waits for another."""

    fsdp: int = 1
    tp: int = 1
    cp: int = 1
    replicas: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp8"] = "fp32"
    compile: bool = False
    recompute: Literal["none", "blocks"] = "none"
    attention: Literal["auto", "flex", "flash"] = "auto"
    timeout: float = 600.0

    @property
    def half(self) -> bool:
        """Whether what is not multiplied in fp8 is multiplied in bf16."""
        return self.precision != "fp32"

    @property
    def data(self) -> int:
        """Ranks that rows are divided among."""
        return self.replicas * self.fsdp

    @property
    def ranks(self) -> int:
        return self.data * self.cp * self.tp


def misfits(c: ModelConfig, layout: Layout, context: int | None = None) -> list[str]:
    """What keeps the layout from this network, each with its fix."""
    heads = divisors(c.kv_heads)
    shown = f"{{{', '.join(map(str, heads))}}}"
    found = []
    if layout.tp * layout.cp not in heads:
        found.append(
            f"tp {layout.tp} x cp {layout.cp} does not divide the {c.kv_heads} KV heads: set layout.tp and "
            f"layout.cp so that their product is in {shown}"
        )
    for name, size in (("model.ffn", c.ffn), ("model.vocab", c.vocab)):
        if size % layout.tp:
            found.append(f"layout.tp {layout.tp} does not divide {name} {size}")
    if layout.precision == "fp8" and layout.tp > 1:
        found.append(
            "layout.precision fp8 divides no matrices: set layout.tp to 1, or layout.precision to bf16"
        )
    if context and context % layout.cp:
        found.append(f"layout.cp {layout.cp} does not divide the context of {context}")
    return found


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def device_of(layout: Layout) -> torch.device:
    """Raises ValueError where CUDA is asked for and there is none."""
    import torch

    cuda = torch.cuda.is_available()
    if layout.device == "cuda" and not cuda:
        raise ValueError("layout.device is cuda, but torch finds no CUDA device: set it to auto or cpu")
    if not cuda or layout.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def kernel_of(layout: Layout, device: torch.device, context: int) -> Kernel | None:
    """None, a dense mask, on the CPU and for rows that FlexAttention's blocks do not divide."""
    if device.type == "cpu":
        return None
    if layout.attention != "auto":
        return layout.attention
    return "flex" if context % BLOCK == 0 else None
