"""Corrupt text by n-gram statistics (report section 2.3: outliers of n-gram statistics).

Nothing is trained and no language is known: what is measured is whether neighbours depend on each other, as they do in
every language and every kind of code, and do not in packed, encoded, encrypted or jumbled data.
"""

from __future__ import annotations

import re

import numpy as np

WINDOW = 1000  # characters
# Trigram coincidence below which a window is noise. Lowest of 12,000 windows of web, books, code, LaTeX and manuals
# 3.0, of 62 languages 2.7; highest of hex, base64, random letters and numbers 1.6, words with jumbled letters 2.0.
NOISE = 2.0

_POWERS = np.array([0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35], np.uint32)

_AFTER = "".join(bytes([b]).decode("cp1252", "ignore") for b in range(0x80, 0xC0)) + "\x80-\x9f"
_AFTER = re.sub(r"[\\\]^]", r"\\\g<0>", _AFTER)
_MOJIBAKE = re.compile(f"[\xc2-\xdf][{_AFTER}]|[\xe0-\xef][{_AFTER}]{{2}}|[\xf0-\xf4][{_AFTER}]{{3}}")


def noise_share(text: str) -> float:
    """The share of windows of about WINDOW characters whose trigram coincidence is below NOISE; 0 for no text."""
    return float((coincidence(text) < NOISE).mean()) if text else 0.0


def coincidence(text: str) -> np.ndarray:
    """Of each window (float64), how many times likelier two of its trigrams are equal than three pairs of its
    characters are: 1 where characters are drawn by lot. Repeats of one character count once, since a ruled line says
    nothing. No pair is one with itself, so that large alphabets and short windows do not pass for order."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    points = points[np.append(True, points[1:] != points[:-1])]
    n = max(1, len(points) // WINDOW)
    windows = points[: len(points) // n * n].reshape(n, -1)
    if windows.shape[1] < 4:
        return np.full(n, np.inf)
    a, b, c = (windows[:, i : windows.shape[1] - 2 + i] * power for i, power in enumerate(_POWERS))
    three = a ^ b ^ c  # 32 bits: two trigrams of a window are hardly ever equal by chance
    one = _equal(windows)
    return np.divide(_equal(three), one**3, out=np.full(n, np.inf), where=one > 0)


def _equal(windows: np.ndarray) -> np.ndarray:
    """The share of the pairs of a row that are equal: float64 [rows]."""
    rows, n = windows.shape
    ordered = np.sort(windows, axis=1)
    first = np.ones((rows, n), bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, rows * n)).astype(np.float64)
    return np.bincount(starts // n, counts * (counts - 1), rows) / (n * (n - 1))


def mojibake_share(text: str) -> float:
    """The share of characters in what is UTF-8 read as Windows-1252 or Latin-1, as where a word ends in `\xc3\xa9`."""
    return 0.0 if text.isascii() else sum(map(len, _MOJIBAKE.findall(text))) / len(text)
