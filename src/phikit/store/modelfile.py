"""Modelfiles: read, written, and the one with which Ollama runs an exported Phi-4 (facts section 8.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Phi-4's format as the model was trained: without the newlines of Ollama's own phi4 (docs/decisions.md). Go's
# trim marks take out the line breaks of this template.
_MODELFILE = '''FROM ./{gguf}
TEMPLATE """{{{{- range $i, $_ := .Messages }}}}
{{{{- $last := eq (len (slice $.Messages $i)) 1 -}}}}
<|im_start|>{{{{ .Role }}}}<|im_sep|>{{{{ .Content }}}}
{{{{- if not $last }}}}<|im_end|>{{{{ end }}}}
{{{{- if and (ne .Role "assistant") $last }}}}<|im_end|><|im_start|>assistant<|im_sep|>{{{{ end }}}}
{{{{- end }}}}"""
PARAMETER stop "<|im_start|>"
PARAMETER stop "<|im_end|>"
PARAMETER stop "<|im_sep|>"
'''


def modelfile(gguf: str) -> str:
    """The text of a Modelfile beside a GGUF file of that name."""
    if "/" in gguf or "\n" in gguf:
        raise ValueError(f"{gguf!r}: name a file of the Modelfile's own folder")
    return _MODELFILE.format(gguf=gguf)


KEYWORDS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES")
_LINE = re.compile(r"[ \t]*([A-Za-z]+)[ \t]+")
_KINDS: dict[str, type] = {
    "num_keep": int, "seed": int, "num_predict": int, "top_k": int, "top_p": float, "min_p": float,
    "typical_p": float, "repeat_last_n": int, "temperature": float, "repeat_penalty": float,
    "presence_penalty": float, "frequency_penalty": float, "stop": str, "num_ctx": int, "num_batch": int,
    "num_gpu": int, "main_gpu": int, "num_thread": int, "use_mmap": bool, "draft_num_predict": int,
    "tfs_z": float, "mirostat": int, "mirostat_tau": float, "mirostat_eta": float, "penalize_newline": bool,
    "low_vram": bool, "f16_kv": bool, "vocab_only": bool, "use_mlock": bool, "numa": bool, "logits_all": bool,
}  # fmt: skip
ROLES = ("system", "user", "assistant")


@dataclass
class Modelfile:
    """What a Modelfile says. `parameters["stop"]` is a list."""

    base: str = ""
    template: str | None = None
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)
    licenses: list[str] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    requires: str = ""


def parse(text: str) -> Modelfile:
    """Raises ValueError that names the line."""
    found, at = Modelfile(), 0
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        if not (whole := text[at:end].strip()) or whole.startswith("#"):
            at = end + 1
            continue
        m = _LINE.match(text, at)
        word = m[1].upper() if m else whole.split()[0]
        if m is None or word not in KEYWORDS:
            raise ValueError(f"Modelfile line {line}: {word[:40]!r} is none of {', '.join(KEYWORDS)}")
        at = m.end()
        key = ""
        if word in ("PARAMETER", "MESSAGE"):
            if not (k := re.compile(r"(\S+)[ \t]+").match(text, at)):
                raise ValueError(f"Modelfile line {line}: {word} needs a name and a value")
            key, at = k[1].lower(), k.end()
        value, at = _value(text, at, line)
        _add(found, word, key, value, line)
    if not found.base:
        raise ValueError("the Modelfile has no FROM line")
    return found


def emit(m: Modelfile) -> str:
    """The text of a Modelfile; `parse` gives back the same."""
    lines = [f"FROM {m.base}"]
    if m.template is not None:
        lines.append(f"TEMPLATE {_quoted(m.template)}")
    if m.system:
        lines.append(f"SYSTEM {_quoted(m.system)}")
    lines += [f"PARAMETER {line}" for line in parameter_lines(m.parameters)]
    lines += [f"ADAPTER {a}" for a in m.adapters]
    lines += [f"MESSAGE {x['role']} {_quoted(x['content'])}" for x in m.messages]
    lines += [f"LICENSE {_quoted(x)}" for x in m.licenses]
    if m.requires:
        lines.append(f"REQUIRES {m.requires}")
    return "\n".join(lines) + "\n"


def parameter_lines(parameters: Mapping[str, Any]) -> list[str]:
    """`name value` lines, as `/api/show` has them too."""
    lines = []
    for key, value in parameters.items():
        for one in value if isinstance(value, list) else [value]:
            shown = (
                _quoted(one)
                if isinstance(one, str)
                else str(one).lower()
                if isinstance(one, bool)
                else str(one)
            )
            lines.append(f"{key:<20} {shown}".rstrip(" ") if shown else f"{key} {shown}")
    return lines


def typed(key: str, text: str) -> Any:
    """A parameter's value. Raises ValueError that names it."""
    kind = _KINDS.get(key)
    if kind is None:
        raise ValueError(f"unknown parameter {key[:40]!r}; known are {', '.join(sorted(_KINDS))}")
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return int(float(text)) if kind is int else kind(text)
    except (ValueError, KeyError, OverflowError) as e:
        raise ValueError(f"parameter {key} takes {kind.__name__}, not {text[:40]!r}") from e


def _add(m: Modelfile, word: str, key: str, value: str, line: int) -> None:
    if word == "FROM":
        m.base = value
    elif word == "TEMPLATE":
        m.template = value
    elif word == "SYSTEM":
        m.system = value
    elif word == "ADAPTER":
        m.adapters.append(value)
    elif word == "LICENSE":
        m.licenses.append(value)
    elif word == "REQUIRES":
        m.requires = value
    elif word == "MESSAGE":
        if key not in ROLES:
            raise ValueError(f"Modelfile line {line}: the role of a MESSAGE is one of {', '.join(ROLES)}")
        m.messages.append({"role": key, "content": value})
    else:
        try:
            parsed = typed(key, value)
        except ValueError as e:
            raise ValueError(f"Modelfile line {line}: {e}") from e
        if key == "stop":
            m.parameters.setdefault("stop", []).append(parsed)
        else:
            m.parameters[key] = parsed


def _value(text: str, at: int, line: int) -> tuple[str, int]:
    """A value and where the next line begins: in three quotes over several lines, in one over one, or bare."""
    for quote in ('"""', '"'):
        if text.startswith(quote, at):
            end = text.find(quote, at + len(quote))
            if end < 0 or (quote == '"' and "\n" in text[at:end]):
                raise ValueError(f"Modelfile line {line}: a quote is not closed")
            rest = text.find("\n", end)
            return text[at + len(quote) : end], len(text) if rest < 0 else rest + 1
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return text[at:end].strip(), end + 1


def _quoted(text: str) -> str:
    bare = "\n" not in text and text == text.strip() and not text.startswith('"') and text
    if '"' in text and bare:
        return text
    if '"""' in text or text.endswith('"'):
        raise ValueError(
            "a Modelfile cannot hold a text of several lines with three quotes in a row or one at its end"
        )
    return f'"""{text}"""' if "\n" in text or '"' in text else f'"{text}"'
