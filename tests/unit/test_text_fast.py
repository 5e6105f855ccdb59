"""The fast encoder gives the reference's ids and offsets, or is not used and says why."""

from __future__ import annotations

import json
import logging
import pickle
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phikit.text import fast
from phikit.text.splits import DIGIT, GPT2, SPLIT
from phikit.text.tokenizer import SPECIALS, Tokenizer, byte_letters

pytest.importorskip("fastokens", reason="fastokens is not installed: there is no fast encoder to test")

TEXTS = [
    "The cat sat on 12 mats; it's 3.50, don't WE'LL.\n\n  def f(x):\n    return x + 1\n",
    "\u00e9t\u00e9 \u4f60",
] * 9
# What the encoders' regex engines and Unicode tables might see differently, and text of all kinds between.
ODD = st.text(
    st.sampled_from(
        " \n\r\t\u2028\u3000\x0b\xa0aZ'sStldmrev19,.!<|>=_\u017f\u0130\u0345\u0301\u200d\u4f60\xbd"
    )
)
LONG = 1_000_000


def reference(tokenizer: Tokenizer, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
    encoded = tokenizer._backend.encode_batch(texts, add_special_tokens=False)
    return [(e.ids, e.offsets) for e in encoded]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = Tokenizer.train(TEXTS, 300)
    assert made._fast is not None
    return made


@pytest.fixture
def again(tokenizer, caplog) -> Tokenizer:
    """A tokenizer whose encoder is not chosen yet, with the log empty."""
    fast._warn.cache_clear()
    caplog.set_level(logging.WARNING)
    return Tokenizer(tokenizer.to_json())


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.one_of(ODD, st.text(), st.sampled_from([*SPECIALS, *TEXTS])), max_size=4))
def test_ids_and_offsets_are_the_references(tokenizer, texts):
    expected = reference(tokenizer, texts)
    assert tokenizer.encode_with_offsets(texts) == expected
    assert tokenizer.encode_batch(texts) == [ids for ids, _ in expected]
    assert [tokenizer.encode(t) for t in texts] == [ids for ids, _ in expected]


def test_parts_of_a_character_have_its_span(tokenizer):
    [(ids, spans)] = tokenizer.encode_with_offsets(["x\U0001f600y"])
    assert len(ids) == 6
    assert spans == [(0, 1), *[(1, 2)] * 4, (2, 3)]


def revealing(pre_tokenizer: dict) -> Tokenizer:
    """A vocabulary of 256 bytes and all pairs with an ASCII byte shows each boundary of the pre-split in the ids."""
    letters = byte_letters()
    lead, tail, ascii_ = range(0xC2, 0xF5), range(0x80, 0xC0), range(0x80)
    pairs = [(a, b) for a in ascii_ for b in lead] + [(a, b) for a in tail for b in ascii_]
    pairs += [(a, b) for a in ascii_ for b in ascii_] + [(a, b) for a in tail for b in lead]
    merges = [[letters[a], letters[b]] for a, b in pairs]
    vocab = {n: i for i, n in enumerate([*letters, *(a + b for a, b in merges)])}
    spec = json.loads(Tokenizer.train(TEXTS, 300).to_json())
    spec |= {"added_tokens": [], "pre_tokenizer": pre_tokenizer}
    spec["model"] |= {"vocab": vocab, "merges": merges}
    return Tokenizer(json.dumps(spec))


def pre_split(*patterns: str) -> dict:
    splits = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in patterns
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, byte_level]}


SMOLLM2 = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
COMPARED = {
    "nano": pre_split(SPLIT % 1), "phi4": pre_split(SPLIT % 3), "gpt2": pre_split(GPT2),
    "smollm2 in GGUF": pre_split(DIGIT, GPT2), "smollm2": SMOLLM2,
}  # fmt: skip


@pytest.mark.parametrize("split", COMPARED.values(), ids=COMPARED)
def test_every_character_is_split_alike(split):
    """All code points up to the Han characters, and one in 101 of the others."""
    made = revealing(split)
    assert made._fast is not None
    points = [*range(0x3000), *range(0x3000, 0x20000, 101), *range(0xE0000, 0xE0200, 7)]
    texts = [
        f"a{c}1{c}!{c} {c}'{c}x\n{c}\n  {c}" for p in points if not 0xD800 <= p < 0xE000 for c in [chr(p)]
    ]
    assert len(texts) > 12_000
    expected = made._backend.encode_batch_fast(texts, add_special_tokens=False)
    for text, ids, e in zip(texts, made.encode_batch(texts), expected, strict=True):
        assert ids == e.ids, text


@pytest.mark.parametrize("split", [pre_split(SPLIT % 1), pre_split(SPLIT % 3)], ids=["nano", "phi4"])
def test_characters_that_are_known_to_differ_go_to_the_reference(split):
    """If fastokens comes to agree on these, the exception can go."""
    made = revealing(split)
    texts = [f"!{c} it'{c}x" for c in fast.UNSURE]
    raw = [made._fast._backend.encode(t, split_special_tokens=True).ids for t in texts]
    expected = [ids for ids, _ in reference(made, texts)]
    assert raw != expected
    assert made.encode_batch(texts) == [made.encode(t) for t in texts] == expected


