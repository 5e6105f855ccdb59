"""A tokenizer.json is checked before the Rust backend sees it."""

from __future__ import annotations

import copy
import json
import random

import pytest

from phikit.text.tokenizer import Tokenizer
from phikit.text.tokenizer_json import MAX_SIZE, check_tokenizer


@pytest.fixture(scope="module")
def sound() -> dict:
    return json.loads(Tokenizer.train(["the cat sat on the mat, the rat on the hat. " * 3], 275).to_json())


def test_a_sound_file(sound):
    assert check_tokenizer(json.dumps(sound)) == sound
    assert check_tokenizer(json.dumps(sound).encode()) == sound


def put(spec: dict, path: str, value: object) -> str:
    """The spec with the value at a dotted path."""
    spec = copy.deepcopy(spec)
    *names, last = path.split(".")
    place = spec
    for name in names:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(spec)


def sequence(parts: str, *steps: dict) -> dict:
    return {"type": "Sequence", parts: list(steps)}


def replace(before: str, after: str) -> dict:
    return {"type": "Replace", "pattern": {"String": before}, "content": after}


def template(*texts: str) -> dict:
    parts = [{"Sequence": {"id": t, "type_id": 0}} for t in texts]
    pair = [{"Sequence": {"id": t, "type_id": 0}} for t in "AB"]
    return {"type": "TemplateProcessing", "single": parts, "pair": pair, "special_tokens": {}}


