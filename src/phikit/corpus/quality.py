"""Quality heuristics: measures of a text, and the range in which each must lie.

Ranges are wide: they throw out what is plainly not a text (tables of numbers, menus, encoded data, repeated
lines). Corrupt texts and binaries show as outliers of n-gram statistics (`garbled.py`) and of the compression ratio
(report section 2.3). The report names no thresholds; these were set by looking at what they reject in the nano corpus
and, for n-grams, at what they leave in many languages (docs/corpus.md).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from phikit.corpus.garbled import mojibake_share, noise_share

Range = tuple[float, float]
INFINITY = float("inf")

# Ratios of short texts say little, so those measures wait for this many characters.
LONG_ENOUGH = 1000

TEXT: Mapping[str, Range] = {
    "characters": (200, INFINITY),
    "control_share": (0, 0.001),
    "mojibake_share": (0, 0.005),
    "mean_word_length": (2.5, 10),
    "alphabetic_share": (0.45, 1),
    "symbol_share": (0, 0.35),
    "repeated_lines": (0, 0.3),
    "compression_ratio": (0.12, 0.75),
    "noise_share": (0, 0.3),
}
CODE: Mapping[str, Range] = {
    "characters": (200, INFINITY),
    "control_share": (0, 0.001),
    "mojibake_share": (0, 0.005),
    "mean_word_length": (2, 12),
    "alphabetic_share": (0.4, 1),
    "symbol_share": (0, 0.45),
    "data_lines": (0, 0.6),
    "repeated_lines": (0, 0.5),
    "compression_ratio": (0.08, 0.75),
    "noise_share": (0, 0.3),
}
_WORD = re.compile(r"[^\W_]+")
_DATA_LINE = re.compile(r"^[ \t]*[0-9'\"(\[{]", re.M)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufffd]")


def reason(text: str, ranges: Mapping[str, Range]) -> tuple[str, str] | None:
    """(name of the first measure out of its range, what was measured), or None for a good text."""
    for name, value in measures(text).items():
        low, high = ranges.get(name, (0, INFINITY))
        if not low <= value <= high:
            side = f"below {low}" if value < low else f"above {high}"
            return name, f"{value:.4g} is {side}"
    return None


def measures(text: str) -> dict[str, float]:
    """characters: length. control_share: control and replacement characters. mojibake_share: characters of UTF-8 that
    was read as Windows-1252. mean_word_length: in characters.
    alphabetic_share: letters among non-blank characters. symbol_share: neither letter, digit nor blank.
    data_lines: share of lines that begin like a literal (quote, digit, bracket): tables written as code.
    repeated_lines: characters in lines of 5 or more that occurred before. compression_ratio: deflated /
    plain. noise_share: windows of 1,000 characters that follow one another as if drawn by lot.
    """
    letters = sum(map(str.isalpha, text))
    solid = sum(map(len, text.split()))
    digits = sum(map(str.isdigit, text))
    marks = _marks(text)
    found = {"characters": float(len(text)), "control_share": len(_CONTROL.findall(text)) / max(len(text), 1)}
    found["mojibake_share"] = mojibake_share(text)
    words = _WORD.findall(text)
    spaced = [w for w in words if w.isascii() or len(w) < 20]
    found["mean_word_length"] = sum(map(len, spaced)) / max(len(spaced), 1)
    found["alphabetic_share"] = (letters + marks) / max(solid, 1)
    found["symbol_share"] = (solid - letters - digits - marks) / max(solid, 1)
    if len(text) >= LONG_ENOUGH:
        found["data_lines"] = len(_DATA_LINE.findall(text)) / (text.count("\n") + 1)
        found["repeated_lines"] = _repeated(text)
        data = text.encode("utf-8", "surrogatepass")
        found["compression_ratio"] = len(zlib.compress(data, 6)) / len(data)
        found["noise_share"] = noise_share(text)
    return found


def _marks(text: str) -> int:
    """Vowel signs and accents, which str.isalpha does not count but Hindi or Thai cannot do without."""
    if text.isascii():
        return 0
    import unicodedata

    return sum(unicodedata.category(c)[0] == "M" for c in text if c > "\u02ff")


def _repeated(text: str) -> float:
    seen: set[str] = set()
    total = again = 0
    for line in text.split("\n"):
        line = line.strip()
        if len(line) >= 5:
            total += len(line)
            if line in seen:
                again += len(line)
            seen.add(line)
    return again / max(total, 1)
