"""The model store: names, manifests and blobs in a folder of the layout that Ollama has.

`root` is ours to write. `others` are model folders of an installed Ollama: their models are listed and run where they
lie, and never changed. `remember` adds models for the time of a process: files and folders anywhere on this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phikit.records.io import atomic_path
from phikit.store import manifest as manifests
from phikit.store import names
from phikit.store.blobs import Blobs, file_digest
from phikit.store.manifest import Layer, Manifest, stamp_of
from phikit.store.names import ModelName


class ModelNotFound(ValueError):
    """No model of that name is stored."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored model. `digest` is 64 hex digits; `folder` is the model folder it is in, None where it is only
    remembered."""

    name: ModelName
    manifest: Manifest
    digest: str
    modified: datetime
    folder: Path | None


@dataclass(frozen=True, slots=True)
class Parts:
    """What a model is made of. `weights` is a GGUF file or a Hugging Face folder. `template` is Ollama's (Go) or
    Jinja, None: the weights' own."""

    weights: Path
    template: str | None
    system: str | None
    parameters: dict[str, Any]
    messages: tuple[dict[str, str], ...]
    licenses: tuple[str, ...]
    adapters: tuple[Path, ...]


def default_root() -> Path:
    """PHIKIT_MODELS, else ~/.phikit/models."""
    return Path(os.environ.get("PHIKIT_MODELS") or Path.home() / ".phikit" / "models")


def ollama_folders() -> list[Path]:
    """Model folders of an Ollama on this machine: OLLAMA_MODELS, its user's and its service's usual ones."""
    named = os.environ.get("OLLAMA_MODELS")
    usual = (
        [Path(named)]
        if named
        else [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]
    )
    return [p for p in usual if (p / "manifests").is_dir()]


def user_store() -> Store:
    """The user's models: ours, and an installed Ollama's."""
    return Store(default_root(), ollama_folders())


