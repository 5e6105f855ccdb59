"""Options of a request as numbers that llama.cpp and torch can be given: every one is checked and bounded here.

Unchecked numbers that reach llama.cpp were a hole of servers in front of it (CVE-2026-21869: a negative count).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from phikit.serve.refusal import bad

# name -> (type, least, most); -1 has a meaning of its own where it is allowed
NUMBERS: dict[str, tuple[type, float, float]] = {
    "temperature": (float, 0, 100), "top_p": (float, 0, 1), "min_p": (float, 0, 1), "top_k": (int, -1, 1 << 20),
    "repeat_penalty": (float, 0.01, 100), "presence_penalty": (float, -100, 100),
    "frequency_penalty": (float, -100, 100), "repeat_last_n": (int, -1, 1 << 20), "num_predict": (int, -2, 1 << 31),
    "num_ctx": (int, 0, 1 << 31), "seed": (int, -(1 << 63), (1 << 64) - 1),
}  # fmt: skip
# What llama.cpp or Ollama decide otherwise here: accepted and without effect.
_WITHOUT_EFFECT = {
    "num_keep", "num_batch", "num_gpu", "main_gpu", "use_mmap", "use_mlock", "num_thread", "typical_p", "tfs_z",
    "mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline", "low_vram", "f16_kv", "vocab_only", "numa",
    "logits_all", "draft_num_predict", "num_gqa", "rope_frequency_base", "rope_frequency_scale",
}  # fmt: skip
MAX_STOPS, MAX_STOP = 64, 1024  # stop strings; characters of one
MAX_SAMPLES = 64
MAX_TOP = 20


@dataclass(frozen=True, slots=True)
class Sampling:
    """`num_predict` < 0: until the model stops or the context is full. `num_ctx` 0: as loaded. `ignored` are options
    that had no effect: unknown ones, and those of other engines."""

    temperature: float = 0.8
    top_p: float = 0.9
    min_p: float = 0.0
    top_k: int = 40
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = 64
    num_predict: int = -1
    num_ctx: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def drawing(self) -> dict[str, Any]:
        """The fields of a GenRequest that say how a token is drawn."""
        return {
            "temperature": self.temperature, "top_p": max(self.top_p, 1e-6), "top_k": self.top_k, "min_p": self.min_p,
            "repeat_penalty": self.repeat_penalty, "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty, "repeat_last": self.repeat_last_n, "seed": self.seed,
        }  # fmt: skip


DEFAULTS = Sampling()
OPENAI_DEFAULTS = Sampling(temperature=1.0, top_p=1.0)


def sampling(
    parameters: Mapping[str, Any], options: Mapping[str, Any], base: Sampling = DEFAULTS
) -> Sampling:
    """Defaults, then the model's PARAMETERs, then the request's options. Nulls are nothing, an unknown name is noted
    and ignored; raises a Refusal that names an option of the wrong type or out of range."""
    values: dict[str, Any] = {}
    ignored: list[str] = []
    for source in (parameters, options):
        for name, value in source.items():
            if value is None:
                continue
            if name == "stop":
                values["stop"] = stops(value)
            elif name in NUMBERS:
                values[name] = number(name, value)
            else:
                ignored.append(str(name)[:40])
    seed = values.pop("seed", -1)
    values["seed"] = secrets.randbits(48) if seed == -1 else seed & ((1 << 63) - 1)
    if values.get("top_k", 0) < 0:
        values["top_k"] = 0
    return replace(base, **values, ignored=tuple(ignored[:64]))


def context_of(options: Mapping[str, Any]) -> int:
    """The `num_ctx` of options; 0: none. Raises a Refusal."""
    return int(number("num_ctx", options.get("num_ctx") or 0))


def is_known(name: str) -> bool:
    """Whether an option is one of Ollama's."""
    return name == "stop" or name in NUMBERS or name in _WITHOUT_EFFECT


def number(name: str, value: Any) -> float:
    """Raises a Refusal. Whole numbers may come as floats (`10.0`)."""
    kind, least, most = NUMBERS[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad(f'option "{name}" must be of type {"integer" if kind is int else "float32"}', name)
    if isinstance(value, float) and not math.isfinite(value):
        raise bad(f'option "{name}" must be finite', name)
    if kind is int and value != int(value):
        raise bad(f'option "{name}" must be of type integer', name)
    if not least <= value <= most:
        raise bad(f'option "{name}" must be from {least} to {most}, not {value}', name)
    return kind(value)


def stops(value: Any) -> tuple[str, ...]:
    """Stop strings, given as one or a list. Raises a Refusal."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(x, str) for x in found):
        raise bad('option "stop" must be of type array of strings', "stop")
    if len(found) > MAX_STOPS or any(len(x) > MAX_STOP for x in found):
        raise bad(f'option "stop" holds at most {MAX_STOPS} strings of {MAX_STOP} characters', "stop")
    return tuple(x for x in found if x)


def top_logprobs(logprobs: bool | None, top: int | None) -> int | None:
    """None: no log-probabilities wanted; else how many alternatives. Raises a Refusal out of 0 to 20."""
    if top is not None and not 0 <= top <= MAX_TOP:
        raise bad(f"top_logprobs must be between 0 and {MAX_TOP}", "top_logprobs")
    return (top or 0) if logprobs else None
