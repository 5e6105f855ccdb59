"""`open_engine("smollm2" | "runs/nano/sft" | "model.gguf" | "http://host:8000/v1#model")`."""

from __future__ import annotations

from pathlib import Path

from phikit.engine.base import Engine
from phikit.store.teacher import named_model


def open_engine(
    spec: str, *, context: int | None = None, parallel: int = 1, threads: int | None = None
) -> Engine:
    """The engine of a named model, a checkpoint folder (`hf/` inside, or itself with config.json), a GGUF
    file or an endpoint. `context`, `parallel` and `threads` are for GGUF only. Raises FileNotFoundError or
    ValueError."""
    if spec.startswith(("http://", "https://")):
        from phikit.engine.remote import RemoteEngine

        return RemoteEngine.from_spec(spec)
    path = Path(spec)
    folder = path / "hf" if (path / "hf" / "config.json").is_file() else path
    if (folder / "config.json").is_file():
        from phikit.engine.torch_engine import TorchEngine

        return TorchEngine.from_folder(folder)
    if path.is_dir():
        raise ValueError(
            f"{path}: not a checkpoint: neither hf/config.json nor config.json is in this folder"
        )
    if path.suffix != ".gguf":
        if path.exists() or "/" in spec:
            raise ValueError(
                f"{spec}: not a model; give a checkpoint folder, a .gguf file, http://host/v1#model or a name"
            )
        path = named_model(spec)
    from phikit.engine.llama import LlamaEngine

    return LlamaEngine(path, context=context, parallel=parallel, threads=threads)
