"""`phikit quantize` and `phikit export --to`: a model in the form of other tools.

Whatever the source, tensors are read and written a few rows at a time: memory does not grow with the model.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phikit.recipe.model_folder import write_own_form
from phikit.recipe.model_paths import Source, find
from phikit.recipe.units import show_bytes
from phikit.records.io import write_text
from phikit.store.modelfile import modelfile

if TYPE_CHECKING:
    from phikit.model.quantize.compare import Comparison
    from phikit.model.quantize.types import FileType
    from phikit.model.rows import Rows
    from phikit.text.tokenizer import Tokenizer

Say = Callable[[str], None]
FORMS = ("hf", "gguf", "ollama")
WINDOW = 256  # predicted tokens of one window of the text
MODELFILE = "Modelfile"


def quantize(
    spec: str,
    type_name: str,
    out: Path,
    *,
    text: str | None = None,
    tokens: int = 2048,
    threads: int | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Writes `out` and compares it with the source on the first `tokens` tokens of `text` (without it a text of
    Python's own documentation; 0 tokens: no comparison). Returns what the command prints. Raises ValueError
    where the source is quantized, where its rows do not fit the type, or where the text is too short."""
    from phikit.model.quantize.types import QUANTIZED, file_type

    type_ = file_type(type_name)
    if type_ not in QUANTIZED:
        raise ValueError(f"{type_} is not quantized: `phikit export --to gguf --type {type_}` writes it")
    source = find(spec)
    windows = _windows(source, text, tokens) if tokens else []
    begin = time.monotonic()
    rows, blocks = _write_gguf(source, type_, out, threads, say)
    parameters = sum(r.count * r.width for r in rows)
    size = out.stat().st_size
    row: dict[str, Any] = {
        "source": spec, "out": str(out), "type": type_, "bytes": size, "parameters": parameters,
        "bits_per_weight": 8 * size / parameters, "tensors": dict(Counter(b.name for b in blocks.values())),
        "seconds": round(time.monotonic() - begin, 1),
    }  # fmt: skip
    if windows:
        from phikit.model.quantize.compare import compare

        say(f"comparing with {source.path} on {len(windows)} windows of {len(windows[0]) - 1} tokens")
        row |= _comparison(compare(source.path, out, windows))
    return row


def export(
    spec: str, form: str, out: Path | None, type_name: str, *, threads: int | None = None, say: Say = print
) -> list[str]:
    """Writes a model as a Hugging Face folder, a GGUF or a folder for Ollama; returns the lines to print: the
    files, and what to run. Raises ValueError where `out` is not empty or the form does not fit the model."""
    if form not in FORMS:
        raise ValueError(f"--to {form}: known forms are {', '.join(FORMS)}")
    source = find(spec)
    out = out or Path(f"{source.name}-{form}")
    if out.suffix == ".gguf" and form == "gguf":
        if out.exists():
            raise ValueError(f"{out} exists: name another file")
        return [_as_gguf(source, type_name, out, threads, say)]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder: name another one")
    if form == "hf":
        return _as_hf(source, type_name, out)
    if form == "ollama":
        _needs_phi4(source)
    type_ = _gguf_type(source, type_name)
    file = out / f"model-{type_}.gguf"
    lines = [_as_gguf(source, type_name, file, threads, say)]
    if form == "ollama":
        write_text(out / MODELFILE, modelfile(file.name))
        lines += [
            str(out / MODELFILE), "with Ollama installed, run:",
            f"  ollama create {source.name.lower()} -f {out / MODELFILE}", f"  ollama run {source.name.lower()}",
        ]  # fmt: skip
    return lines


def tokenizer_of(source: Source) -> Tokenizer:
    """Raises ValueError where it is of a kind that is not written here."""
    from phikit.model import gguf_out

    return gguf_out.tokenizer_of(source.path)


def builtin_text() -> str:
    """Prose and code that every Python has: documentation topics and a module of the standard library."""
    import inspect
    import json.decoder
    from pydoc_data.topics import topics

    prose = "\n".join(
        topics[k] for k in ("exceptions", "execmodel", "objects", "typesmethods") if k in topics
    )
    code = inspect.getsource(json.decoder)
    parts = [p for pair in zip(_cut(prose), _cut(code)) for p in pair]
    return "".join(parts) + prose


