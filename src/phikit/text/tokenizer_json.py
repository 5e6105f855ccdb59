"""A tokenizer.json, checked before the Rust backend sees it.

`check_tokenizer` is a pure function of bytes with bounded time and memory; its only error is ValueError.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from phikit.text.splits import KNOWN

MAX_SIZE = 1 << 26  # bytes; a vocabulary of 262,144 tokens with merges takes about 33 MB
MAX_IDS = 1 << 21  # also the largest id
MAX_TOKEN = 1 << 12  # characters of a token; cl100k's longest has 128
MAX_STEPS = 64  # normalizers, pre-splits, decoders of one file
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_STAGES = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def check_tokenizer(data: bytes | str) -> dict[str, Any]:
    """The parsed file. Raises ValueError where it is no BPE tokenizer.json: its size, JSON without repeated
    names, token texts and ids, merges of known tokens, flags of added tokens, and only pre-split regexes that are
    known, for one of a stranger could run forever."""
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
    vocab = _vocab(model.get("vocab"))
    _check_merges(model.get("merges"), vocab)
    _check_added(spec.get("added_tokens", []), vocab)
    for stage in _STAGES:
        _check_stage(stage, spec.get(stage))
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


def _check_stage(stage: str, value: Any) -> None:
    if value is None:
        return
    for steps, step in enumerate(_steps(value), 1):
        if steps > MAX_STEPS:
            raise ValueError(f"{stage} has more than {MAX_STEPS} steps")
        pattern = step.get("pattern")
        if isinstance(pattern, dict) and "Regex" in pattern and pattern["Regex"] not in KNOWN:
            raise ValueError(
                f"{stage}: the regex {str(pattern['Regex'])[:80]!r} is not one of the known pre-splits "
                "(phikit/text/splits.py); a regex of a stranger's file could run forever"
            )


def _steps(value: Any) -> Iterator[dict[str, Any]]:
    """All objects inside a stage."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            yield item
            todo += item.values()
        elif isinstance(item, list):
            todo += item


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has one name twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
