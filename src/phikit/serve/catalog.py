"""What the server tells of stored models: details, capabilities, a Modelfile, the whole of /api/show."""

from __future__ import annotations

from typing import Any

from phikit.serve.facts import Facts, facts, shown
from phikit.serve.prompt import Renderer, renderer
from phikit.serve.sampling import DEFAULTS, NUMBERS
from phikit.serve.wire import moment
from phikit.store.modelfile import Modelfile, emit, parameter_lines
from phikit.store.store import Entry, Parts, Store


def details(known: Facts | None) -> dict[str, Any]:
    """None: files that cannot be read; the model is listed all the same."""
    family = known.architecture if known else ""
    return {
        "parent_model": "", "format": known.kind if known else "", "family": family,
        "families": [family] if family else None, "parameter_size": known.size_label if known else "",
        "quantization_level": known.file_type if known else "",
    }  # fmt: skip


def capabilities(known: Facts, form: Renderer) -> list[str]:
    if known.embedding_only:
        return ["embedding"]
    found = ["completion"]
    if form.tools_by != "none":
        found.append("tools")
    if form.knows_suffix:
        found.append("insert")
    return found


def row(store: Store, entry: Entry) -> dict[str, Any]:
    """A line of /api/tags."""
    try:
        known = facts(store.parts(entry).weights)
    except (ValueError, OSError):
        known = None
    return {
        "name": str(entry.name), "model": str(entry.name), "modified_at": moment(entry.modified),
        "size": entry.manifest.size, "digest": entry.digest, "details": details(known),
    }  # fmt: skip


def show(store: Store, entry: Entry, verbose: bool) -> dict[str, Any]:
    """All of /api/show. Raises ValueError where the model's files cannot be read."""
    parts = store.parts(entry)
    known = facts(parts.weights)
    form = renderer(known, parts)
    found: dict[str, Any] = {
        "license": "\n".join(parts.licenses), "modelfile": modelfile(entry, parts, form),
        "parameters": "\n".join(parameter_lines(parts.parameters)), "template": form.source,
        "template_format": form.form, "template_from": "modelfile" if parts.template else "weights",
        "tools_by": form.tools_by, "details": details(known), "model_info": shown(known.keys, verbose),
        "capabilities": capabilities(known, form), "modified_at": moment(entry.modified),
        "effective_parameters": effective(parts, known), "weights": {"fingerprint": known.fingerprint,
                                                                      "bytes": known.bytes},
    }  # fmt: skip
    if parts.system:
        found["system"] = parts.system
    if parts.messages:
        found["messages"] = list(parts.messages)
    return found


def effective(parts: Parts, known: Facts) -> dict[str, Any]:
    """The sampling parameters that a request on /api gets which names none."""
    names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n")
    found = {n: parts.parameters.get(n, getattr(DEFAULTS, n)) for n in names}
    ends = {i: text for text, i in known.specials.items()}
    stops = parts.parameters.get("stop", [])
    stops = [stops] if isinstance(stops, str) else list(stops)
    return found | {"stop": list(dict.fromkeys([*stops, *(ends[i] for i in known.stop_ids if i in ends)]))}


def modelfile(entry: Entry, parts: Parts, form: Renderer) -> str:
    known = {k: v for k, v in parts.parameters.items() if k == "stop" or k in NUMBERS}
    text = Modelfile(
        str(parts.weights),
        form.source or None,
        parts.system,
        known,
        list(parts.messages),
        list(parts.licenses),
    )
    head = f"# Modelfile of {entry.name}; to build on it: FROM {entry.name}\n"
    try:
        return head + emit(text)
    except ValueError:  # a text that no Modelfile can hold
        text.template, text.licenses = None, []
        return head + emit(text)
