"""A tokenizer.json, checked before the Rust backend sees it.

`check_tokenizer` is a pure function of bytes with bounded time and memory; its only error is ValueError.
"""

from __future__ import annotations

import json
from typing import Any

from phikit.text.tokenizer_stages import STAGES, check_stage

MAX_SIZE = 1 << 26  # bytes; a vocabulary of 262,144 tokens with merges takes about 33 MB
MAX_IDS = 1 << 21  # also the largest id
MAX_TOKEN = 1 << 12  # characters of a token; cl100k's longest has 128
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def check_tokenizer(data: bytes | str) -> dict[str, Any]:
    """The parsed file. Raises ValueError where it is no BPE tokenizer.json: its size, JSON without repeated
    names, token texts and ids, merges of known tokens, flags of added tokens, and only steps before and after the
    merges that end in bounded time (`tokenizer_stages.py`)."""
    if len(data) > MAX_SIZE:
        raise ValueError(f"{len(data):,} bytes; {MAX_SIZE:,} are the most")
    try:
        text = data if isinstance(data, str) else bytes(data).decode("utf-8")
        spec = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise ValueError("no JSON object with a model")
    model = spec["model"]
    if model.get("type", "BPE") != "BPE":  # old files leave it out
        raise ValueError(f"the model is {str(model['type'])[:40]!r}; only BPE is read")
    if model.get("dropout"):
        raise ValueError(
            "model.dropout is set: the same text would have other tokens each time; set it to null"
        )
    vocab = _vocab(model.get("vocab"))
    if (unknown := model.get("unk_token")) is not None and (
        not isinstance(unknown, str) or unknown not in vocab
    ):
        raise ValueError(f"model.unk_token is {str(unknown)[:40]!r}, which model.vocab does not have")
    if model.get("continuing_subword_prefix"):
        raise ValueError("model.continuing_subword_prefix is not supported: merges must join whole tokens")
    _check_merges(model.get("merges"), vocab)
    _check_added(spec.get("added_tokens", []), vocab)
    for stage in STAGES:
        check_stage(stage, spec.get(stage))
    return spec


def _vocab(vocab: Any) -> dict[str, int]:
    if not isinstance(vocab, dict) or not 1 <= len(vocab) <= MAX_IDS:
        raise ValueError(f"model.vocab is no object of 1 to {MAX_IDS:,} tokens")
    if not all(type(i) is int and 0 <= i < MAX_IDS for i in vocab.values()):
        raise ValueError(f"model.vocab has an id that is no whole number below {MAX_IDS:,}")
    if len(set(vocab.values())) != len(vocab):
        raise ValueError("model.vocab gives one id to two tokens")
    if max(map(len, vocab)) > MAX_TOKEN:
        raise ValueError(f"model.vocab has a token of more than {MAX_TOKEN} characters")
    return vocab


def _check_merges(merges: Any, vocab: dict[str, int]) -> None:
    if not isinstance(merges, list) or len(merges) > MAX_IDS:
        raise ValueError(f"model.merges is no list of up to {MAX_IDS:,} pairs")
    for n, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(p, str) for p in pair):
            raise ValueError(f"model.merges[{n}] is no pair of tokens")
        if pair[0] not in vocab or pair[1] not in vocab or pair[0] + pair[1] not in vocab:
            raise ValueError(f"model.merges[{n}] joins or makes a token that model.vocab does not have")


def _check_added(added: Any, vocab: dict[str, int]) -> None:
    if not isinstance(added, list) or len(added) > MAX_IDS:
        raise ValueError("added_tokens is no list")
    texts: dict[str, int] = {}
    ids: set[int] = set()
    owners = {i: t for t, i in vocab.items()} if added else {}
    for n, token in enumerate(added):
        if not isinstance(token, dict) or not all(type(token.get(f, False)) is bool for f in _FLAGS):
            raise ValueError(f"added_tokens[{n}] is no token with flags")
        i, text = token.get("id"), token.get("content")
        if (
            type(i) is not int
            or not 0 <= i < MAX_IDS
            or not isinstance(text, str)
            or not 1 <= len(text) <= MAX_TOKEN
        ):
            raise ValueError(f"added_tokens[{n}] needs an id below {MAX_IDS:,} and a text")
        if text in texts or i in ids:
            raise ValueError(f"added_tokens[{n}]: its id or text is there twice")
        if owners.get(i, text) != text or vocab.get(text, i) != i:
            raise ValueError(f"added_tokens[{n}]: model.vocab has its id or text otherwise")
        texts[text] = i
        ids.add(i)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has one name twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
