"""The fast encoder behind `Tokenizer`, used only where it was seen to give the reference's ids.

`fastokens` (a Rust BPE that reads the same tokenizer.json) is 20 to 80 times as fast as Hugging Face
`tokenizers` on one thread and, unlike tiktoken, takes any vocabulary and any input: tiktoken's regex engine
panics at a million blanks before a word. It is young, so nothing is taken on trust: before its first use it
encodes `PROBES` and a sample of the vocabulary, and is dropped with a warning where one id differs. Tests
compare it over every assigned character and real corpora.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from phikit.text.splits import DIGIT, GPT2, SPLIT

SAMPLE = 4096  # vocabulary entries that the self-check strings together; milliseconds at the reference's rate
# One of each thing that encoders are known to disagree on: contractions and case folding (long s), digit runs,
# white space before line ends, before words and at the end, new and combined characters, specials as text.
PROBES = (
    "",
    "it's WE'LL don't I'M they'Ve 'S 'x l'\u0130 '\u212a '\n",
    "1 12 123 1234 1234567 3.14159 1,000,000 \u0663\u0664\u0665\u0666 \u00bd\u2167 x1y2",
    "a  b   c\t\td\n\n\ne\r\n\r\n f \n g   ",
    "\n \n  \n\t \r\n   x\u3000\u3000y\u2028 z\xa0\xa0\n",
    "    def f(x):\n        return x ** 2  # square\n\n\nclass A:\n\tpass\n \n  ",
    "Gr\u00f6\u00dfe nai\u0308ve cafe\u0301 \u4f60\u597d\uff0c\u4e16\u754c",
    "\u3053\u3093\u306b\u3061\u306f \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 \u0e01\u0e31\u0e19 \u05e9\u05dc\u05d5\u05dd",
    "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467 \U00018ddb\U00016ed2 \U0010ffff\ue000",
    "\x00\x01\x7f\x85\xa0\ufeff\ufffd",
    "a" * 300 + " " * 300 + "b" + "=" * 300 + "\n" * 300 + "c",
    "https://example.org/a_b?c=d&e=%20#f <div class='x'>&nbsp;</div>",
    "<|im_start|>user<|im_sep|>forged<|im_end|><|endoftext|> <s> </s> [INST]",
)
COMPARED = {(SPLIT % 1,), (SPLIT % 3,), (GPT2,), (DIGIT, GPT2)}
# Found by comparing all characters: PCRE2 counts the Mongolian vowel separator among white space, and the scanner
# for cl100k's regex does not fold the long s in contractions ('s). Such texts are left to the reference.
UNSURE = "\u180e\u017f"
_log = logging.getLogger(__name__)


class FastEncoder:
    """`fastokens` for one tokenizer. Text that names a special token stays text."""

    def __init__(self, reference: Any) -> None:
        """`reference` is a `tokenizers.Tokenizer`."""
        from fastokens import Tokenizer as Backend

        self._backend = Backend.from_json_str(reference.to_str())
        self._reference = reference

    def encode(self, text: str) -> list[int]:
        if _unsure(text):
            return self._reference.encode(text, add_special_tokens=False).ids
        return self._backend.encode(text, split_special_tokens=True).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        ids, offsets = self.encode_flat(texts)
        return [ids[a:z].tolist() for a, z in pairwise(offsets.tolist())]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids of all texts, uint32 [T]; where each begins and the last ends, int64 [D+1]). Uses all cores, or as many
        as RAYON_NUM_THREADS says."""
        flat, ends = self._backend.encode_batch_flat(list(texts), split_special_tokens=True)
        ids, offsets = np.frombuffer(flat, "<u4"), np.frombuffer(ends, "<u8").astype(np.int64)
        if unsure := [d for d, text in enumerate(texts) if _unsure(text)]:
            parts = [ids[a:z] for a, z in pairwise(offsets.tolist())]
            for d in unsure:
                parts[d] = np.array(self.encode(texts[d]), np.uint32)
            return joined(parts)
        return ids, offsets


def joined(parts: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of texts, one after another, as `encode_flat` gives them."""
    sizes = np.array([len(p) for p in parts], np.int64)
    flat = np.concatenate([np.zeros(0, np.uint32), *(np.asarray(p, np.uint32) for p in parts)])
    return flat, np.concatenate([[0], np.cumsum(sizes)])


def checked(reference: Any, pieces: Sequence[bytes]) -> FastEncoder | None:
    """A fast encoder that agrees with `reference` (a `tokenizers.Tokenizer`), or None with a warning that says
    why. `pieces` are the bytes of each id."""
    if reason := _unfit(reference):
        _warn(f"{reason}: encoding with `tokenizers`")
        return None
    try:
        encoder = FastEncoder(reference)
        reason = _disagreement(encoder, reference, _probes(pieces))
    except ImportError:
        reason = "fastokens is not installed (pip install fastokens)"
    except BaseException as e:  # what a young encoder may raise at a file that the reference reads
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":  # Rust's, no Exception
            raise
        reason = f"fastokens failed ({type(e).__name__}: {e})"
    if reason:
        _warn(f"{reason}: encoding with `tokenizers`, many times slower")
        return None
    return encoder


def _unsure(text: str) -> bool:
    """Whether the text has a character that fastokens splits otherwise than the reference."""
    return any(c in text for c in UNSURE)


def _disagreement(encoder: FastEncoder, reference: Any, texts: Sequence[str]) -> str:
    """The first text whose ids differ, alone or in the batch, in words; "" where all agree."""
    expected = reference.encode_batch_fast(list(texts), add_special_tokens=False)
    for text, batch, e in zip(texts, encoder.encode_batch(texts), expected):
        if not batch == encoder.encode(text) == e.ids:
            return f"fastokens gives other ids for {text[:60]!a}"
    return ""


def _unfit(reference: Any) -> str:
    """Why a tokenizer is of a kind that was not compared; "" for the others."""
    from tokenizers import decoders, models

    if not isinstance(reference.model, models.BPE) or not isinstance(reference.decoder, decoders.ByteLevel):
        return "not a byte-level BPE"
    if _pre_split(reference) not in COMPARED:
        return "another pre-split than those that were compared"
    if reference.normalizer is not None or reference.model.dropout:
        return "the tokenizer normalizes or drops merges"
    added = reference.get_added_tokens_decoder().values()
    if any(t.lstrip or t.rstrip or t.single_word for t in added if not t.special):
        return "an added token takes white space with it"
    return ""


def _pre_split(reference: Any) -> tuple[str, ...]:
    """The regexes and the names of other steps; a prefix blank or an inverted split makes a name of its own."""
    stage = json.loads(reference.pre_tokenizer.__getstate__()) if reference.pre_tokenizer else {}
    steps = stage.get("pretokenizers", [stage])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False}
    names = []
    for step in steps:
        pattern = (step.get("pattern") or {}).get("Regex")
        if pattern and step["behavior"] == "Isolated" and not step["invert"]:
            names.append(pattern)
        elif byte_level.items() <= step.items():
            names += [GPT2] if step["use_regex"] else []
        elif step == {"type": "Digits", "individual_digits": True}:
            names.append(DIGIT)
        else:
            names.append(str(step))
    return tuple(names)


def _probes(pieces: Sequence[bytes]) -> list[str]:
    """The fixed probes and one text that strings together entries from the whole vocabulary."""
    some = b"".join(pieces[:: max(len(pieces) // SAMPLE, 1)])
    return [*PROBES, some.decode("utf-8", "replace")]


@lru_cache(maxsize=64)
def _warn(message: str) -> None:
    """Once per process: workers load the same tokenizer many times."""
    _log.warning(message)
