"""POST /api/create: a model of another one or of uploaded files, with its own template, system text and parameters.

An uploaded GGUF passes the header check before anything else reads it: tensors that lie about size or offset
(CVE-2026-7482) end here.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request

from phikit.serve import wire
from phikit.serve.asking import messages_of
from phikit.serve.facts import facts
from phikit.serve.go_template import GoTemplate
from phikit.serve.http import read
from phikit.serve.progress import Say, answer
from phikit.serve.prompt import is_jinja
from phikit.serve.refusal import bad
from phikit.serve.sampling import sampling
from phikit.serve.state import state
from phikit.store.manifest import Layer, Manifest
from phikit.store.names import BadName, parse, parse_digest
from phikit.store.store import Store

QUANTIZED = {"q8_0": "Q8_0", "q6_k": "Q6_K", "q5_k_m": "Q5_K_M", "q4_k_m": "Q4_K_M", "q4_0": "Q4_0"}
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


async def create(request: Request) -> Any:
    q = await read(request, wire.Create)
    name, pool = q.wanted, state(request).pool
    try:
        target = parse(name)
    except BadName as e:
        raise bad(str(e), "model") from e
    if q.adapters:
        raise bad("adapters are not supported: merge them into the weights first", "adapters")
    if q.quantize and q.quantize.lower() not in QUANTIZED:
        raise bad(
            f"unsupported quantization {q.quantize[:40]!r}; known are {', '.join(QUANTIZED)}", "quantize"
        )
    if not q.from_ and not q.files:
        raise bad("neither 'from' or 'files' was specified", "from")
    sampling(q.parameters or {}, {})  # raises where one is wrong
    messages = messages_of(q.messages or [])
    try:
        if q.template and not is_jinja(q.template):
            GoTemplate(q.template)
    except ValueError as e:
        raise bad(f"template error: {e}", "template") from e
    base = pool.entry(q.from_) if q.from_ and not q.files else None
    old = next((e for e in pool.store.entries() if e.name.key == target.key), None)

    def work(say: Say) -> None:
        store = pool.store
        layers = list(base.manifest.layers) if base else _uploaded(store, q.files or {})
        if base and base.folder not in (None, store.root):
            copied = store.copy(str(base.name), target)
            layers = list(copied.manifest.layers)
        draft = store.remember(
            parse("draft/" + target.model), Manifest(store.config_layer({}), tuple(layers))
        )
        try:
            say({"status": "verifying the weights"})
            known = facts(store.parts(draft).weights)
            if q.quantize:
                say({"status": f"quantizing to {QUANTIZED[q.quantize.lower()]}"})
                layers = [_quantized(store, store.parts(draft).weights, QUANTIZED[q.quantize.lower()], say), *(
                    x for x in layers if x.kind not in ("model", "file")
                )]  # fmt: skip
        finally:
            store.remove(str(draft.name))
        config = {
            "model_format": "gguf" if q.quantize else known.kind, "model_family": known.architecture,
            "model_families": [known.architecture], "model_type": known.size_label,
            "file_type": QUANTIZED[q.quantize.lower()] if q.quantize else known.file_type,
        }  # fmt: skip
        texts = {
            "template": q.template, "system": q.system,
            "params": msgspec.json.encode(_merged(store, base, q.parameters)).decode() if q.parameters else None,
            "messages": msgspec.json.encode(
                [{"role": m["role"], "content": m["content"]} for m in messages]
            ).decode() if messages else None,
        }  # fmt: skip
        for kind, text in texts.items():
            if text:
                say({"status": f"creating {kind} layer"})
                layers = [*(x for x in layers if x.kind != kind), store.text_layer(kind, text)]
        for text in [q.license] if isinstance(q.license, str) else q.license or []:
            layers.append(store.text_layer("license", text))
        say({"status": "writing manifest"})
        store.save(target, Manifest(store.config_layer(config), tuple(layers)))
        say({"status": "success"})

    response = await answer(request, work, q.stream)
    if old is not None:
        await pool.forget(old)
    return response


def _merged(store: Store, base: Any, parameters: dict[str, Any] | None) -> dict[str, Any]:
    return {**(store.parts(base).parameters if base else {}), **(parameters or {})}


def _uploaded(store: Store, files: dict[str, str]) -> list[Layer]:
    """Layers of blobs that were uploaded before: one GGUF, or the files of a Hugging Face folder."""
    layers = []
    for name, digest in files.items():
        if not _FILE.fullmatch(name):
            raise ValueError(f"invalid file name {name[:100]!r}: name a file, not a path")
        path = store.blobs.path(f"sha256:{parse_digest(digest)}")
        if not path.is_file():
            raise ValueError(f"{name}: its blob {digest[:19]} was not uploaded")
        gguf = name.lower().endswith(".gguf") or len(files) == 1
        layers.append(Layer("model" if gguf else "file", digest, path.stat().st_size, "" if gguf else name))
    kinds = [x.kind for x in layers]
    if "model" in kinds and len(layers) > 1:
        raise ValueError("give one .gguf file, or the files of a safetensors folder")
    return layers


def _quantized(store: Store, weights: Path, type_name: str, say: Say) -> Layer:
    """Weights in F32, F16 or BF16 as a quantized GGUF. Raises ValueError."""
    from phikit.model.gguf_out import write_gguf
    from phikit.model.quantize.types import file_type

    store.blobs.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.blobs.folder) as folder:
        out = Path(folder) / "model.gguf"
        write_gguf(weights, file_type(type_name), out, say=lambda line: say({"status": line}))
        digest, size = store.blobs.put_file(out)
    return Layer("model", digest, size)
