"""What the server tells of a model, out of the headers of its files: family, size, context, template, tokens."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from phikit.engine.gguf_meta import read_gguf

Kind = Literal["gguf", "safetensors"]
_LONG = 64  # items; longer lists of a header are shown only when asked for


@dataclass(frozen=True, slots=True)
class Facts:
    """`template` is Jinja, None for a base model without one; `keys` are the GGUF's own, or config.json's under
    their architecture. `bytes` is the size of the weights, `cache_bytes` of keys and values of one token."""

    kind: Kind
    path: Path
    architecture: str
    context: int
    vocab: int
    file_type: str
    parameters: int
    bytes: int
    cache_bytes: int
    template: str | None
    bos: str
    eos: str
    specials: Mapping[str, int]
    stop_ids: tuple[int, ...]
    add_bos: bool
    embedding_only: bool
    fingerprint: str
    keys: Mapping[str, Any]

    @property
    def size_label(self) -> str:
        """`14.7B`, `135M`: as Ollama shows it."""
        for unit, value in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
            if self.parameters >= value:
                x = self.parameters / value
                return f"{x:.1f}{unit}" if unit == "B" else f"{x:.2f}{unit}"
        return str(self.parameters)


def facts(path: Path) -> Facts:
    """Raises FileNotFoundError or ValueError that names the file: no GGUF is opened by llama.cpp before this."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    stamp = tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    return _facts(path, stamp)


@lru_cache(maxsize=64)
def _facts(path: Path, stamp: tuple[Any, ...]) -> Facts:
    return _of_folder(path) if path.is_dir() else _of_gguf(path)


def _of_gguf(path: Path) -> Facts:
    meta, header = read_gguf(path)
    keys, a = header.keys, meta.architecture
    heads = _int(keys, f"{a}.attention.head_count", 1)
    kv = _int(keys, f"{a}.attention.head_count_kv", heads)
    width = _int(keys, f"{a}.embedding_length", 0)
    head = _int(keys, f"{a}.attention.key_length", width // max(heads, 1))
    layers = _int(keys, f"{a}.block_count", 0)
    parameters = sum(math.prod(t.shape) for t in header.tensors.values())
    return Facts(
        kind="gguf", path=path, architecture=a, context=meta.context, vocab=meta.vocab, file_type=meta.file_type,
        parameters=parameters, bytes=path.stat().st_size, cache_bytes=2 * 2 * layers * kv * head,
        template=meta.template, bos=meta.bos, eos=meta.eos, specials=meta.specials, stop_ids=meta.stop_ids,
        add_bos=bool(keys.get("tokenizer.ggml.add_bos_token", False)) and bool(meta.bos),
        embedding_only=f"{a}.pooling_type" in keys and meta.template is None,
        fingerprint=meta.fingerprint, keys=keys,
    )  # fmt: skip


def _of_folder(folder: Path) -> Facts:
    from phikit.engine.chat_files import chat_of_folder
    from phikit.model.hf_config import read_config, read_object
    from phikit.model.safetensors_header import read_safetensors_header
    from phikit.text import chat
    from phikit.text.tokenizer import Tokenizer

    config, tokenizer = read_config(folder), Tokenizer.load(folder)
    dialog = chat_of_folder(folder, tokenizer)
    template, bos, eos, ends = chat.TEMPLATE, "", "", ()
    if dialog is None:
        ends = chat.stop_ids(tokenizer)
    else:
        own, ends = dialog.template, dialog.stop_ids
        template, bos, eos = (own.source, own.bos, own.eos) if own else (None, "", "")
    raw = read_object(folder / "config.json")
    weights = sorted(folder.glob("*.safetensors"))
    digest, parameters, kinds = hashlib.sha256(), 0, set()
    for path in weights:
        header = read_safetensors_header(path)
        digest.update(f"{path.name}{path.stat().st_size}".encode())
        with path.open("rb") as f:
            digest.update(f.read(1 << 20))
        for tensor in header.values():
            parameters += math.prod(tensor.shape)
            kinds.add(tensor.type)
    family = str(raw.get("model_type", "phi3"))
    return Facts(
        kind="safetensors", path=folder, architecture=family, context=config.context, vocab=config.vocab,
        file_type="/".join(sorted(kinds)), parameters=parameters, bytes=sum(p.stat().st_size for p in weights),
        cache_bytes=2 * 4 * config.layers * config.kv_heads * config.head_dim, template=template, bos=bos, eos=eos,
        specials=tokenizer.special_ids, stop_ids=tuple(ends), add_bos=False, embedding_only=False,
        fingerprint=digest.hexdigest()[:8],
        keys={"general.architecture": family, "general.parameter_count": parameters}
        | {f"{family}.{k}": v for k, v in raw.items() if isinstance(v, int | float | str | bool)},
    )  # fmt: skip


def shown(keys: Mapping[str, Any], verbose: bool) -> dict[str, Any]:
    """`model_info` of /api/show: long lists (the vocabulary) only where they are asked for."""
    found = {}
    for key, value in keys.items():
        is_list = not isinstance(value, str | int | float | bool)
        if key == "tokenizer.chat_template":
            continue
        found[key] = (list(value) if verbose or len(value) <= _LONG else None) if is_list else value
    return found


def _int(keys: Mapping[str, Any], name: str, default: int) -> int:
    value = keys.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:  # a list with a number for each layer
        return max(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return default
