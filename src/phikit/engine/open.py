"""`open_engine("smollm2" | "runs/nano/sft" | "model.gguf" | "torch:model.gguf" | "http://host:8000/v1#model")`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from phikit.engine.base import Engine
from phikit.store.teacher import named_model

Kind = Literal["torch", "llama"]


def open_engine(
    spec: str,
    *,
    context: int | None = None,
    parallel: int = 1,
    threads: int | None = None,
    kind: Kind | None = None,
    device: str | None = None,
) -> Engine:
    """The engine of a named model (of the store, or smollm2), a checkpoint folder (`hf/` inside, or itself with
    config.json), a GGUF file or an endpoint. A GGUF runs in llama.cpp; with `kind` "torch", or "torch:" before `spec`,
    as a torch network. `context`, `parallel` and `threads` are for llama.cpp only, `device` (cpu, cuda, cuda:1) for
    torch networks only: without it a CUDA device is taken where there is one. Raises FileNotFoundError or
    ValueError."""
    before, colon, rest = spec.partition(":")
    if colon and before in ("torch", "llama"):
        if kind is not None and kind != before:
            raise ValueError(f"{spec}: asks for the engine {before}, the caller for {kind}")
        spec, kind = rest, before
    if spec.startswith(("http://", "https://")):
        if kind is not None:
            raise ValueError(f"{spec}: an endpoint is no {kind} engine")
        from phikit.engine.remote import RemoteEngine

        return RemoteEngine.from_spec(spec)
    return open_weights(
        weights_of(spec), context=context, parallel=parallel, threads=threads, kind=kind, device=device
    )


def open_weights(
    path: Path,
    *,
    context: int | None = None,
    parallel: int = 1,
    threads: int | None = None,
    kind: Kind | None = None,
    device: str | None = None,
) -> Engine:
    """As `open_engine`, of a GGUF file (whatever it is called) or a Hugging Face folder."""
    if path.is_dir() and kind == "llama":
        raise ValueError(
            f"{path}: llama.cpp runs GGUF files: `phikit export --to gguf` makes one of a folder"
        )
    if path.is_dir() or kind == "torch":
        from phikit.engine.torch_engine import TorchEngine

        open_torch = TorchEngine.from_folder if path.is_dir() else TorchEngine.from_gguf
        return open_torch(path, device=device)
    from phikit.engine.llama import LlamaEngine

    return LlamaEngine(path, context=context, parallel=parallel, threads=threads)


def weights_of(spec: str) -> Path:
    """The GGUF file or Hugging Face folder that a path or a name means. Raises FileNotFoundError or ValueError."""
    path = Path(spec)
    for folder in (path / "hf", path):
        if (folder / "config.json").is_file():
            return folder
    if path.is_dir():
        raise ValueError(
            f"{path}: not a checkpoint: neither hf/config.json nor config.json is in this folder"
        )
    if path.suffix == ".gguf":
        return path
    if path.exists():
        raise ValueError(
            f"{spec}: not a model; give a checkpoint folder, a .gguf file, http://host/v1#model or a name"
        )
    return named_model(spec)
