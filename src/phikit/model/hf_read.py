"""Hugging Face folders in: Phi3ForCausalLM and LlamaForCausalLM. Weights are safetensors only: no pickle is ever
read."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch

from phikit.model.assemble import DTypeName, FileTensor, Place, assemble, differs, mapped, plain
from phikit.model.config import ModelConfig
from phikit.model.hf_config import read_config, read_layout, read_object
from phikit.model.names import Layout, table
from phikit.model.safetensors_header import SafeTensor, read_safetensors_header
from phikit.model.transformer import Transformer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_hf(folder: Path, *, dtype: DTypeName = "fp32") -> tuple[Transformer, ModelConfig]:
    """The network of a folder, one safetensors file or several with an index, in evaluation mode and with
    parameters of `dtype`. Raises FileNotFoundError or ValueError that names the file and the key or tensor."""
    config, layout, tensors = open_hf(folder)
    places = [Place(n.hf, n.ours) for n in table(config, layout)]
    return assemble(config, places, tensors, dtype=dtype, where=folder), config


def open_hf(folder: Path) -> tuple[ModelConfig, Layout, dict[str, FileTensor]]:
    """The shape, the layout and the tensors of a folder by name; no weight is read yet. Raises as `load_hf` does."""
    config, layout = read_config(folder), read_layout(folder)
    files = weight_files(folder)
    size = sum(f.stat().st_size for f in files)
    if config.parameters > size:  # also keeps a damaged config.json from asking for all memory
        raise ValueError(
            f"{folder}: config.json means {config.parameters:,} parameters, the files are {size:,} bytes"
        )
    tensors: dict[str, FileTensor] = {}
    for file in files:
        for name, tensor in read_safetensors_header(file).items():
            if name in tensors:
                raise ValueError(f"{file}: tensor {name!r} is in two files")
            if not name.endswith("rotary_emb.inv_freq"):  # old files hold this constant
                tensors[name] = _tensor(file, tensor)
    head, embedding = tensors.get(_HEAD), tensors.get(_EMBEDDING)
    if config.tied and head and embedding:  # saved twice, which is harmless where both are the same
        if differs(head, embedding):
            raise ValueError(
                f"{folder}: lm_head.weight differs from the embedding although tie_word_embeddings is true"
            )
        del tensors[_HEAD]
    return config, layout, tensors


def _tensor(file: Path, tensor: SafeTensor) -> FileTensor:
    if tensor.type not in _FLOATS:
        raise ValueError(f"{file}: tensor {tensor.name!r} is {tensor.type}; {', '.join(_FLOATS)} are read")
    dtype, tail = _FLOATS[tensor.type], tensor.shape[1:]
    row = prod(tail) * dtype.itemsize

    def read(a: int, b: int) -> torch.Tensor:
        return plain(mapped(file, tensor.start + a * row, (b - a) * row), dtype, (b - a, *tail))

    return FileTensor(file, tensor.type, tensor.shape, read)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder. Raises FileNotFoundError, or ValueError naming the index."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        raise FileNotFoundError(
            f"{folder}: neither {WEIGHTS} nor {INDEX} (pickle files such as .bin are not read)"
        )
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(v, str) for v in places.values()):
        raise ValueError(f"{index}: no weight_map of tensor names to files")
    names = sorted(set(places.values()))
    if wrong := [n for n in names if Path(n).name != n or not n.endswith(".safetensors")]:
        raise ValueError(f"{index}: weight_map names {wrong[0]!r}, not a .safetensors file of this folder")
    files = [folder / n for n in names]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: named in {INDEX} but not there; fetch it")
    return files
