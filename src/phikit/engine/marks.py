"""Special-token strings inside what people wrote, kept apart while a template puts texts together.

A template's own text may hold special tokens; a turn's content may not. So every special-token string in a content is
replaced by a mark before the template runs, and put back as plain text after it: nobody can forge a turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

# Two private-use characters mark where a content held a special-token string.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
_NUMBER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class Marks:
    """The special-token strings of one rendering. `hide` before the template, `split` after it."""

    def __init__(self, specials: Sequence[str]) -> None:
        names = sorted(specials, key=len, reverse=True)
        self._found = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self._marked: list[str] = []

    def hide(self, value: Any) -> Any:
        """A copy of a JSON value whose strings hold marks in place of special-token strings."""
        if isinstance(value, str):
            return self._found.sub(self._mark, value.replace(_OPEN, "").replace(_CLOSE, ""))
        if isinstance(value, dict):
            return {self.hide(k): self.hide(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(v) for v in value]
        return value

    def split(self, text: str) -> Iterator[tuple[str, bool]]:
        """Pieces (text, special): where `special` is True, special-token strings are tokens."""
        for i, piece in enumerate(_NUMBER.split(text)):
            if i % 2 and int(piece) < len(self._marked):
                yield self._marked[int(piece)], False
            elif piece and not i % 2:
                yield piece, True

    def _mark(self, m: re.Match[str]) -> str:
        self._marked.append(m.group())
        return f"{_OPEN}{len(self._marked) - 1}{_CLOSE}"
