"""The grammar of Go's text/template, as far as Ollama's chat templates use it: actions, pipelines, blocks.

A template is data of a stranger. It has no loop but `range` over what it is given; its depth is bounded here, its
steps and output in `go_template`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 100
MAX_SOURCE = 1 << 18  # characters


class TemplateError(ValueError):
    """The template is no Go template, or uses what is not known here."""


@dataclass(frozen=True, slots=True)
class Operand:
    """`kind` is dot, var, literal, call (a function's name) or pipe; `fields` are looked up in it."""

    kind: str
    value: Any
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipe:
    """`declares` are variables that get its value (`assigns`: existing ones). Each command is its operands; the value
    of one is the last argument of the next."""

    commands: tuple[tuple[Operand, ...], ...]
    declares: tuple[str, ...] = ()
    assigns: bool = False


@dataclass(slots=True)
class Node:
    """`kind` is text, pipe, if, range, with, template, break or continue."""

    kind: str
    text: str = ""
    pipe: Pipe | None = None
    body: list[Node] = field(default_factory=list)
    other: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tree:
    body: list[Node]
    named: dict[str, list[Node]]
    fields: frozenset[str]  # every first field that is looked up, such as Messages


_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<raw>`[^`]*`)|(?P<char>'(?:[^'\\]|\\.)')"""
    r"""|(?P<number>[+-]?\d+(?:\.\d+)?)|(?P<field>\.[A-Za-z_]\w*)|(?P<var>\$\w*)|(?P<word>[A-Za-z_]\w*)"""
    r"""|(?P<sign>:=|=|\||\(|\)|,|\.))"""
)


def parse(source: str) -> Tree:
    """Raises TemplateError that names the line."""
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"template: {len(source):,} characters; {MAX_SOURCE:,} are the most")
    return _Parser(_pieces(source)).tree()


def _pieces(source: str) -> list[tuple[str, str, int]]:
    """(text or action, content, line): white space that trim marks remove is gone."""
    found: list[tuple[str, str, int]] = []
    at, trim = 0, False
    while True:
        begin = source.find("{{", at)
        text = source[at:] if begin < 0 else source[at:begin]
        text = text.lstrip() if trim else text
        if begin < 0:
            found.append(("text", text, 0))
            return found
        line = source.count("\n", 0, begin) + 1
        inner = begin + 2
        if re.match(r"-\s", source[inner : inner + 2]):
            text, inner = text.rstrip(), inner + 1
        found.append(("text", text, line))
        end = _end(source, inner, line)
        content = source[inner:end]
        trim = bool(re.search(r"\s-$", content)) or content.strip() == "-"
        content = (content[:-1] if trim else content).strip()
        if not content.startswith("/*"):
            found.append(("action", content, line))
        at = end + 2


def _end(source: str, at: int, line: int) -> int:
    """Where the `}}` of an action begins, strings and comments aside."""
    if m := re.compile(r"\s*/\*").match(source, at):
        close = source.find("*/", m.end())
        at = close + 2 if close >= 0 else len(source)
    while at < len(source):
        if source.startswith("}}", at):
            return at
        m = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`').match(source, at)
        at = m.end() if m else at + 1
    raise TemplateError(f"template line {line}: an action is not closed")


