"""What is fuzzed: each target takes any bytes and may refuse them with a ValueError. Anything else it raises is a
finding, and so is an input that takes more than `SECONDS` of processor time.

What passes a header check goes on to what reads it next without weights: shape, chat metadata and tokenizer of a
GGUF, and the Rust backend of a tokenizer.json. The backend compares itself with a faster one before it is used, which
takes most of the time, so that it gets one accepted input in `BACKEND`.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from phikit.engine.gguf_meta import meta_of
from phikit.model.gguf_config import config_of
from phikit.model.gguf_header import check_gguf
from phikit.model.gguf_tokenizer import is_known, read_tokenizer
from phikit.model.safetensors_header import check_safetensors
from phikit.text.tokenizer import Tokenizer
from phikit.text.tokenizer_json import check_tokenizer

BACKEND = 8
SECONDS = 1.0  # of one input; the largest inputs of a run have MAX_SIZE bytes
MAX_SIZE = 1 << 15
TEXT = "It's 12 \u00e9t\u00e9s, <|im_end|>\n"
# Whose lines a run should reach.
FILES = {
    "gguf": (
        "model/gguf_header.py",
        "model/gguf_config.py",
        "engine/gguf_meta.py",
        "model/gguf_tokenizer.py",
    ),
    "safetensors": ("model/safetensors_header.py",),
    "tokenizer": ("text/tokenizer_json.py", "text/tokenizer_stages.py"),
}


def gguf(data: bytes) -> None:
    header = check_gguf(data)
    ends = sorted((t.start, t.start + t.size) for t in header.tensors.values())
    assert all(0 <= header.end <= a < b <= len(data) for a, b in ends)
    assert all(b <= c for (_, b), (c, _) in pairwise(ends))
    reads: list[Callable[[], object]] = [
        lambda: meta_of(header, Path("x.gguf"), ""),
        lambda: config_of(header),
    ]
    if not is_known(header.keys) or zlib.crc32(data) % BACKEND == 0:
        reads.append(lambda: read_tokenizer(header.keys).encode(TEXT))
    for read in reads:
        try:
            read()
        except ValueError:
            continue


def safetensors(data: bytes) -> None:
    at = 8 + int.from_bytes(data[:8], "little")
    for t in sorted(check_safetensors(data).values(), key=lambda t: (t.start, t.size)):
        assert t.start == at
        at += t.size
    assert at == len(data)


def tokenizer(data: bytes) -> None:
    spec = check_tokenizer(data)
    assert all(
        spec["model"]["vocab"].get(t.get("content"), t["id"]) == t["id"] for t in spec.get("added_tokens", [])
    )
    if zlib.crc32(data) % BACKEND:
        return
    found = Tokenizer(data.decode())
    ids = found.encode(TEXT)
    assert len(ids) <= 16 * len(TEXT.encode())  # no step makes a text much longer
    assert len(found.decode([*ids, *range(300)])) < 1 << 16


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gguf": gguf,
    "safetensors": safetensors,
    "tokenizer": tokenizer,
}


def run(target: str, data: bytes) -> bool:
    """Whether the bytes were accepted. Raises what the target must not raise."""
    begin = time.process_time()
    try:
        TARGETS[target](data)
        return True
    except ValueError:
        return False
    finally:
        if (took := time.process_time() - begin) > SECONDS:
            raise TimeoutError(f"{took:.1f} s of processor time for {len(data)} bytes")
