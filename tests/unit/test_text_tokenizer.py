"""The trained tokenizer: text comes back, specials never come from text, the pre-split is Phi-4's."""

from __future__ import annotations

import codecs
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phikit.text.tokenizer import PAD, SPECIALS, Tokenizer

TEXTS = ["The cat sat on 12 mats; it's 3.50, don't WE'LL.\n\n  def f(x):\n    return x + 1\n"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 300)


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_text_comes_back(text):
    t = _shared()
    ids = t.encode(text)
    assert t.decode(ids) == text
    assert not set(ids) & set(t.special_ids.values())


_made: list[Tokenizer] = []


def _shared() -> Tokenizer:
    if not _made:
        _made.append(Tokenizer.train(TEXTS, 300))
    return _made[0]


def test_specials_are_the_last_ids(tokenizer):
    assert tokenizer.vocab_size == 300
    assert [tokenizer.special_ids[t] for t in SPECIALS] == list(range(300 - len(SPECIALS), 300))
    assert tokenizer.pad == tokenizer.special_ids[PAD]
    assert tokenizer.pad not in (tokenizer.im_end, tokenizer.end_of_text)


def test_specials_in_text_are_text(tokenizer):
    for special in SPECIALS:
        ids = tokenizer.encode(f"a{special}b")
        assert len(ids) > 5
        assert tokenizer.decode(ids) == f"a{special}b"


def test_special_tokens_are_left_out_of_decoded_text(tokenizer):
    ids = [tokenizer.im_start, *tokenizer.encode("cat"), tokenizer.im_end]
    assert tokenizer.decode(ids) == "cat"
    assert tokenizer.decode([*ids, 10_000]) == "cat"
    assert tokenizer.token_text(tokenizer.im_end) == "<|im_end|>"


@settings(max_examples=150, deadline=None)
@given(st.text(), st.randoms())
def test_bytes_are_lossless_for_any_cut(text, random):
    """Ids cut inside a character have exact bytes; `decode` shows a replacement sign there."""
    t = _shared()
    ids = t.encode(text)
    cut = random.randint(0, len(ids))
    assert t.decode_bytes(ids[:cut]) + t.decode_bytes(ids[cut:]) == text.encode()
    assert t.decode_bytes(ids[:cut]).decode("utf-8", "replace") == t.decode(ids[:cut])


def test_bytes_of_one_id(tokenizer):
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("\U0001f600")] == [
        b"\xf0",
        b"\x9f",
        b"\x98",
        b"\x80",
    ]
    assert tokenizer.token_bytes(tokenizer.im_end) == b""
    assert tokenizer.token_bytes(10_000) == tokenizer.token_bytes(-1) == b""
    assert tokenizer.decode_bytes([tokenizer.im_start, *tokenizer.encode("cat"), 10_000]) == b"cat"


def test_bytes_and_a_stream_of_characters_agree(tokenizer):
    """What engines do with `token_bytes`: no half character is ever shown, and nothing is lost."""
    text = "na\u00efve \u4f60\u597d \U0001f600!"
    shown = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [shown.decode(tokenizer.token_bytes(i)) for i in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert pieces.count("") == 1 + 2 + 2 + 3  # the bytes before the last of each
    assert not any("\ufffd" in p for p in pieces)


def test_a_tokenizer_without_bytes_says_so(tokenizer):
    spec = json.loads(tokenizer.to_json())
    spec["decoder"] = {"type": "Fuse"}
    with pytest.raises(ValueError, match="not byte-level"):
        Tokenizer(json.dumps(spec)).decode_bytes([1])


def test_digits_stand_alone_or_in_threes(tokenizer):
    pieces = [tokenizer.token_text(i) for i in tokenizer.encode("1234567")]
    assert pieces == list("1234567")
    threes = Tokenizer.train(["123 456 123 456 789 " * 9], 270, digits=3)
    assert [threes.token_text(i) for i in threes.encode("123456")] == ["123", "456"]
    assert len(threes.encode("1234")) == 2  # left to right: 123, 4


def test_a_batch_is_the_same_as_one_by_one(tokenizer):
    texts = ["", "cat", "  two  spaces ", "é", *TEXTS]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(t) for t in texts]


def test_offsets_are_in_characters(tokenizer):
    [(ids, spans)] = tokenizer.encode_with_offsets(["it's é cat"])
    assert ids == tokenizer.encode("it's é cat")
    assert spans[0][0] == 0
    assert spans[-1][1] == len("it's é cat")
    assert all(a <= b for a, b in spans)


def test_training_is_repeatable_and_survives_a_file(tokenizer, tmp_path):
    assert Tokenizer.train(TEXTS, 300).to_json() == tokenizer.to_json()
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path)
    assert again.to_json() == tokenizer.to_json()
    assert again.encode("a <|im_end|> 12") == tokenizer.encode("a <|im_end|> 12")
    assert len(again.merges) == 300 - 256 - len(SPECIALS)
    assert all(len(m) == 2 for m in again.merges)


def test_too_small_vocabulary_or_too_little_text():
    with pytest.raises(ValueError, match=r"model\.vocab = 200 is below 256 bytes"):
        Tokenizer.train(TEXTS, 200)
    with pytest.raises(ValueError, match="needs more text"):
        Tokenizer.train(["ab"], 5000)


def test_a_tokenizer_without_our_specials_has_no_such_roles(tokenizer):
    spec = json.loads(tokenizer.to_json())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] != "<|im_sep|>"]
    other = Tokenizer(json.dumps(spec))
    assert tokenizer.is_phi4
    assert not other.is_phi4
    assert other.im_end == tokenizer.im_end
    assert other.encode("cat <|im_end|>") == tokenizer.encode("cat <|im_end|>")
    with pytest.raises(ValueError, match="im_sep"):
        _ = other.im_sep


def test_missing_and_malformed_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