@pytest.mark.parametrize(
    "text",
    [
        "a" * LONG, " " * LONG, " " * LONG + "x", "\n" + "\t" * LONG + "\nx", " \n" * (LONG // 2), "1" * LONG,
        "=" * LONG, "\u4f60" * (LONG // 3), "e" + "\u0301" * (LONG // 2),
        "".join(chr(33 + (i * 7919 + i * i) % 94) for i in range(LONG)),
    ],
    ids=["a", "blanks", "blanks-x", "tabs-x", "lines", "digits", "signs", "han", "marks", "base64"],
)  # fmt: skip
def test_a_megabyte_without_a_word_break_is_not_quadratic(tokenizer, text):
    """A hundred times 10 kB may take a hundred times as long; a quadratic encoder takes 10,000 times."""
    begin = time.process_time()
    ids = tokenizer.encode(text)
    assert time.process_time() - begin < 10  # CPU seconds; measured 0.02 to 0.7
    assert tokenizer.decode_bytes(ids) == text.encode()


def test_an_encoder_that_differs_is_dropped_and_named(again, tokenizer, caplog, monkeypatch):
    class Wrong(fast.FastEncoder):
        def encode(self, text):
            ids = super().encode(text)
            return ids[::-1] if "WE'LL" in text else ids

    monkeypatch.setattr(fast, "FastEncoder", Wrong)
    assert again.encode_with_offsets(TEXTS) == tokenizer.encode_with_offsets(TEXTS)
    assert again._fast is None
    assert "fastokens gives other ids for \"it's WE'LL" in caplog.text
    assert "encoding with `tokenizers`" in caplog.text


def test_an_encoder_whose_batch_differs_is_dropped(again, caplog, monkeypatch):
    class Wrong(fast.FastEncoder):
        def encode_batch(self, texts):
            return super().encode_batch(texts)[::-1]

    monkeypatch.setattr(fast, "FastEncoder", Wrong)
    assert again.decode(again.encode_batch(TEXTS)[0]) == TEXTS[0]
    assert "gives other ids" in caplog.text


class PanicException(BaseException):
    """Named like the exception in which Rust's panics arrive."""


@pytest.mark.parametrize("error", [ValueError("no such model"), PanicException("index out of bounds")])
def test_an_encoder_that_fails_is_dropped(again, tokenizer, caplog, monkeypatch, error):
    def fail(reference):
        raise error

    monkeypatch.setattr(fast, "FastEncoder", fail)
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert f"fastokens failed ({type(error).__name__}: {error})" in caplog.text


def test_an_interrupt_is_not_swallowed(again, monkeypatch):
    def stop(reference):
        raise KeyboardInterrupt

    monkeypatch.setattr(fast, "FastEncoder", stop)
    with pytest.raises(KeyboardInterrupt):
        again.encode("a")


def test_without_the_package_the_reference_is_used(again, tokenizer, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastokens", None)
    assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    assert again.encode_with_offsets(TEXTS) == tokenizer.encode_with_offsets(TEXTS)
    assert "pip install fastokens" in caplog.text
    assert Tokenizer(tokenizer.to_json()).encode("cat") == tokenizer.encode("cat")
    assert len(caplog.records) == 1  # once per process


PREFIXED = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalizes"),
        ({"pre_tokenizer": PREFIXED}, "another pre-split"),
        ({"pre_tokenizer": pre_split(SPLIT % 2)}, "another pre-split"),
        ({"decoder": {"type": "Fuse"}}, "not a byte-level BPE"),
        ({"added_tokens": [{"id": 300, "content": "<x>", "lstrip": True}]}, "takes white space"),
    ],
)
def test_kinds_that_were_not_compared_stay_with_the_reference(tokenizer, caplog, change, reason):
    fast._warn.cache_clear()
    for token in change.get("added_tokens", ()):
        token |= {"single_word": False, "rstrip": False, "normalized": False, "special": False}
    made = Tokenizer(json.dumps(json.loads(tokenizer.to_json()) | change))
    assert made.encode("cafe\u0301 <x>") == made._backend.encode("cafe\u0301 <x>").ids
    assert made._fast is None
    assert reason in caplog.text


def test_trimmed_offsets_are_the_backends(tokenizer):
    post = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    made = Tokenizer(json.dumps(json.loads(tokenizer.to_json()) | {"post_processor": post}))
    assert made._fast is not None
    assert (
        made.encode_with_offsets([" cat"])
        == reference(made, [" cat"])
        != tokenizer.encode_with_offsets([" cat"])
    )


def test_a_file_that_asks_to_cut_or_pad_is_not_obeyed(tokenizer):
    spec = json.loads(tokenizer.to_json())
    spec["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    spec["padding"] = {
        "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "!",
    }  # fmt: skip
    made = Tokenizer(json.dumps(spec))
    assert made.encode_batch([TEXTS[0], ""]) == [tokenizer.encode(TEXTS[0]), []]
    assert made.to_json() == tokenizer.to_json()


@pytest.mark.parametrize("use_fast", [True, False])
def test_a_lone_surrogate_is_named(tokenizer, use_fast):
    made = Tokenizer(tokenizer.to_json())
    if not use_fast:
        made._fast = None  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"text 1 has a lone surrogate \(U\+D800\) at character 2"):
        made.encode_batch(["fine", "ab\ud800c"])
    with pytest.raises(ValueError, match="text 0 has a lone surrogate"):
        made.encode("\udfff")
    with pytest.raises(ValueError, match="text 2 has a lone surrogate"):
        made.encode_with_offsets(["", "a", "\udfff"])
    with pytest.raises(TypeError, match="text 1 is int, not str"):
        made.encode_batch(["fine", 3])  # type: ignore[list-item]


def test_a_tokenizer_that_has_encoded_can_be_sent_to_a_worker(tokenizer):
    tokenizer.encode("cat")
    assert pickle.loads(pickle.dumps(tokenizer)).encode("cat 12") == tokenizer.encode("cat 12")
