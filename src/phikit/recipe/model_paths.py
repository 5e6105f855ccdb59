"""Where a model lies that a person names: a run, a stage of one, a Hugging Face folder, a GGUF file or a name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phikit.store.teacher import named_model

if TYPE_CHECKING:
    from phikit.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model lies: a Hugging Face folder or a GGUF file, and what to call it."""

    path: Path
    name: str

    @property
    def is_gguf(self) -> bool:
        return not self.path.is_dir()  # a GGUF of the store is a blob without a suffix


def find(spec: str) -> Source:
    """A run folder, a stage of one, a Hugging Face folder, a GGUF file or a name. Raises FileNotFoundError or
    ValueError that says what was looked for."""
    path = Path(spec).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such GGUF file")
        return Source(path, path.stem)
    for folder in (path, path / "hf", path / "export" / "hf"):
        if (folder / "config.json").is_file():
            return Source(folder, path.resolve().name)
    if path.exists():
        raise ValueError(
            f"{path}: no model here: looked for config.json, hf/config.json and export/hf/config.json; name a "
            "Hugging Face folder, a finished run or stage, or a .gguf file"
        )
    return Source(named_model(spec), spec)


def model_path(spec: str) -> Path:
    return find(spec).path


def shape_of(source: Source) -> ModelConfig:
    """The shape of a network, from its config.json or the header of its GGUF; no weight is read and no torch
    imported."""
    if source.is_gguf:
        from phikit.model.gguf_config import config_of
        from phikit.model.gguf_header import read_gguf_header

        try:
            return config_of(read_gguf_header(source.path))[0]
        except ValueError as e:
            raise ValueError(f"{source.path}: {e}") from e
    from phikit.model.hf_config import read_config

    return read_config(source.path)
