"""What a training step costs, by arithmetic: floating-point operations, and bytes by kind on one device.

FLOPs are those of the model, whatever a layout computes twice: 6 for each weight that multiplies and token (an
untied input embedding only looks up), and 12 x layers x width for each pair of a query and a key that it sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from phikit.model.config import ModelConfig
from phikit.model.layout import CPU_CHUNK, CUDA_CHUNK, Layout

if TYPE_CHECKING:
    from phikit.train.simulate import Trace

# bf16 peak of one device in FLOP/s, dense.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}


def multiplying(c: ModelConfig) -> int:
    """Weights that multiply."""
    return c.parameters - (0 if c.tied else c.vocab * c.width)


def train_flops(c: ModelConfig, tokens: int, pairs: float) -> float:
    """Of a forward and a backward pass; `pairs` of a query and a key that it sees, itself included."""
    return 6.0 * multiplying(c) * tokens + 12.0 * c.layers * c.width * pairs


def causal_pairs(tokens: int, document: int) -> float:
    """Pairs where every document has this length."""
    return tokens * (document + 1) / 2


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a step."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int  # what the backward pass needs of the blocks
    buffers: (
        int  # logits of a chunk, the head's gradient of one forward pass, what one block's backward makes
    )

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))


def working_memory(c: ModelConfig, layout: Layout, tokens: int) -> tuple[int, int]:
    """(activations, buffers) as in `Memory`, by arithmetic: an estimate without torch, where `simulate.trace` runs the
    network itself. `tokens` of one forward pass on this rank, after division by cp."""
    cuda = layout.device != "cpu"
    half = 2 if layout.half else 4
    kv = c.kv_heads * c.head_dim
    stream = half if cuda else 4
    # Kept by a block: the stream twice, q k v, the output of attention, gate and up; norms and the product of gate and
    # up are made again by a compiled block.
    inner = (c.width + 2 * kv + c.width + 2 * c.ffn) * half + 2 * c.width * stream
    if not layout.compile and not cuda and layout.tp == 1:
        # `model.fused`: q and k in fp32, keys and values once more
        inner = 4 * (3 * c.width + 2 * kv) + (kv + c.width + 2 * c.ffn) * half
    elif not layout.compile:
        # and norms twice in fp32, their outputs, silu(gate), its product, what RoPE rotates
        inner += (2 * c.width + 2 * c.ffn + c.width + kv) * half + 2 * c.width * 4
    inner //= layout.tp
    whole = layout.recompute == "none"
    per_token = c.layers * inner if whole else c.layers * c.width * stream + inner
    chunk = min(tokens, CUDA_CHUNK if cuda else CPU_CHUNK)
    head = c.vocab * c.width // layout.tp
    # On the CPU their gradient takes the place of the logits.
    logits = chunk * c.vocab // layout.tp * half * (2 if cuda else 1)
    block = tokens * (3 * c.ffn * half + 2 * c.width * stream) // layout.tp
    return tokens * per_token, max(logits + head * (4 + half), block + head * 4)


@dataclass(frozen=True)
class Device:
    """Rates of a device and of its links, in FLOP/s and bytes/s, as microbenchmarks give them: matrix products,
    attention, copies (bytes read and written), collectives over the ranks of a node (`near`) and of several (`far`),
    and of single kinds of collectives (`kinds`) their multiple of that. `fused`: the share of what element-wise
    operations move in eager mode that is left in compiled blocks.

    A CPU has more: `call`, the seconds of an operation on next to nothing, and `divided` those of one on a DTensor;
    sums over shards are not `beside` the computation."""

    name: str
    memory: float  # bytes
    peak: float
    matmul: float
    attention: float
    copy: float
    near: float
    far: float
    node: int = 8  # devices
    fused: float = 0.4
    hour: float = 0.0  # price
    kinds: Mapping[str, float] = field(default_factory=dict)
    call: float = 0.0
    divided: float = 0.0
    beside: bool = True

    def collective(self, kind: str, size: float, ranks: int, apart: int) -> float:
        """Seconds of collectives of together `size` bytes, whole tensors, over `ranks` that lie `apart`."""
        rate = (self.near if ranks * apart <= self.node else self.far) * self.kinds.get(kind, 1.0)
        return size * (2 if kind == "all_reduce" else 1) * (ranks - 1) / ranks / rate


# H100 SXM: matrix products, attention and copies as measured by benchmarks/gpu.py; links are 80 % of NVLink 4 and 90 %
# of one 400 Gb/s port a GPU (data sheets); the price is an assumption.
H100 = Device("h100", 79e9, PEAKS["H100"], 715e12, 400e12, 2.7e12, 360e9, 45e9, hour=2.5)
DEVICES = {"h100": H100}


def groups(layout: Layout) -> dict[str, tuple[int, int]]:
    """Of each group of ranks that `Trace.sent` names: how many they are, and how many ranks lie between two of them."""
    return {
        "tp": (layout.tp, 1),
        "cp": (layout.cp, layout.tp),
        "shard": (layout.fsdp * layout.cp, layout.tp),
        "replicas": (layout.replicas, layout.fsdp * layout.cp * layout.tp),
    }


def step_seconds(device: Device, layout: Layout, found: Trace, passes: int) -> dict[str, float]:
    """Seconds of a step of `passes` forward and backward passes, by what they go to. `found` is the trace of one.
    Sums over tp and cp ranks stop the computation; those of shards run beside it where the device can; those over
    replicas come once."""
    copied = found.moved * (device.fused if layout.compile else 1.0)
    seconds = {
        "matrix products": passes * found.matmul / device.matmul,
        "attention": passes * found.attention / device.attention,
        "other": passes * copied / device.copy,
        "calls": passes * ((found.calls - found.divided) * device.call + found.divided * device.divided),
        "optimizer": 11 * found.memory.parameters / device.copy,
    }
    ranks, beside = groups(layout), 0.0
    for (group, kind), (size, _) in found.sent.items():
        n, apart = ranks[group]
        if n == 1:
            continue
        took = device.collective(kind, size, n, apart)
        if group == "shard" and device.beside:
            beside += passes * took
        else:
            seconds[f"{group} sums"] = seconds.get(f"{group} sums", 0.0) + took * (
                1 if group == "replicas" else passes
            )
    computing = sum(v for k, v in seconds.items() if k != "optimizer")
    seconds["waiting for shards"] = max(0.0, beside - computing)
    return seconds