class _Parser:
    def __init__(self, pieces: list[tuple[str, str, int]]) -> None:
        self.pieces, self.at, self.depth = pieces, 0, 0
        self.named: dict[str, list[Node]] = {}
        self.fields: set[str] = set()
        self.tokens: list[tuple[str, str]] = []
        self.line = 0

    def tree(self) -> Tree:
        body, end = self.nodes()
        if end:
            raise self.wrong(f"{end!r} closes nothing")
        return Tree(body, self.named, frozenset(self.fields))

    def wrong(self, why: str) -> TemplateError:
        return TemplateError(f"template line {self.line}: {why}")

    def nodes(self) -> tuple[list[Node], str]:
        """Nodes up to an end or else; which, "" at the end of the template."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong("its blocks are nested too deep")
        found: list[Node] = []
        while self.at < len(self.pieces):
            kind, content, line = self.pieces[self.at]
            self.at += 1
            if kind == "text":
                if content:
                    found.append(Node("text", content))
                continue
            self.line = line
            self.tokens = self.lex(content)
            word = self.tokens[0][1] if self.tokens and self.tokens[0][0] == "word" else ""
            if word in ("end", "else"):
                self.depth -= 1
                return found, content
            if word in ("if", "range", "with", "block", "define", "template", "break", "continue"):
                self.tokens.pop(0)
                found += self.block(word)
            else:
                found.append(Node("pipe", pipe=self.pipe()))
                self.all_taken()
        self.depth -= 1
        return found, ""

    def block(self, word: str) -> list[Node]:
        if word in ("break", "continue"):
            return [Node(word)]
        name = self.name() if word in ("define", "template", "block") else ""
        pipe = self.pipe() if self.tokens else None
        self.all_taken()
        if word == "template":
            return [Node("template", name, pipe)]
        if word in ("if", "with", "range") and pipe is None:
            raise self.wrong(f"{word} needs a value")
        body, end = self.nodes()
        other: list[Node] = []
        if end == "else" and word in ("if", "with", "range"):
            other, end = self.nodes()
        elif end.startswith("else"):  # else if, else with: a block of its own that shares the end
            self.tokens = self.lex(end)[1:]
            kind = self.tokens.pop(0)[1]
            if kind not in ("if", "with"):
                raise self.wrong(f"{end!r} is not known")
            other, end = self.block(kind), "end"
        if end != "end":
            raise self.wrong(f"a block {word} is not closed")
        if word in ("define", "block"):
            self.named[name] = body
            return [] if word == "define" else [Node("template", name, pipe)]
        return [Node(word, "", pipe, body, other)]

    def name(self) -> str:
        kind, text = self.tokens.pop(0) if self.tokens else ("", "")
        if kind != "string":
            raise self.wrong("the name of a template is a text in quotes")
        return json.loads(text)

    def lex(self, content: str) -> list[tuple[str, str]]:
        found, at = [], 0
        while at < len(content):
            m = _TOKEN.match(content, at)
            if not m:
                if not content[at:].strip():
                    break
                raise self.wrong(f"unexpected {content[at : at + 20]!r}")
            kind = str(m.lastgroup)
            spaced = content[at : at + 1].isspace()
            found.append((f"spaced {kind}" if kind == "field" and (spaced or not found) else kind, m[kind]))
            at = m.end()
        return found

    def all_taken(self) -> None:
        if self.tokens:
            raise self.wrong(f"unexpected {self.tokens[0][1][:20]!r}")

    def pipe(self) -> Pipe:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong("its parentheses are nested too deep")
        declares: list[str] = []
        t = self.tokens
        for count in (1, 2):
            signs = [":=", "="] if count == 1 else [":="]
            if len(t) > 2 * count - 1 and t[2 * count - 1][1] in signs and all(
                t[2 * i][0] == "var" for i in range(count)
            ) and (count == 1 or t[1][1] == ","):  # fmt: skip
                declares = [t[2 * i][1] for i in range(count)]
                break
        assigns = bool(declares) and t[2 * len(declares) - 1][1] == "="
        del t[: 2 * len(declares)]
        commands = [self.command()]
        while t and t[0][1] == "|" and t[0][0] == "sign":
            t.pop(0)
            commands.append(self.command())
        self.depth -= 1
        return Pipe(tuple(commands), tuple(declares), assigns)

    def command(self) -> tuple[Operand, ...]:
        found: list[Operand] = []
        while self.tokens and not (self.tokens[0][0] == "sign" and self.tokens[0][1] in ("|", ")")):
            found.append(self.operand())
        if not found:
            raise self.wrong("a value is missing")
        return tuple(found)

    def operand(self) -> Operand:
        kind, text = self.tokens.pop(0)
        value: Any = text
        if kind == "sign" and text == "(":
            kind, value = "pipe", self.pipe()
            if not self.tokens or self.tokens.pop(0)[1] != ")":
                raise self.wrong("a parenthesis is not closed")
        elif kind == "sign" and text == ".":
            kind = "dot"
        elif kind.endswith("field"):
            kind = "dot"
            self.tokens.insert(0, ("field", text))
        elif kind == "string":
            kind, value = "literal", self.unquoted(text)
        elif kind == "raw":
            kind, value = "literal", text[1:-1]
        elif kind == "char":
            kind, value = (
                "literal",
                ord(self.unquoted('"' + text[1:-1].replace('"', '\\"') + '"')[:1] or "\0"),
            )
        elif kind == "number":
            kind, value = "literal", float(text) if "." in text else int(text)
        elif kind == "word":
            constants = {"true": True, "false": False, "nil": None}
            kind, value = ("literal", constants[text]) if text in constants else ("call", text)
        elif kind != "var":
            raise self.wrong(f"unexpected {text[:20]!r}")
        fields: list[str] = []
        while self.tokens and self.tokens[0][0] == "field":
            fields.append(self.tokens.pop(0)[1][1:])
        if fields and (kind == "dot" or value == "$"):
            self.fields.add(fields[0])
        return Operand(kind, value, tuple(fields))

    def unquoted(self, text: str) -> str:
        try:
            return json.loads(re.sub(r"\\x([0-9a-fA-F]{2})", r"\\u00\1", text))
        except ValueError as e:
            raise self.wrong(f"a text has an escape that is not known: {text[:40]}") from e
