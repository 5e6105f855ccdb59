"""Which weights answered: what the journal and run.json call a model, whatever its file is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

from phikit.engine.base import Engine

_END = 1 << 20  # bytes hashed at both ends of a weight file: whole 30 GB files would take minutes


def identity(engine: Engine) -> str:
    """The numerics class and, for a folder, a hash over its configuration, tokenizer and weight files (size and both
    ends). A GGUF's and an endpoint's name say it already."""
    name, numerics = engine.info.name, engine.info.numerics
    for folder in (Path(name) / "hf", Path(name)):
        if (folder / "config.json").is_file():
            return f"hf:{_digest(folder)} {numerics}"
    return f"{name} {numerics}"


def _digest(folder: Path) -> str:
    h = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt", ".jinja"):
            h.update(path.name.encode() + path.read_bytes())
        elif path.suffix in (".safetensors", ".bin"):
            size = path.stat().st_size
            with path.open("rb") as f:
                h.update(f"{path.name} {size}".encode() + f.read(_END))
                f.seek(max(0, size - _END))
                h.update(f.read())
    return h.hexdigest()[:16]
