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

from phikit.records.io import write_text

# Facts section 2.2: the cl100k pre-split. Digits come in runs of up to three, or one by one at nano.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

END_OF_TEXT = "<|endoftext|>"
IM_START, IM_END, IM_SEP = "<|im_start|>", "<|im_end|>", "<|im_sep|>"
PAD = "<|dummy_85|>"  # Phi-4 pads with a dummy, never with an end token (facts section 1.9)
# Those of Phi-4's 96 specials that carry meaning; a trained vocabulary appends them in this order.
SPECIALS = (
    END_OF_TEXT, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    IM_START, IM_END, IM_SEP, "<|endofprompt|>", PAD,
)  # fmt: skip


class Tokenizer:
    """Wraps a Hugging Face `tokenizer.json`. `encode` never produces special ids from text."""

    def __init__(self, spec: str) -> None:
        """`spec` is the text of a `tokenizer.json`. Raises ValueError where it is none or lacks specials."""
        from tokenizers import Tokenizer as Backend

        try:
            self._backend = Backend.from_str(spec)
        except Exception as e:  # the backend raises plain Exception
            raise ValueError(f"not a readable tokenizer.json ({e})") from e
        self._backend.encode_special_tokens = True  # "<|im_end|>" inside a document is text
        self.vocab_size = self._backend.get_vocab_size(with_added_tokens=True)
        ids = {str(t.content): i for i, t in self._backend.get_added_tokens_decoder().items() if t.special}
        missing = [t for t in (END_OF_TEXT, IM_START, IM_END, IM_SEP, PAD) if t not in ids]
        if missing:
            raise ValueError(f"the tokenizer lacks the special tokens {missing}")
        self.special_ids: dict[str, int] = ids
        self.end_of_text, self.pad = ids[END_OF_TEXT], ids[PAD]
        self.im_start, self.im_end, self.im_sep = ids[IM_START], ids[IM_END], ids[IM_SEP]

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

    def encode(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Per text its ids and, for each id, its (start, end) in characters."""
        return [(e.ids, e.offsets) for e in self._backend.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens and ids outside the vocabulary are left out."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def token_text(self, token: int) -> str:
        """What one id looks like alone; specials by their name, broken UTF-8 as the replacement sign."""
        for name, i in self.special_ids.items():
            if i == token:
                return name
        return self._backend.decode([token], skip_special_tokens=False)
