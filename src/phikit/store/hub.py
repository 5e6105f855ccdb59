"""Repositories of the Hugging Face hub: which files make the model, and what their digests are.

A repository with GGUF files gives the one whose name holds the tag (Q4_K_M where the tag is `latest`), any other its
configuration, tokenizer and safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from phikit.store.local import FILES
from phikit.store.manifest import Layer
from phikit.store.names import ModelName, parse_digest
from phikit.store.store import Store
from phikit.store.web import PullError, Web

DEFAULT_QUANT = "Q4_K_M"
_MAX_FILES = 4096


@dataclass(frozen=True, slots=True)
class HubFile:
    """`digest` is sha256:... of a large file; small ones have git's SHA-1 in `git`."""

    kind: str
    name: str
    url: str
    size: int
    digest: str
    git: str

    def layer(self, store: Store, web: Web, progress: Callable[[int], None]) -> Layer:
        """Downloads the file. Raises PullError where its bytes are others than the hub says."""
        name = self.name if self.kind == "file" else ""
        if self.digest:
            web.file(self.url, store.blobs, self.digest, self.size, progress)
            return Layer(self.kind, self.digest, self.size, name)
        data = web.document(self.url, "*/*")
        found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if self.git and found != self.git:
            raise PullError(f"{self.url}: its git hash is {found}, the hub says {self.git}")
        progress(len(data))
        digest, size = store.blobs.put([data])
        return Layer(self.kind, digest, size, name)


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_layers(web: Web, source: ModelName) -> list[HubFile]:
    """The files of a model. Raises PullError where the repository has none that are run here."""
    repository = f"{quote(source.namespace)}/{quote(source.model)}"
    where = f"{endpoint()}/api/models/{repository}?blobs=true"
    try:
        listing = json.loads(web.document(where))
        rows = listing["siblings"]
        revision = str(listing.get("sha") or "main")
        files = [_file(repository, revision, row) for row in rows[:_MAX_FILES]]
    except (ValueError, KeyError, TypeError) as e:
        if isinstance(e, PullError):
            raise
        raise PullError(f"{where}: not a listing of a repository: {e}") from e
    if ggufs := sorted((f for f in files if f.name.lower().endswith(".gguf")), key=lambda f: f.name):
        return [_quant(source, ggufs)]
    kept = [f for f in files if "/" not in f.name and FILES.fullmatch(f.name)]
    if not any(f.name.endswith(".safetensors") for f in kept):
        raise PullError(
            f"{source}: the repository has neither GGUF nor safetensors files; weights in pickle files can run "
            "code and are never loaded"
        )
    return kept


def _quant(source: ModelName, ggufs: list[HubFile]) -> HubFile:
    wanted = DEFAULT_QUANT if source.tag == "latest" else source.tag
    found = [f for f in ggufs if wanted.lower() in f.name.lower()]
    if not found and source.tag == "latest" and len(ggufs) == 1:
        found = ggufs
    if not found or "-of-" in found[0].name:
        names = ", ".join(f.name for f in ggufs[:12])
        raise PullError(
            f"{source}: no whole GGUF file with {wanted} in its name; write :TAG for one of {names}"
        )
    return replace(found[0], kind="model")


def _file(repository: str, revision: str, row: dict[str, Any]) -> HubFile:
    name, size, lfs = str(row["rfilename"]), row.get("size"), row.get("lfs") or {}
    if not isinstance(size, int) or size < 0:
        raise PullError(f"{name[:100]}: the listing says no size")
    digest = f"sha256:{parse_digest('sha256:' + str(lfs['sha256']))}" if lfs.get("sha256") else ""
    url = f"{endpoint()}/{repository}/resolve/{quote(revision)}/{quote(name)}"
    return HubFile("file", name, url, size, digest, str(row.get("blobId") or ""))
