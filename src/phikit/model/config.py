"""Shape of a network: Phi-3/Phi-4's decoder at any size (facts section 1.2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Names follow nanodo: vocab V, width D, heads N, kv_heads K, ffn F. head_dim H = width / heads."""

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    context: int
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    init_std: float = 0.02
    tied: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"model.width {self.width} must be a multiple of 2 x model.heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"model.heads {self.heads} must be a multiple of model.kv_heads {self.kv_heads}")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """All weights, embedding and head included."""
        kv = self.kv_heads * self.head_dim
        layer = self.width * (2 * self.width + 2 * kv) + 3 * self.width * self.ffn + 2 * self.width
        return self.layers * layer + self.width + self.vocab * self.width * (1 if self.tied else 2)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


PHI4 = ModelConfig(100_352, 5120, 40, 40, 10, 17_920, 16_384, rope_base=250_000.0)
