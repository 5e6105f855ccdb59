"""The text of a token stream: whole characters only, nothing that may be the begin of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Pieces:
    """Takes the bytes of tokens one after another. `text` is what they say so far, up to a stop string."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop = tuple(s for s in stop if s)
        self.text = ""
        self.stopped = False
        self._shown = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, data: bytes) -> str:
        """The text that became final with this token: "" while a character or a stop string is open. Sets
        `stopped` when a stop string is complete; the text then ends before it."""
        return self._take(self._decoder.decode(data))

    def end(self) -> str:
        """The rest, when the last token was seen. An open character becomes U+FFFD."""
        if self.stopped:
            return ""
        rest = self._take(self._decoder.decode(b"", final=True))
        begin, self._shown = self._shown, len(self.text)
        return rest + self.text[begin:]

    def _take(self, new: str) -> str:
        begin = max(len(self.text) - max(map(len, self.stop), default=1) + 1, 0)
        self.text += new
        settled = len(self.text)
        if self.stop:
            found = [at for s in self.stop if (at := self.text.find(s, begin)) >= 0]
            if found:
                settled, self.stopped = min(found), True
                self.text = self.text[:settled]
            else:
                settled -= max(
                    (n for s in self.stop for n in range(1, len(s)) if self.text.endswith(s[:n])), default=0
                )
        begin, self._shown = self._shown, max(settled, self._shown)
        return self.text[begin : self._shown]
