"""The tokenizer inside a GGUF: byte-level BPE (`gpt2`) with one of the pre-splits of `text/splits.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from phikit.text.splits import PRE, WHOLE_WORDS
from phikit.text.tokenizer import Tokenizer

_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5


def is_known(keys: Mapping[str, Any]) -> bool:
    """Whether `read_tokenizer` reads this kind."""
    pre = keys.get("tokenizer.ggml.pre", "default")
    return keys.get("tokenizer.ggml.model") == "gpt2" and isinstance(pre, str) and pre in PRE


def read_tokenizer(keys: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a checked GGUF header's keys; its ids are those of llama.cpp on the same file. Raises
    ValueError for another kind, and where its lists do not fit one another."""
    pre = keys.get("tokenizer.ggml.pre", "default")
    if not is_known(keys):
        raise ValueError(
            f"its tokenizer is {str(keys.get('tokenizer.ggml.model'))[:40]!r} with the pre-split {str(pre)[:40]!r}; "
            f"only gpt2 with {', '.join(sorted(PRE))} is read: llama.cpp may run the file"
        )
    tokens, merges = (_texts(keys, name) for name in ("tokens", "merges"))
    kinds: Sequence[int] = keys.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if not isinstance(kinds, Sequence) or isinstance(kinds, str) or len(kinds) != len(tokens):
        raise ValueError("tokenizer.ggml.token_type does not fit tokenizer.ggml.tokens")
    # Unused rows have made-up texts. All others, specials too, stay in the vocabulary: that fixes their ids.
    vocab = {t: i for i, (t, kind) in enumerate(zip(tokens, kinds)) if kind != _UNUSED}
    if len(vocab) != sum(kind != _UNUSED for kind in kinds):
        raise ValueError("tokenizer.ggml.tokens has a text twice")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": i, "content": t, **flags, "special": kinds[i] == _CONTROL}
        for t, i in vocab.items()
        if kinds[i] in (_CONTROL, _USER_DEFINED)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    splits = [
        {"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": False} for r in PRE[pre]
    ]
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": pre in WHOLE_WORDS, "vocab": vocab, "merges": [m.split(" ", 1) for m in merges],
    }  # fmt: skip
    spec = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        "post_processor": None, "decoder": byte_level, "model": model,
    }  # fmt: skip
    return Tokenizer(json.dumps(spec))


def _texts(keys: Mapping[str, Any], name: str) -> list[str]:
    value = keys.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not all(isinstance(t, str) for t in value[:1]):
        raise ValueError(f"the GGUF has no list of texts tokenizer.ggml.{name}")
    return value
