"""A manifest: what a model is made of, as layers of blobs, in the JSON that Ollama and its registry write."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.store.names import parse_digest

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_IMAGE = "application/vnd.ollama.image."
FILE_TYPE = "application/vnd.phikit.file"  # a file of a Hugging Face folder; its name is in `name`
MAX_MANIFEST = 1 << 22  # bytes
MAX_LAYERS = 4096
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True, slots=True)
class Layer:
    """`kind` is model, template, system, params, messages, license, adapter, projector, file or config. `source` is
    a file outside the store that holds the bytes (nothing was copied), `stamp` its size and time of change."""

    kind: str
    digest: str
    size: int
    name: str = ""
    source: str = ""
    stamp: str = ""

    def row(self) -> dict[str, Any]:
        media = {"file": FILE_TYPE, "config": CONFIG_TYPE}.get(self.kind, _IMAGE + self.kind)
        row: dict[str, Any] = {"mediaType": media, "digest": self.digest, "size": self.size}
        if self.name:
            row["name"] = self.name
        if self.source:
            row |= {"from": self.source, "stamp": self.stamp}
        return row


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Layer
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return self.config.size + sum(layer.size for layer in self.layers)

    @property
    def all(self) -> tuple[Layer, ...]:
        return (self.config, *self.layers)

    def bytes(self) -> bytes:
        value = {
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": self.config.row(),
            "layers": [layer.row() for layer in self.layers],
        }  # fmt: skip
        return json.dumps(value, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """64 hex digits over the manifest."""
        return hashlib.sha256(self.bytes()).hexdigest()

    def of(self, kind: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.kind == kind]


def read(data: bytes, where: str, *, own: bool = False) -> Manifest:
    """A manifest out of its JSON. Raises ValueError that names `where` for what is none: nothing in it is trusted,
    digests and file names least. Only one that this store wrote (`own`) may name files outside the store."""
    try:
        if len(data) > MAX_MANIFEST:
            raise ValueError(f"{len(data):,} bytes; {MAX_MANIFEST:,} are the most")
        value = json.loads(data)
        layers = value["layers"]
        if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
            raise ValueError("its layers are no list, or too many")
        found = tuple(_layer(row) for row in layers)
        config = _layer(value["config"])
        if not own and any(x.source for x in (config, *found)):
            raise ValueError("it names files outside the store")
        return Manifest(config, found)
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ValueError(f"{where}: not a model manifest: {type(e).__name__} {e}") from e


def stamp_of(path: Path) -> str:
    """What tells that a file outside the store is still the same."""
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def _layer(row: Mapping[str, Any]) -> Layer:
    media, size = str(row["mediaType"]), row["size"]
    if not isinstance(size, int) or not 0 <= size < 1 << 50:
        raise ValueError(f"a layer's size is {size!r}")
    digest = f"sha256:{parse_digest(row['digest'])}"
    kind = {FILE_TYPE: "file", CONFIG_TYPE: "config"}.get(media, media.removeprefix(_IMAGE))
    name = str(row.get("name", "")) if kind == "file" else ""
    if kind == "file" and not FILE.fullmatch(name):
        raise ValueError(f"a file is called {name[:100]!r}")
    stamp = str(row.get("stamp", ""))
    return Layer(kind, digest, size, name, str(row.get("from", "")) if stamp else "", stamp)
