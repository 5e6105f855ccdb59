"""Where a network runs: on the CUDA device, where there is one, else on the CPU."""

from __future__ import annotations

import os

import torch

VARIABLE = "PHIKIT_DEVICE"


def choose_device(name: str | None = None) -> torch.device:
    """The device `name` (cpu, cuda, cuda:1); without it that of the environment variable PHIKIT_DEVICE; without
    either the current CUDA device if torch finds one, else the CPU. Raises ValueError for a device that is not here."""
    wanted = name or os.environ.get(VARIABLE) or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as e:
        raise ValueError(f"device {wanted!r}: write cpu, cuda or cuda:1") from e
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {wanted!r}: networks run on cpu or cuda")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ValueError(f"device {wanted!r}: torch {torch.__version__} finds {count} CUDA devices here")
    return device
