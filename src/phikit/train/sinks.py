"""The log of a training stage as it grows, copied to TensorBoard, trackio or wandb: extras, none by default.

metrics.jsonl and speed.jsonl are written with or without them; sinks enter no fingerprint. A resumed run goes on at
its step. Their packages are asked for before the first step, not after the last.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

Name = Literal["tensorboard", "trackio", "wandb"]


class Sink(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `folder`/tensorboard/<stage>."""

    def __init__(self, stage: str, folder: Path) -> None:
        self._writer = _module("tensorboard", "torch.utils.tensorboard").SummaryWriter(
            str(folder / "tensorboard" / stage)
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class Tracker:
    """trackio, or wandb, which has the same three calls: the run folder is the project, the stage the run's name."""

    def __init__(self, package: str, stage: str, folder: Path, **more: Any) -> None:
        self._module = _module(package, package)
        self._module.init(project=folder.resolve().name, name=stage, **more)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._module.log(dict(values), step=step)

    def close(self) -> None:
        self._module.finish()


def open_sinks(names: Sequence[Name], stage: str, folder: Path) -> list[Sink]:
    """Raises ValueError for one whose package is not here."""
    makers = {
        "tensorboard": lambda: TensorBoard(stage, folder),
        "trackio": lambda: Tracker("trackio", stage, folder, resume="allow"),
        "wandb": lambda: Tracker("wandb", stage, folder, dir=str(folder)),
    }
    return [makers[name]() for name in names]


def numbers(*rows: Mapping[str, Any]) -> dict[str, float]:
    """What sinks show of the rows of both logs: all numbers but the step, tokens of a source as source/<name>."""
    found: dict[str, float] = {}
    for row in rows:
        for key, value in row.items():
            if key == "sources":
                found |= {f"source/{name}": n for name, n in value.items()}
            elif key not in ("step", "skipped"):
                found[key] = value
    return found


def _module(package: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise ValueError(
            f"metrics.sinks: {package} is not installed: pip install 'phikit[{package}]', or leave it out"
        ) from e