def _cut(text: str, size: int = 2000) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def _windows(source: Source, text: str | None, tokens: int) -> list[list[int]]:
    """Windows of equal length from the text's beginning, `tokens` predicted tokens in all."""
    from phikit.model.quantize.compare import network

    if tokens < 1:
        raise ValueError(f"--tokens must be 0 or more, not {tokens}")
    context = network(source.path)[1].context
    ids = _encode(source, builtin_text() if text is None else text)
    length = min(WINDOW, context - 1, tokens, len(ids) - 1)
    if length < 1:
        raise ValueError("the text has fewer than 2 tokens: give a longer one")
    count = min(tokens // length, len(ids) // (length + 1))
    return [ids[i * (length + 1) : (i + 1) * (length + 1)] for i in range(count)]


def _encode(source: Source, text: str) -> list[int]:
    from phikit.model.gguf_header import read_gguf_header
    from phikit.model.gguf_tokenizer import is_known

    if not source.is_gguf or is_known(read_gguf_header(source.path).keys):
        return tokenizer_of(source).encode(text)
    from phikit.engine.llama import LlamaEngine  # another kind of tokenizer: llama.cpp has it

    engine = LlamaEngine(source.path, threads=1)
    try:
        return engine.encode(text)
    finally:
        engine.close()


def _write_gguf(
    source: Source, type_: FileType, out: Path, threads: int | None, say: Say
) -> tuple[list[Rows], dict[str, Any]]:
    from phikit.model.gguf_out import write_gguf

    return write_gguf(source.path, type_, out, name=source.name, threads=threads, say=say)


def _comparison(c: Comparison) -> dict[str, Any]:
    return {
        "tokens": c.tokens, "kl": c.kl.row(), "log_ratio": c.log_ratio.row(), "same_top": c.same_top.row(),
        "source_perplexity": c.source_perplexity, "perplexity": c.perplexity,
    }  # fmt: skip


def show_quantized(row: dict[str, Any]) -> list[str]:
    """The lines that `phikit quantize` prints."""
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(row["tensors"].items()))
    lines = [
        f"{row['out']}: {row['type']}, {show_bytes(row['bytes'])}, {row['bits_per_weight']:.2f} bits/weight "
        f"({kinds}), {row['seconds']} s"
    ]
    if "kl" in row:
        kl, same, ratio = row["kl"], row["same_top"], row["log_ratio"]
        lines += [
            f"KL(source || quantized)  {kl['value']:.3g} nats/token [{kl['low']:.3g}, {kl['high']:.3g}]",
            f"perplexity               {row['source_perplexity']:.4g} -> {row['perplexity']:.4g} (log ratio "
            f"{ratio['value']:+.5f} [{ratio['low']:+.5f}, {ratio['high']:+.5f}])",
            f"same most likely token   {same['value']:.2%} [{same['low']:.2%}, {same['high']:.2%}]  "
            f"({row['tokens']:,} tokens)",
        ]
    return lines


def _gguf_type(source: Source, type_name: str) -> str:
    """The type asked for; without one that of a GGUF source, else F16."""
    from phikit.engine.gguf_meta import read_meta
    from phikit.model.quantize.types import file_type

    if type_name:
        return file_type(type_name)
    return read_meta(source.path).file_type if source.is_gguf else "F16"


def _as_gguf(source: Source, type_name: str, out: Path, threads: int | None, say: Say) -> str:
    from phikit.model.quantize.types import file_type

    type_ = _gguf_type(source, type_name)
    if source.is_gguf and not type_name:  # as it is
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path, out)
    else:
        _write_gguf(source, file_type(type_), out, threads, say)
    return f"{out}  {type_}, {show_bytes(out.stat().st_size)}"


def _as_hf(source: Source, type_name: str, out: Path) -> list[str]:
    from phikit.model.hf import write_folder
    from phikit.model.quantize.compare import network

    kinds = {"": None, "f32": "fp32", "fp32": "fp32", "bf16": "bf16"}
    if type_name.lower() not in kinds:
        raise ValueError(f"--type {type_name}: a Hugging Face folder is written in fp32 or bf16")
    tokenizer = tokenizer_of(source)
    if not tokenizer.is_phi4:
        write_own_form(source, out, kinds[type_name.lower()])  # type: ignore[arg-type]
        return [f"{p}  {show_bytes(p.stat().st_size)}" for p in sorted(out.iterdir())]
    rows, config = network(source.path)
    # Without a type: bf16 where nothing is lost by it.
    dtype = kinds[type_name.lower()] or ("bf16" if _all_bf16(rows) else "fp32")
    write_folder(out, rows, config, tokenizer, dtype=dtype)  # type: ignore[arg-type]
    return [f"{p}  {show_bytes(p.stat().st_size)}" for p in sorted(out.iterdir())]


def _all_bf16(rows: Sequence[Rows]) -> bool:
    return all(r.stored == "BF16" for r in rows if len(r.shape) > 1)


def _needs_phi4(source: Source) -> None:
    if not tokenizer_of(source).is_phi4:
        raise ValueError(
            f"{source.path}: its tokenizer has not Phi-4's special tokens; a folder for Ollama is written with Phi-4's "
            "template: use --to gguf, and `ollama create` with the template of that model"
        )
