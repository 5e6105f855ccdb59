"""A forgiving JSON reader for what models write: it reads on where a strict one stops, and says what it
mended."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 64
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_ .-]*")
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)


def find_json(text: str) -> tuple[Any, tuple[str, ...]]:
    """(value, repairs) of the first object or array in `text`. Repairs are among: fence, prose,
    single_quotes, trailing_comma, missing_comma, python_word, bare_word, newline_in_string, cut_end. Raises
    ValueError."""
    stripped = text.strip()
    try:
        value = json.loads(stripped)
        if isinstance(value, (dict, list)):
            return value, ()
    except (ValueError, RecursionError):
        pass
    repairs: set[str] = set()
    if m := _FENCE.search(stripped):
        stripped = m.group(1).strip()
        repairs.add("fence")
    start = re.search(r"[{\[]", stripped)
    if start is None:
        raise ValueError("no JSON object or array in the text")
    reader = _Reader(stripped, start.start(), repairs)
    value = reader.value(0)
    if start.start() or stripped[reader.at :].strip():
        repairs.add("prose")
    return value, tuple(sorted(repairs))


class _Reader:
    def __init__(self, text: str, at: int, repairs: set[str]) -> None:
        self.text, self.at, self.repairs = text, at, repairs

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"JSON nested deeper than {MAX_DEPTH}")
        self.blank()
        c = self.peek()
        if c == "{":
            return self.object(depth)
        if c == "[":
            return self.array(depth)
        if c in "\"'\u201c" and c:
            return self.string()
        if m := _NUMBER.match(self.text, self.at):
            self.at = m.end()
            return json.loads(m.group()) if not re.match(r"-?0[0-9]", m.group()) else int(m.group())
        if m := _BARE.match(self.text, self.at):
            return self.word(m)
        if not c:
            raise _Cut
        raise ValueError(f"unexpected {c!r} at character {self.at}")

    def object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.at += 1
        while self.more("}"):
            if self.peek() in "\"'\u201c":
                key = self.string()
            elif m := _BARE.match(self.text, self.at):
                key = m.group().strip()
                self.at = m.end()
                self.repairs.add("bare_word")
            else:
                raise ValueError(f"expected a key at character {self.at}")
            self.blank()
            if self.peek() != ":":
                if not self.peek():  # cut between key and value: the key says nothing
                    self.repairs.add("cut_end")
                    return found
                raise ValueError(f"expected ':' after key {key!r} at character {self.at}")
            self.at += 1
            try:
                found[key] = self.value(depth + 1)
            except _Cut:
                self.repairs.add("cut_end")
                return found
        return found

    def array(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self.at += 1
        while self.more("]"):
            found.append(self.value(depth + 1))
        return found

    def more(self, end: str) -> bool:
        """At the next item, past commas; False at the end bracket (past it) or at the end of the text."""
        self.blank()
        before = self.text[: self.at].rstrip()[-1:]
        comma = before == ","
        while self.peek() == ",":
            self.at += 1
            comma = True
            self.blank()
        c = self.peek()
        if c == end:
            if comma:
                self.repairs.add("trailing_comma")
            self.at += 1
            return False
        if not c:
            self.repairs.add("cut_end")
            return False
        if not comma and before not in "{[":
            self.repairs.add("missing_comma")
        return True

    def string(self) -> str:
        quote = self.peek()
        end = {"\u201c": "\u201d"}.get(quote, quote)
        if quote != '"':
            self.repairs.add("single_quotes")
        self.at += 1
        out: list[str] = []
        while c := self.peek():
            self.at += 1
            if c == end:
                return "".join(out)
            if c == "\\":
                out.append(self.escape())
                continue
            if c == "\n":
                self.repairs.add("newline_in_string")
            out.append(c)
        self.repairs.add("cut_end")
        return "".join(out)

    def escape(self) -> str:
        c = self.peek()
        self.at += 1
        if c == "u" and (m := re.compile(r"[0-9a-fA-F]{4}").match(self.text, self.at)):
            self.at = m.end()
            code = int(m.group(), 16)
            low = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match(self.text, self.at)
            if 0xD800 <= code < 0xDC00 and low:  # a surrogate pair is one character
                self.at = low.end()
                code = 0x10000 + ((code - 0xD800) << 10) + int(low.group(1), 16) - 0xDC00
            return chr(code)
        return _ESCAPES.get(c, c)

    def word(self, m: re.Match[str]) -> Any:
        text = m.group().strip()
        self.at = m.end()
        if text in _WORDS:
            if text in ("True", "False", "None"):
                self.repairs.add("python_word")
            return _WORDS[text]
        self.repairs.add("bare_word")
        return text

    def blank(self) -> None:
        while self.peek().isspace():
            self.at += 1

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]


class _Cut(ValueError):
    """The text ended where a value should begin."""
