"""Bytes to ids and back: a byte-level BPE with Phi-4's special tokens.

At the large scales the layout is Phi-4's own (cl100k ranks, 100,352 ids; facts section 2.1). At nano a small
vocabulary is trained with the same pre-split regex, except that every digit stands alone, so that arithmetic
on a tiny vocabulary sees place value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from phikit.records.io import write_text
from phikit.text.chat_format import ChatFormat
from phikit.text.fast import FastEncoder, checked, joined
from phikit.text.splits import SPLIT
from phikit.text.tokenizer_json import check_tokenizer

END_OF_TEXT = "<|endoftext|>"
IM_START, IM_END, IM_SEP = "<|im_start|>", "<|im_end|>", "<|im_sep|>"
PAD = "<|dummy_85|>"  # Phi-4 pads with a dummy, never with an end token (facts section 1.9)
# Those of Phi-4's 96 specials that carry meaning; a trained vocabulary appends them in this order.
SPECIALS = (
    END_OF_TEXT, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    IM_START, IM_END, IM_SEP, "<|endofprompt|>", PAD,
)  # fmt: skip


class Tokenizer:
    """Wraps a Hugging Face `tokenizer.json`. `encode` never produces special ids from text.

    Ids are those of `tokenizers`, the reference; a self-checked fast encoder (fast.py) computes them. Text with
    a lone surrogate is a ValueError. `format` is how another model than Phi-4 writes conversations.
    """

    format: ChatFormat | None = None

    def __init__(self, spec: str) -> None:
        """`spec` is the text of a `tokenizer.json`. Raises ValueError where it is none."""
        from tokenizers import Tokenizer as Backend

        try:
            check_tokenizer(spec)
            self._backend = Backend.from_str(spec)
        except BaseException as e:  # the backend raises plain Exception, and Rust's panic is not even that
            if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
                raise
            raise ValueError(f"not a readable tokenizer.json ({e})") from e
        self._backend.encode_special_tokens = True  # "<|im_end|>" inside a document is text
        self._backend.no_truncation()  # a file may ask for it; text is never cut silently
        self._backend.no_padding()
        self.vocab_size = self._backend.get_vocab_size(with_added_tokens=True)
        self.special_ids: dict[str, int] = {
            str(t.content): i for i, t in self._backend.get_added_tokens_decoder().items() if t.special
        }

    # Roles of Phi-4's chat format. Other models' tokenizers are held too: asking such a one for a role that it
    # has not is a ValueError, never another token.

    @property
    def end_of_text(self) -> int:
        return self._role(END_OF_TEXT)

    @property
    def pad(self) -> int:
        return self._role(PAD)

    @property
    def im_start(self) -> int:
        return self._role(IM_START)

    @property
    def im_end(self) -> int:
        return self._role(IM_END)

    @property
    def im_sep(self) -> int:
        return self._role(IM_SEP)

    @property
    def is_phi4(self) -> bool:
        """Whether the tokenizer has every special token of Phi-4's chat format."""
        return all(t in self.special_ids for t in (END_OF_TEXT, IM_START, IM_END, IM_SEP, PAD))

    def _role(self, text: str) -> int:
        if text not in self.special_ids:
            raise ValueError(f"the tokenizer lacks the special token {text!r} of Phi-4's chat format")
        return self.special_ids[text]

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """From a `tokenizer.json` or a folder that holds one."""
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.exists():
            raise FileNotFoundError(f"no tokenizer.json at {path}")
        try:
            return cls(file.read_text(encoding="utf-8"))
        except ValueError as e:
            raise ValueError(f"{file}: {e}") from e

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, digits: int = 1) -> Tokenizer:
        """Trains a byte-level BPE of `vocab_size` ids, specials included."""
        from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
        from tokenizers import Tokenizer as Backend

        if vocab_size < 256 + len(SPECIALS):
            raise ValueError(
                f"model.vocab = {vocab_size} is below 256 bytes + {len(SPECIALS)} special tokens"
            )
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT % digits), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(SPECIALS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        short = vocab_size - len(SPECIALS) - backend.get_vocab_size()
        if short > 0:
            raise ValueError(
                f"model.vocab = {vocab_size} needs more text: training found {short} ids too few"
            )
        backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
        return cls(backend.to_str())

    def save(self, path: Path) -> None:
        write_text(path, self.to_json())

    def to_json(self) -> str:
        return self._backend.to_str(pretty=False)

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        return [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in self._spec["merges"]]  # type: ignore[misc]

    @cached_property
    def _spec(self) -> dict:
        return json.loads(self.to_json())["model"]

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[str]]:
        return type(self), (self.to_json(),)  # the fast encoder cannot be pickled

    @cached_property
    def _fast(self) -> FastEncoder | None:
        return checked(self._backend, self._pieces if self.is_byte_level else ())

    def encode(self, text: str) -> list[int]:
        try:
            if self._fast is not None:
                return self._fast.encode(text)
            return self._backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError) as e:
            raise _unreadable([text], e) from e

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, on all cores (RAYON_NUM_THREADS)."""
        try:
            if self._fast is not None:
                return self._fast.encode_batch(texts)
            return [e.ids for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        except (TypeError, UnicodeEncodeError) as e:
            raise _unreadable(texts, e) from e

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`encode_batch` as arrays, without an object for each id: (ids of all texts, uint32 [T]; where each text's
        begin and the last one's end, int64 [D+1])."""
        try:
            if self._fast is not None:
                return self._fast.encode_flat(texts)
        except (TypeError, UnicodeEncodeError) as e:
            raise _unreadable(texts, e) from e
        return joined(self.encode_batch(texts))

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Per text its ids and, for each id, its (start, end) in characters. A token that holds part of a
        character has the span of the whole character."""
        if self._fast is not None and self._keeps_offsets:
            return [
                (ids, _spans(text, self._lengths[np.asarray(ids, dtype=np.intp)]))
                for text, ids in zip(texts, self.encode_batch(texts))
            ]
        try:
            encoded = self._backend.encode_batch(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as e:
            raise _unreadable(texts, e) from e
        return [(e.ids, e.offsets) for e in encoded]

    @cached_property
    def _keeps_offsets(self) -> bool:
        """A post-processor may trim blanks from offsets, as GPT-2's does: then they are left to the backend."""
        return self._backend.post_processor is None

    @cached_property
    def _lengths(self) -> np.ndarray:
        """Bytes of each id, int64 [ids]."""
        return np.array([len(p) for p in self._pieces], dtype=np.int64)

    @property
    def is_byte_level(self) -> bool:
        from tokenizers import decoders

        return isinstance(self._backend.decoder, decoders.ByteLevel)

    @cached_property
    def _pieces(self) -> list[bytes]:
        """The bytes of each id; special tokens have none."""
        if not self.is_byte_level:
            raise ValueError("the tokenizer is not byte-level: its tokens have text but no bytes")
        table = str.maketrans({letter: chr(byte) for byte, letter in enumerate(byte_letters())})
        added = self._backend.get_added_tokens_decoder()
        vocab = self._backend.get_vocab(with_added_tokens=False)
        last = max([*vocab.values(), *added], default=-1)  # check_tokenizer bounds it
        pieces = [b""] * (last + 1)
        for name, i in vocab.items():
            known = all(ord(letter) in table for letter in name)
            pieces[i] = name.translate(table).encode("latin-1") if known else name.encode()
        for i, token in added.items():
            pieces[i] = b"" if token.special else str(token.content).encode()
        return pieces

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id, perhaps a part of a character; none for specials and ids outside the vocabulary.
        ValueError where the tokenizer is not byte-level."""
        return self._pieces[token] if 0 <= token < len(self._pieces) else b""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The exact bytes of ids, also where they end inside a character, which `decode` cannot show."""
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens and ids outside the vocabulary are left out."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def token_text(self, token: int) -> str:
        """What one id looks like alone; specials by their name, broken UTF-8 as the replacement sign."""
        for name, i in self.special_ids.items():
            if i == token:
                return name
        return self._backend.decode([token], skip_special_tokens=False)


def _spans(text: str, lengths: np.ndarray) -> list[tuple[int, int]]:
    """Character spans of tokens that are `lengths` bytes long and make up `text`."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    data = text.encode()
    assert lengths.sum() == len(data)
    if not text.isascii() and len(ends):
        begun = np.cumsum(np.frombuffer(data, np.int8) >= -0x40)  # characters begun up to each byte
        starts, ends = begun[starts] - 1, begun[ends - 1]
    return list(zip(starts.tolist(), ends.tolist()))


def _unreadable(texts: Sequence[str], error: Exception) -> Exception:
    """Names the text and the place of a lone surrogate; another error stays what it is."""
    for i, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as e:
            return ValueError(
                f"text {i} has a lone surrogate (U+{ord(text[e.start]):04X}) at character {e.start}: not valid Unicode"
            )
        except AttributeError:
            return TypeError(f"text {i} is {type(text).__name__}, not str")
    return error


def byte_letters() -> list[str]:
    """The byte-level alphabet: a printable Latin-1 byte is itself, the others are letters from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(b if b in printable else next(others)) for b in range(256)]
