"""The header of a GGUF file: checked in Python before llama.cpp, which aborts on some faults, sees the
file."""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_ENTRIES = 1 << 16  # key-value pairs, tensors
MAX_ARRAY = 1 << 24  # elements of one array; the largest real ones are vocabularies and merges
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_CONTROL = 3  # token type of special tokens
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
    18: "Q6_K", 32: "BF16",
}  # fmt: skip
_END_NAMES = {
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
    """Metadata of a GGUF. Raises ValueError that names the file when it is not a whole, sane GGUF."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such GGUF file")
    if path.stat().st_size < 24:
        raise ValueError(f"{path}: {path.stat().st_size} bytes is too short for a GGUF file")
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(path, data)
        try:
            keys, tensors = reader.header()
            reader.check_tensors(tensors, int(keys.get("general.alignment", 32)))
        except (struct.error, UnicodeDecodeError, OverflowError) as e:
            raise ValueError(f"{path}: GGUF header is damaged near byte {reader.at} ({e})") from e
        digest = hashlib.sha256(len(data).to_bytes(8, "little"))
        digest.update(data[: reader.at])
        digest.update(data[max(len(data) - (1 << 20), 0) :])
    return _meta(path, keys, digest.hexdigest()[:8])


def _meta(path: Path, keys: dict[str, Any], fingerprint: str) -> GgufMeta:
    def need(key: str) -> Any:
        if key not in keys:
            raise ValueError(
                f"{path}: GGUF has no key {key!r}; it holds no language model that llama.cpp can run"
            )
        return keys[key]

    architecture = str(need("general.architecture"))
    tokens: list[str] = need("tokenizer.ggml.tokens")
    types: list[int] = keys.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if not isinstance(tokens, list) or not isinstance(types, list) or len(types) != len(tokens):
        raise ValueError(f"{path}: GGUF lists of tokens and token types do not match")
    specials = {t: i for i, (t, kind) in enumerate(zip(tokens, types)) if kind == _CONTROL and t}
    ends = [keys.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    ends += [i for t, i in specials.items() if t in _END_NAMES]
    named = {n: keys.get(f"tokenizer.ggml.{n}_token_id") for n in ("bos", "eos")}
    text_of = {n: tokens[i] if isinstance(i, int) and i < len(tokens) else "" for n, i in named.items()}
    file_type = keys.get("general.file_type")
    return GgufMeta(
        path=path,
        architecture=architecture,
        context=int(need(f"{architecture}.context_length")),
        vocab=len(tokens),
        file_type=_FILE_TYPES.get(file_type, f"type{file_type}") if file_type is not None else "unknown",
        template=keys.get("tokenizer.chat_template"),
        bos=text_of["bos"],
        eos=text_of["eos"],
        specials=specials,
        stop_ids=tuple(sorted({int(i) for i in ends if i is not None})),
        fingerprint=fingerprint,
    )


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def header(self) -> tuple[dict[str, Any], list[tuple[str, int]]]:
        if self.data[:4] != b"GGUF":
            raise ValueError(f"{self.path}: not a GGUF file (it does not begin with 'GGUF')")
        self.at = 4
        version = self.scalar("I")
        if version not in (2, 3):
            raise ValueError(f"{self.path}: GGUF version {version}; 2 and 3 are known (a big-endian file?)")
        n_tensors, n_keys = self.scalar("Q"), self.scalar("Q")
        if n_tensors > MAX_ENTRIES or n_keys > MAX_ENTRIES:
            raise ValueError(f"{self.path}: GGUF claims {n_tensors} tensors and {n_keys} keys; it is damaged")
        keys: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self.string()
            keys[key] = self.value(self.scalar("I"))
        tensors = [self.tensor() for _ in range(n_tensors)]
        return keys, tensors

    def tensor(self) -> tuple[str, int]:
        name, n_dims = self.string(), self.scalar("I")
        if n_dims > 4:
            raise ValueError(f"{self.path}: tensor {name!r} has {n_dims} dimensions; GGUF allows 4")
        self.at += 8 * n_dims + 4
        return name, self.scalar("Q")

    def check_tensors(self, tensors: list[tuple[str, int]], alignment: int) -> None:
        start = -(-self.at // max(alignment, 1)) * max(alignment, 1)
        for name, offset in tensors:
            if start + offset >= len(self.data):
                raise ValueError(
                    f"{self.path}: tensor {name!r} begins at byte {start + offset} of {len(self.data)}; "
                    "the file is cut: fetch it again"
                )

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        n = self.scalar("Q")
        if n > len(self.data) - self.at:
            raise ValueError(
                f"{self.path}: a string of {n} bytes runs past the end of the file; it is cut or damaged"
            )
        self.at += n
        return self.data[self.at - n : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise ValueError(f"{self.path}: unknown GGUF value type {kind} at byte {self.at}")
        item, n = self.scalar("I"), self.scalar("Q")
        if n > min(MAX_ARRAY, len(self.data) - self.at) or item == _ARRAY:
            raise ValueError(
                f"{self.path}: an array of {n} items at byte {self.at} cannot be right; damaged file"
            )
        if item in _SCALARS:
            code = f"<{n}{_SCALARS[item]}"
            values = list(struct.unpack_from(code, self.data, self.at))
            self.at += struct.calcsize(code)
            return values
        read: Callable[[], Any] = lambda: self.value(item)
        return [read() for _ in range(n)]
