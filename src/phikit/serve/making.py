"""A model of another one or of files, with what a Modelfile changes: `phikit create` and POST /api/create."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from phikit.serve.facts import facts
from phikit.serve.go_template import GoTemplate
from phikit.serve.prompt import is_jinja
from phikit.serve.refusal import bad
from phikit.serve.sampling import sampling
from phikit.store.manifest import Layer, Manifest
from phikit.store.modelfile import Modelfile
from phikit.store.names import ModelName
from phikit.store.pull import Say
from phikit.store.store import Entry, Store


def check(m: Modelfile) -> None:
    """Raises a Refusal: adapters, a parameter out of range, a template that is none."""
    if m.adapters:
        raise bad("adapters are not supported: merge them into the weights first", "adapters")
    sampling(m.parameters, {})
    try:
        if m.template and not is_jinja(m.template):
            GoTemplate(m.template)
    except ValueError as e:
        raise bad(f"template error: {e}", "template") from e


def make(
    store: Store, target: ModelName, layers: Sequence[Layer], m: Modelfile, say: Say, *, quantize: str = ""
) -> Entry:
    """Stores the model of `layers` as `target`, with the texts of `m` in place of theirs (parameters: over theirs) and
    its weights quantized where a type is named. Raises ValueError or OSError; no name is stored then."""
    draft = store.draft(target, Manifest(store.config_layer({}), tuple(layers)))
    say({"status": "verifying the weights"})
    parts = store.parts(draft)
    known = facts(parts.weights)
    if quantize:
        say({"status": f"quantizing to {quantize}"})
        others = (x for x in layers if x.kind not in ("model", "file"))
        layers = [_quantized(store, parts.weights, quantize, say), *others]
    texts = {
        "template": m.template, "system": m.system,
        "params": json.dumps({**parts.parameters, **m.parameters}) if m.parameters else None,
        "messages": json.dumps(m.messages) if m.messages else None,
    }  # fmt: skip
    for kind, text in texts.items():
        if text is not None:
            say({"status": f"creating {kind} layer"})
            layers = [*(x for x in layers if x.kind != kind), store.text_layer(kind, text)]
    layers = [*layers, *(store.text_layer("license", text) for text in m.licenses)]
    config = store.config_layer({
        "model_format": "gguf" if quantize else known.kind, "model_family": known.architecture,
        "model_families": [known.architecture], "model_type": known.size_label,
        "file_type": quantize or known.file_type,
    })  # fmt: skip
    say({"status": "writing manifest"})
    return store.save(target, Manifest(config, tuple(layers)))


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
