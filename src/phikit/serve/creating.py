"""POST /api/create: a model of another one or of uploaded files, with its own template, system text and parameters.

An uploaded GGUF passes the header check before anything else reads it: tensors that lie about size or offset
(CVE-2026-7482) end here.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from phikit.serve import wire
from phikit.serve.asking import messages_of
from phikit.serve.http import read
from phikit.serve.making import check, make
from phikit.serve.progress import answer
from phikit.serve.refusal import bad
from phikit.serve.state import state
from phikit.store.manifest import FILE, Layer
from phikit.store.modelfile import Modelfile
from phikit.store.names import BadName, parse, parse_digest
from phikit.store.pull import Say
from phikit.store.store import Store

QUANTIZED = {"q8_0": "Q8_0", "q6_k": "Q6_K", "q5_k_m": "Q5_K_M", "q4_k_m": "Q4_K_M", "q4_0": "Q4_0"}


async def create(request: Request) -> Any:
    q = await read(request, wire.Create)
    name, pool = q.wanted, state(request).pool
    try:
        target = parse(name)
    except BadName as e:
        raise bad(str(e), "model") from e
    quantize = (q.quantize or "").lower()
    if quantize and quantize not in QUANTIZED:
        raise bad(f"unsupported quantization {quantize[:40]!r}; known are {', '.join(QUANTIZED)}", "quantize")
    if not q.from_ and not q.files:
        raise bad("neither 'from' or 'files' was specified", "from")
    m = Modelfile(
        template=q.template or None, system=q.system or None, parameters=q.parameters or {},
        adapters=list(q.adapters or ()),
        messages=[{"role": x["role"], "content": x["content"]} for x in messages_of(q.messages or [])],
        licenses=[q.license] if isinstance(q.license, str) else q.license or [],
    )  # fmt: skip
    check(m)
    base = pool.entry(q.from_) if q.from_ and not q.files else None
    old = next((e for e in pool.store.entries() if e.name.key == target.key), None)

    def work(say: Say) -> None:
        store = pool.store
        layers = store.own_manifest(base).layers if base else _uploaded(store, q.files or {})
        make(store, target, layers, m, say, quantize=QUANTIZED.get(quantize, ""))
        say({"status": "success"})

    response = await answer(request, work, q.stream)
    if old is not None:
        await pool.forget(old)
    return response


def _uploaded(store: Store, files: dict[str, str]) -> list[Layer]:
    """Layers of blobs that were uploaded before: one GGUF, or the files of a Hugging Face folder."""
    layers = []
    for name, digest in files.items():
        if not FILE.fullmatch(name):
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