class Store:
    """Thread-safe. Writers of two processes do not disturb readers: every file appears whole."""

    def __init__(self, root: Path, others: Sequence[Path] = ()) -> None:
        self.root, self.others = root, tuple(p for p in others if p.resolve() != root.resolve())
        self.blobs = Blobs(root)
        self._remembered: dict[tuple[str, ...], Entry] = {}
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """All models, newest first; of equal names the one that `find` gives."""
        found: dict[tuple[str, ...], Entry] = {}
        for entry in self._all():
            found.setdefault(entry.name.key, entry)
        return sorted(found.values(), key=lambda e: (e.modified, str(e.name)), reverse=True)

    def find(self, name: str | ModelName) -> Entry:
        """Raises BadName or ModelNotFound."""
        wanted = names.parse(name) if isinstance(name, str) else name
        for entry in self._all(wanted):
            if entry.name.key == wanted.key:
                return entry
        raise ModelNotFound(f"model '{name}' not found")

    def parts(self, entry: Entry) -> Parts:
        """The content of a model. Raises ValueError that names the layer for what is missing or is split into
        several files."""
        m = entry.manifest
        if not (weights := self._weights(entry)):
            raise ValueError(f"{entry.name}: the model has no weights: neither a model layer nor files")
        texts = {kind: self._text(entry, kind) for kind in ("template", "system", "params", "messages")}
        messages = json.loads(texts["messages"]) if texts["messages"] else []
        return Parts(
            weights=weights,
            template=texts["template"],
            system=texts["system"],
            parameters=json.loads(texts["params"]) if texts["params"] else {},
            messages=tuple({"role": str(x["role"]), "content": str(x["content"])} for x in messages),
            licenses=tuple(self.file(entry, x).read_text("utf-8", "replace") for x in m.of("license")),
            adapters=tuple(self.file(entry, x) for x in (*m.of("adapter"), *m.of("projector"))),
        )

    def runnable(self, entry: Entry) -> Parts:
        """As `parts`. Raises ValueError for a model with adapters or projectors, too."""
        parts = self.parts(entry)
        if parts.adapters:
            raise ValueError(
                f"{entry.name}: adapters and projectors are not supported: merge them into the model"
            )
        return parts

    def file(self, entry: Entry, layer: Layer) -> Path:
        """The file of a layer. Raises ValueError where it is gone or, outside the store, was changed."""
        if layer.source:
            path = Path(layer.source)
            if not path.is_file() or stamp_of(path) != layer.stamp:
                raise ValueError(
                    f"{entry.name}: {path} was changed or removed since the model was made of it"
                )
            return path
        for folder in (entry.folder, self.root, *self.others):
            if folder is not None and (path := Blobs(folder).path(layer.digest)).is_file():
                if path.stat().st_size != layer.size:
                    raise ValueError(
                        f"{path}: {path.stat().st_size} bytes, {layer.size} expected: pull the model again"
                    )
                return path
        raise ValueError(
            f"{entry.name}: its {layer.kind} ({layer.digest[:19]}) is missing: pull the model again"
        )

    def save(self, name: ModelName, manifest: Manifest | bytes) -> Entry:
        """Stores a manifest under a name, whose spelling becomes this one."""
        data = manifest if isinstance(manifest, bytes) else manifest.bytes()
        with self._lock:
            for old in self._stored(self.root, name):
                if old.name.key == name.key and old.name != name:
                    self._path(self.root, old.name).unlink()
            with atomic_path(self._path(self.root, name)) as part:
                part.write_bytes(data)
            self._remembered.pop(name.key, None)
        return self.find(name)

    def remember(self, name: ModelName, manifest: Manifest) -> Entry:
        """As `save`, but only in this object."""
        entry = self.draft(name, manifest)
        self._remembered[name.key] = entry
        return entry

    @staticmethod
    def draft(name: ModelName, manifest: Manifest) -> Entry:
        """A model that is stored nowhere yet, to look at its parts."""
        return Entry(name, manifest, manifest.digest, datetime.now(UTC), None)

    def copy(self, source: str, target: ModelName) -> Entry:
        """A second name of the same model: no bytes are copied."""
        return self.save(target, self.own_manifest(self.find(source)))

    def own_manifest(self, entry: Entry) -> Manifest:
        """The manifest as one of this store: the blobs of an installed Ollama are referred to."""
        if entry.folder in (None, self.root):
            return entry.manifest
        config, *layers = (self._outside(entry, layer) for layer in entry.manifest.all)
        return Manifest(config, tuple(layers))

    def remove(self, name: str) -> Entry:
        """Removes a name, and the blobs that no other model has. Raises ValueError for models that are not ours."""
        entry = self.find(name)
        if entry.folder is None:
            del self._remembered[entry.name.key]
            return entry
        if entry.folder != self.root:
            raise ValueError(
                f"{entry.name} is Ollama's, in {entry.folder}: remove it with `ollama rm {entry.name}`"
            )
        with self._lock:
            path = self._path(self.root, entry.name)
            path.unlink()
            for folder in list(path.parents)[:3]:
                if not any(folder.iterdir()):
                    folder.rmdir()
            kept = {x.digest for e in self._all() for x in e.manifest.all}
            for layer in entry.manifest.all:
                if layer.digest not in kept and not layer.source:
                    self.blobs.path(layer.digest).unlink(missing_ok=True)
        return entry

    def text_layer(self, kind: str, text: str) -> Layer:
        digest, size = self.blobs.put_text(text)
        return Layer(kind, digest, size)

    def config_layer(self, config: dict[str, Any]) -> Layer:
        return self.text_layer("config", json.dumps(config, separators=(",", ":")))

    def outside_layer(self, kind: str, path: Path, name: str = "") -> Layer:
        """A layer of a file that stays where it is. Its digest is remembered in the store with its time of change."""
        path = path.resolve()
        stamp, digests = stamp_of(path), self.root / "digests.json"
        with self._lock:
            known = _object(digests) if digests.is_file() else {}
            if known.get(str(path), [""])[0] != stamp:
                known = {k: v for k, v in known.items() if Path(k).is_file()}
                known[str(path)] = [stamp, file_digest(path)]
                with atomic_path(digests) as part:
                    part.write_text(json.dumps(known), encoding="utf-8")
        return Layer(kind, known[str(path)][1], path.stat().st_size, name, str(path), stamp)

    def _outside(self, entry: Entry, layer: Layer) -> Layer:
        path = self.file(entry, layer)
        return Layer(layer.kind, layer.digest, layer.size, layer.name, str(path), stamp_of(path))

    def _weights(self, entry: Entry) -> Path | None:
        if models := entry.manifest.of("model"):
            if len(models) > 1:
                raise ValueError(
                    f"{entry.name}: the model is split into {len(models)} files, which is not run here"
                )
            return self.file(entry, models[0])
        files = {x.name: self.file(entry, x) for x in entry.manifest.of("file")}
        if not files:
            return None
        folders = {p.parent for p in files.values()}
        if len(folders) == 1 and all(p.name == n for n, p in files.items()):
            return folders.pop()
        folder = self.root / "folders" / entry.digest
        folder.mkdir(parents=True, exist_ok=True)
        for n, path in files.items():
            if not (folder / n).exists():
                (folder / n).unlink(missing_ok=True)  # a link whose target is gone
                (folder / n).symlink_to(path.resolve())
        return folder

    def _text(self, entry: Entry, kind: str) -> str | None:
        found = entry.manifest.of(kind)
        return self.file(entry, found[-1]).read_text("utf-8") if found else None

    def _all(self, only: ModelName | None = None) -> Iterator[Entry]:
        yield from list(self._remembered.values())
        for folder in (self.root, *self.others):
            yield from self._stored(folder, only)

    def _stored(self, folder: Path, only: ModelName | None = None) -> Iterator[Entry]:
        base = folder / "manifests"
        paths = [self._path(folder, only)] if only else []
        if not (paths and paths[0].is_file()):  # perhaps in another spelling
            paths = sorted(base.glob("*/*/*/*")) if base.is_dir() else []
        for path in paths:
            try:
                name = ModelName(*path.relative_to(base).parts)
                if only is not None and name.key != only.key:
                    continue
                data = path.read_bytes()
                manifest = manifests.read(data, str(path), own=folder == self.root)
                modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            except (OSError, ValueError):  # not a manifest, or removed meanwhile
                if only is not None and path.is_file():
                    raise
                continue
            yield Entry(name, manifest, hashlib.sha256(data).hexdigest(), modified, folder)

    @staticmethod
    def _path(folder: Path, name: ModelName) -> Path:
        return folder / "manifests" / name.host / name.namespace / name.model / name.tag


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise ValueError(f"{path}: not a JSON object: {e}") from e
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not a JSON object")
    return value
