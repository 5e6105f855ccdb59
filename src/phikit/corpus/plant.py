"""Contamination of known kind, to measure what finds it: an evaluation item as others would have it in their text."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from phikit.corpus.reword import reworded


def plant(host: str, item: str, rng: random.Random) -> str:
    """`item` on lines of its own at a random place of `host`."""
    at = rng.randrange(len(host) + 1)
    return f"{host[:at]}\n{item}\n{host[at:]}"


def _wrapped(text: str, _r: random.Random, _w: Sequence[str]) -> str:
    words = text.split()
    return "\n".join(" ".join(words[i : i + 8]) for i in range(0, len(words), 8))


def _punctuation(text: str, _r: random.Random, _w: Sequence[str]) -> str:
    return re.sub(r"[,;:]", " -", re.sub(r"[.?!](\s|$)", r" ...\1", text)).replace('"', "''")


def _numbers(text: str, rng: random.Random, _: Sequence[str]) -> str:
    return re.sub(r"\d+", lambda m: str(int(m[0][:9]) + rng.randint(1, 9)), text)


def _every(n: int) -> Callable[[str, random.Random, Sequence[str]], str]:
    def change(text: str, rng: random.Random, words: Sequence[str]) -> str:
        parts = text.split()
        return " ".join(rng.choice(words) if i % n == n // 2 else w for i, w in enumerate(parts))

    return change


def _order(text: str, rng: random.Random, _: Sequence[str]) -> str:
    parts = re.split(r"(?<=[.?!])\s+", text)
    rng.shuffle(parts)
    return " ".join(parts)


def _half(text: str, rng: random.Random, _: Sequence[str]) -> str:
    words = text.split()
    at = rng.randrange(len(words) - len(words) // 2 + 1)
    return " ".join(words[at : at + len(words) // 2])


# kind -> change(item, rng, words to put in)
KINDS: dict[str, Callable[[str, random.Random, Sequence[str]], str]] = {
    "verbatim": lambda t, r, w: t,
    "wrapped": _wrapped,
    "capitals": lambda t, r, w: t.upper(),
    "punctuation": _punctuation,
    "numbers": _numbers,
    "every 12th word": _every(12),
    "every 8th word": _every(8),
    "sentence order": _order,
    "half of it": _half,
    "reworded": lambda t, r, w: reworded(t),
}
