"""Which weights answered: what the journal and run.json call a model, whatever its file is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

from phikit.engine.base import Engine

_BLOCK, _BLOCKS = 1 << 16, 256  # bytes, and how many blocks: to hash all of a 30 GB file would take minutes


def identity(engine: Engine) -> str:
    """The numerics class and, for a folder, a hash over its configuration, tokenizer and weight files (size, and blocks
    spread evenly over the file, so that every large matrix is seen). A GGUF's name holds such a hash; of an endpoint
    nothing is known but its name."""
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
            h.update(f"{path.name} {size}".encode())
            with path.open("rb") as f:
                for at in range(0, size, max(_BLOCK, size // _BLOCKS)):
                    f.seek(at)
                    h.update(f.read(_BLOCK))
    return h.hexdigest()[:16]
