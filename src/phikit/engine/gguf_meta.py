"""What an engine needs to know of a GGUF: context, template, special tokens. The header is checked by
`model/gguf_header.py` before llama.cpp, which aborts on some faults, sees the file."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phikit.model.gguf_header import GgufHeader, check_gguf

_CONTROL = 3  # token type of special tokens
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
    18: "Q6_K", 32: "BF16",
}  # fmt: skip
END_NAMES = {
    "<|im_end|>", "<|endoftext|>", "<|end|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>",
    "</s>", "<eos>",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufMeta:
    """`context` is the trained context in tokens; `specials` maps the text of control tokens to their ids;
    `stop_ids` end a turn or a text; `fingerprint` is 8 hex digits over size, header and last MiB."""

    path: Path
    architecture: str
    context: int
    vocab: int
    file_type: str
    template: str | None
    bos: str
    eos: str
    specials: dict[str, int]
    stop_ids: tuple[int, ...]
    fingerprint: str


def read_meta(path: Path) -> GgufMeta:
    """Metadata of a GGUF. Raises as `read_gguf`."""
    return read_gguf(path)[0]


def read_gguf(path: Path) -> tuple[GgufMeta, GgufHeader]:
    """Metadata of a GGUF, and its header. Raises FileNotFoundError, or ValueError that names the file when it is not
    a whole, sane GGUF with a language model."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such GGUF file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            header = check_gguf(data)
            digest = hashlib.sha256(len(data).to_bytes(8, "little"))
            digest.update(data[: header.end])
            digest.update(data[max(len(data) - (1 << 20), 0) :])
            return meta_of(header, path, digest.hexdigest()[:8]), header
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from e


def meta_of(header: GgufHeader, path: Path, fingerprint: str) -> GgufMeta:
    """Metadata from a checked header. Raises ValueError for keys that are missing or of the wrong type."""
    keys = header.keys
    architecture = _need(keys, "general.architecture", str)
    tokens = _need(keys, "tokenizer.ggml.tokens", list)
    kinds: Sequence[int] = keys.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if not all(isinstance(t, str) for t in tokens[:1]) or not _same_length(kinds, tokens):
        raise ValueError("the GGUF's lists of tokens and token types do not match")
    context = _need(keys, f"{architecture}.context_length", int)
    if not 1 <= context < 1 << 31:
        raise ValueError(f"{architecture}.context_length {context} cannot be right")
    if keys.get("split.count", 1) not in (0, 1):  # llama.cpp would open the others, which nobody checked
        raise ValueError("this is one part of a split GGUF: join them with `llama-gguf-split --merge`")
    template = keys.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ValueError("tokenizer.chat_template is no string")
    specials = {t: i for i, (t, kind) in enumerate(zip(tokens, kinds)) if kind == _CONTROL and t}
    ids = {n: _token_id(keys, n, len(tokens)) for n in ("bos", "eos", "eot")}
    ends = {i for i in (ids["eos"], ids["eot"]) if i is not None}
    ends |= {i for t, i in specials.items() if t in END_NAMES}
    file_type = keys.get("general.file_type")
    return GgufMeta(
        path=path,
        architecture=architecture,
        context=context,
        vocab=len(tokens),
        file_type=_FILE_TYPES.get(file_type, f"type{file_type}") if isinstance(file_type, int) else "unknown",
        template=template,
        bos="" if ids["bos"] is None else tokens[ids["bos"]],
        eos="" if ids["eos"] is None else tokens[ids["eos"]],
        specials=specials,
        stop_ids=tuple(sorted(ends)),
        fingerprint=fingerprint,
    )


def _need(keys: dict[str, Any], key: str, kind: type) -> Any:
    value = keys.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"the GGUF has no key {key!r}; it holds no language model that llama.cpp can run")
    return value


def _token_id(keys: dict[str, Any], name: str, vocab: int) -> int | None:
    """The id under tokenizer.ggml.<name>_token_id; None where there is none or it is no token."""
    value = keys.get(f"tokenizer.ggml.{name}_token_id")
    return value if isinstance(value, int) and 0 <= value < vocab else None


def _same_length(kinds: Any, tokens: Sequence[str]) -> bool:
    return isinstance(kinds, Sequence) and not isinstance(kinds, str) and len(kinds) == len(tokens)
