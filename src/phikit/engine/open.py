"""`open_engine("smollm2" | "runs/nano/sft" | "model.gguf" | "torch:model.gguf" | "vllm:phi-4" | "http://host/v1#model")`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from phikit.engine.base import Engine
from phikit.store.teacher import named_model

Kind = Literal["torch", "llama", "vllm"]


def split_kind(spec: str) -> tuple[Kind | None, str]:
    """("torch", "model.gguf") of "torch:model.gguf"; (None, spec) where no engine is named."""
    before, _, rest = spec.partition(":")
    for kind in get_args(Kind):
        if before == kind and rest:
            return kind, rest
    return None, spec


def open_engine(
    spec: str,
    *,
    context: int | None = None,
    parallel: int = 1,
    threads: int | None = None,
    kind: Kind | None = None,
    device: str | None = None,
    gpus: int = 1,
) -> Engine:
    """The engine of a named model (of the store, or smollm2), a checkpoint folder (`hf/` inside, or itself with
    config.json), a GGUF file or an endpoint. A GGUF runs in llama.cpp; with `kind` "torch", or "torch:" before `spec`,
    as a torch network; with "vllm" a folder runs in vLLM, on `gpus` GPUs. `parallel` and `threads` are for llama.cpp
    only, `context` for it and vLLM, `device` (cpu, cuda, cuda:1) for torch networks only: without it a CUDA device is
    taken where there is one. Raises FileNotFoundError or ValueError."""
    named, rest = split_kind(spec)
    if named is not None:
        if kind is not None and kind != named:
            raise ValueError(f"{spec}: asks for the engine {named}, the caller for {kind}")
        spec, kind = rest, named
    if spec.startswith(("http://", "https://")):
        if kind is not None:
            raise ValueError(f"{spec}: an endpoint is no {kind} engine")
        from phikit.engine.remote import RemoteEngine

        return RemoteEngine.from_spec(spec)
    return open_weights(
        weights_of(spec),
        context=context,
        parallel=parallel,
        threads=threads,
        kind=kind,
        device=device,
        gpus=gpus,
    )


def open_weights(
    path: Path,
    *,
    context: int | None = None,
    parallel: int = 1,
    threads: int | None = None,
    kind: Kind | None = None,
    device: str | None = None,
    gpus: int = 1,
) -> Engine:
    """As `open_engine`, of a GGUF file (whatever it is called) or a Hugging Face folder."""
    if gpus > 1 and kind != "vllm":
        raise ValueError(f"{path}: {gpus} GPUs for one engine are for vLLM: vllm:{path}")
    if kind == "vllm":
        if not path.is_dir():
            raise ValueError(f"{path}: vLLM runs Hugging Face folders here: give the model as a folder")
        from phikit.engine.vllm_engine import VllmEngine

        return VllmEngine(path, context=context, gpus=gpus)
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
