"""Macros of a LaTeX preamble put in place where they are used, as far as they are simple: a fixed number of
arguments, no default, a body without definitions of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BODY, MAX_ROUNDS, MAX_GROWTH = 400, 8, 4
_DEFINITION = re.compile(
    r"\\(?P<kind>(?:re|provide)?newcommand|renewcommand|providecommand|DeclareRobustCommand|DeclareMathOperator|def)(?P<star>\*?)\s*"
    r"(?:\{\s*\\(?P<braced>[A-Za-z]+)\s*\}|\\(?P<bare>[A-Za-z]+))\s*(?P<slots>\[\d\]|(?:#\d)*)(?P<default>\s*\[)?\s*(?=\{)"
)
_NOT_SIMPLE = re.compile(
    r"\\(?:def|newcommand|let|if|else|fi|csname|expandafter|begingroup|@|futurelet|newenvironment)"
)
_COMMANDS = re.compile(r"\\\\|\\([A-Za-z]+)")  # a line break is no command


@dataclass(frozen=True)
class Macro:
    """`body` with `#1` ... for its `slots` arguments."""

    slots: int
    body: str


def arguments(text: str, at: int, most: int = 9) -> tuple[list[str], int]:
    """([bodies of up to `most` `{...}` that follow `at`, optional `[...]` skipped], where they end)."""
    found: list[str] = []
    end = at
    while len(found) < most:
        start = end
        while start < len(text) and text[start] in " \t":
            start += 1
        if text[start : start + 1] == "[" and (close := text.find("]", start)) >= 0 and close - start < 300:
            end = close + 1
            continue
        if text[start : start + 1] != "{" or (close := closing(text, start)) < 0:
            break
        found.append(text[start + 1 : close])
        end = close + 1
    return found, end


def argument(text: str, command: str) -> str:
    """The first argument of the first `\\command{...}`; "" where there is none."""
    m = re.search(rf"\\{command}\s*(?=[\[{{])", text)
    found = arguments(text, m.end(), 1)[0] if m else []
    return found[0] if found else ""


def closing(text: str, at: int) -> int:
    """Where the brace that opens at `at` closes; -1 where it does not."""
    depth, i = 0, at
    while i < len(text):
        c = text[i]
        if c == "\\":
            i += 1
        elif c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
            if not depth:
                return i
        i += 1
    return -1


def definitions(preamble: str) -> dict[str, Macro]:
    """The simple macros that a preamble defines, by name; the last definition counts."""
    found: dict[str, Macro] = {}
    for m in _DEFINITION.finditer(preamble):
        name = m["braced"] or m["bare"]
        close = closing(preamble, m.end())
        if close < 0 or m["default"]:
            continue
        body = preamble[m.end() + 1 : close].strip()
        slots = m["slots"].count("#") if m["kind"] == "def" else int(m["slots"].strip("[]#") or 0)
        if m["kind"] == "DeclareMathOperator":
            body = f"\\operatorname{m['star']}{{{body}}}"
        own = name in _COMMANDS.findall(body)
        if len(body) <= MAX_BODY and not own and not _NOT_SIMPLE.search(body):
            found[name] = Macro(slots, body.replace("\\ensuremath", "").replace("\\xspace", ""))
        else:
            found.pop(name, None)
    return found


def expand(preamble: str, body: str) -> str:
    """`body` with the simple macros of both in place. Raises ValueError where they grow without bound."""
    macros = definitions(preamble + body)
    if not macros:
        return _without_definitions(body)
    body = _without_definitions(body)
    most = MAX_GROWTH * len(body) + 100_000
    for _ in range(MAX_ROUNDS):
        after = _once(body, macros)
        if len(after) > most:
            raise ValueError(f"macros make {len(body):,} characters more than {MAX_GROWTH} times as long")
        if after == body:
            break
        body = after
    return body


def _once(body: str, macros: dict[str, Macro]) -> str:
    out, at = [], 0
    for m in _COMMANDS.finditer(body):
        macro = macros.get(m[1] or "")
        if macro is None or m.start() < at:
            continue
        found, end = arguments(body, m.end(), macro.slots) if macro.slots else ([], m.end())
        if len(found) < macro.slots:
            found, end = _tokens(body, m.end(), macro.slots)
            if len(found) < macro.slots:
                continue
        text = macro.body
        for i, value in enumerate(found, 1):
            text = text.replace(f"#{i}", value)
        after = body[end : end + 1]
        if after.isalpha() and re.search(r"\\[A-Za-z]+$", text):
            text += " "
        elif not macro.slots and body[end : end + 2] == "{}":
            end += 2
        out += [body[at : m.start()], text]
        at = end
    return "".join(out) + body[at:]


def _tokens(text: str, at: int, n: int) -> tuple[list[str], int]:
    """Arguments without braces: a letter, a digit or a command each."""
    found: list[str] = []
    while len(found) < n:
        m = re.compile(r"\s*(?:\\[A-Za-z]+|\{|[A-Za-z0-9])").match(text, at)
        if m is None:
            break
        if m[0].endswith("{"):
            close = closing(text, m.end() - 1)
            if close < 0:
                break
            found.append(text[m.end() : close])
            at = close + 1
        else:
            found.append(m[0].strip())
            at = m.end()
    return found, at


def _without_definitions(body: str) -> str:
    out, at = [], 0
    for m in _DEFINITION.finditer(body):
        if m.start() < at:
            continue
        close = closing(body, m.end())
        if close < 0 or m["default"]:
            continue
        out.append(body[at : m.start()])
        at = close + 1
    return "".join(out) + body[at:]