NFC = {"type": "NFC"}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TOKEN = {"id": 266, "content": "<x>", "special": True}


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("model", [], "no JSON object with a model"),
        ("model.type", "Unigram", "only BPE"),
        ("model.vocab", [], "model.vocab is no object"),
        ("model.vocab", {}, "model.vocab is no object"),
        ("model.vocab.a", -1, "no whole number below"),
        ("model.vocab.a", 1 << 40, "no whole number below"),
        ("model.vocab.a", True, "no whole number below"),
        ("model.vocab.a", 1.0, "no whole number below"),
        ("model.vocab.a", 5, "one id to two tokens"),
        ("model.vocab." + "x" * 5000, 5000, "more than 4096 characters"),
        ("model.merges", "a b", "model.merges is no list"),
        ("model.merges.0", ["a"], r"merges\[0\] is no pair"),
        ("model.merges.0", "a b c", r"merges\[0\] is no pair"),
        ("model.merges.0", [1, 2], r"merges\[0\] is no pair"),
        ("model.merges.0", ["a", "zzz"], r"merges\[0\] joins or makes a token"),
        ("model.merges.0", ["\u0120", "~"], r"merges\[0\] joins or makes a token"),
        ("added_tokens", {}, "added_tokens is no list"),
        ("added_tokens.0", 3, "no token with flags"),
        ("added_tokens.0", {**TOKEN, "special": 1}, "no token with flags"),
        ("added_tokens.0", {**TOKEN, "id": "7"}, "needs an id"),
        ("added_tokens.0", {**TOKEN, "content": ""}, "needs an id"),
        ("added_tokens.0", {**TOKEN, "id": 267}, "there twice"),
        ("added_tokens.0", {**TOKEN, "id": 3}, "model.vocab has its id or text otherwise"),
        ("added_tokens.0", {**TOKEN, "content": "a"}, "model.vocab has its id or text otherwise"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", "(a*)*b", "not one of the known pre-splits"),
        ("decoder", {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}, "decoder: the regex"),
        ("normalizer", {"type": "Sequence", "normalizers": [NFC] * 99}, "up to 64 steps"),
        (
            "normalizer",
            sequence("normalizers", sequence("normalizers", *[NFC] * 33), *[NFC] * 32),
            "more than 64",
        ),
        ("model.dropout", 0.5, "model.dropout is set"),
        # The next came up in fuzzing (tests/fuzz).
        ("model.unk_token", "<none>", "'<none>', which model.vocab does not have"),
        ("model.unk_token", ["a"], "which model.vocab does not have"),
        ("model.continuing_subword_prefix", "x" * 99, "continuing_subword_prefix is not supported"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", [], "not one of the known pre-splits"),
        ("pre_tokenizer.pretokenizers.0.pattern", {"String": ""}, "needs one pattern"),
        ("pre_tokenizer.pretokenizers.0.pattern", {"String": "a", "Regex": "b"}, "needs one pattern"),
        ("pre_tokenizer", {"type": "FixedLength", "length": 0}, "'FixedLength' is no known step"),
        ("pre_tokenizer", {"add_prefix_space": False, "trim_offsets": True}, "'None' is no known step"),
        ("pre_tokenizer", ["ByteLevel"], "is no known step"),
        ("pre_tokenizer", {"type": ["ByteLevel"]}, "is no known step"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": {}}, "needs a list"),
        ("pre_tokenizer", sequence("pretokenizers", BYTE_LEVEL, BYTE_LEVEL), "ByteLevel twice"),
        ("normalizer", sequence("normalizers", *[{"type": "ByteLevel"}] * 40), "ByteLevel twice"),
        ("normalizer", sequence("normalizers", *[replace("a", "aa")] * 40), "may not make a text longer"),
        ("normalizer", replace("", "a"), "needs one pattern"),
        ("normalizer", {"type": "Prepend", "prepend": "a" * 65}, "up to 64 characters"),
        ("decoder", sequence("decoders", *[replace("a", "aa")] * 40), "may not make a text longer"),
        ("decoder", {"type": "Strip", "content": "a", "start": 1 << 40, "stop": 0}, "Strip is known with"),
        ("post_processor", template("A", "A"), "must have the text once"),
        ("post_processor", sequence("processors", template("A"), template("A")), "TemplateProcessing twice"),
    ],
)
def test_what_is_refused(sound, path, value, words):
    with pytest.raises(ValueError, match=words):
        check_tokenizer(put(sound, path, value))
    with pytest.raises(ValueError, match=r"not a readable tokenizer\.json"):
        Tokenizer(put(sound, path, value))


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "Expecting value"),
        (b"\xff", "invalid start byte"),
        (b"[" * 100_000, "too deeply"),
        (b'{"a":1,"a":2}', "one name twice"),
        (b'{"a":Infinity}', "Infinity is no JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "limit"),
        (b" " * (MAX_SIZE + 1), "are the most"),
        (b"null", "no JSON object"),
    ],
)
def test_what_is_no_tokenizer_at_all(data, words):
    with pytest.raises(ValueError, match=words):
        check_tokenizer(data)


@pytest.mark.parametrize(
    "stage, value",
    [
        ("normalizer", sequence("normalizers", {"type": "Prepend", "prepend": "\u2581"}, replace(" ", "\u2581"))),
        ("decoder", sequence("decoders", replace("\u2581", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                             {"type": "Strip", "content": " ", "start": 1, "stop": 0})),
        ("post_processor", template("A")),
        ("post_processor", None),
    ],
)  # fmt: skip
def test_steps_of_published_tokenizers_are_read(sound, stage, value):
    tokenizer = Tokenizer(put(sound, stage, value))
    assert tokenizer.decode(tokenizer.encode("the cat"))


def test_flipped_bits_never_do_more_than_refuse(sound):
    """What passes the check is read by the backend too, or is a ValueError there; encoding ends."""
    data, rng, read = json.dumps(sound).encode(), random.Random(0), 0
    for _ in range(400):
        broken = bytearray(data)
        broken[rng.randrange(len(data))] ^= 1 << rng.randrange(7)
        try:
            check_tokenizer(bytes(broken))
            tokenizer = Tokenizer(broken.decode())
        except ValueError:
            continue
        read += 1
        assert tokenizer.vocab_size > 200
    assert read > 5
