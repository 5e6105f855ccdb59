"""Training checkpoints: everything a step depends on, written atomically, the newest two kept.

A checkpoint is one file `step-<n>.pt` of tensors and plain numbers (loaded with weights_only: no pickle runs).
Together with the data order, a pure function of (seed, rows consumed), it makes resume exact to the last bit on
one CPU. A damaged newest file falls back to the one before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from phikit.records.io import atomic_path

KEEP = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    with atomic_path(folder / f"step-{step:08d}.pt") as tmp:
        torch.save({"step": step, **state}, tmp)
    for old in _files(folder)[:-KEEP]:
        old.unlink()


def load(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint, or None."""
    for path in reversed(_files(folder)):
        try:
            return torch.load(path, weights_only=True)
        except Exception as e:  # a torn file: any of torch's or zipfile's errors
            print(
                f"  {path.name} is damaged ({type(e).__name__}); falling back to the one before",
                file=sys.stderr,
            )
            path.unlink()
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))
