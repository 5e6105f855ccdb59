"""AsciiMath as TeX: the common part of its grammar (symbols, fractions, scripts, brackets, functions, matrices)."""

from __future__ import annotations

import re

from phikit.corpus.tex_symbols import FUNCTIONS, SYMBOLS

_NAMES = {command[1:]: command for command in SYMBOLS.values() if command[1:].isalpha()}
_NAMES |= {
    "+-": "\\pm", "-+": "\\mp", "xx": "\\times", "*": "\\cdot", "**": "*", "-:": "\\div", "@": "\\circ",
    "o+": "\\oplus", "ox": "\\otimes", "!=": "\\ne", "<=": "\\le", ">=": "\\ge", "lt": "<", "gt": ">",
    "in": "\\in", "!in": "\\notin", "sub": "\\subset", "sup": "\\supset", "sube": "\\subseteq",
    "supe": "\\supseteq", "-=": "\\equiv", "~=": "\\cong", "~~": "\\approx", "prop": "\\propto", "and": "\\text{ and }",
    "or": "\\text{ or }", "not": "\\neg", "=>": "\\Rightarrow", "<=>": "\\Leftrightarrow", "->": "\\to",
    "|->": "\\mapsto", "if": "\\text{ if }", "AA": "\\forall", "EE": "\\exists", "oo": "\\infty", "O/": "\\emptyset",
    "del": "\\partial", "grad": "\\nabla", "nn": "\\cap", "uu": "\\cup", "vv": "\\vee", "^^": "\\wedge",
    "...": "\\ldots", "cdots": "\\cdots", "RR": "\\mathbb{R}", "NN": "\\mathbb{N}", "ZZ": "\\mathbb{Z}",
    "QQ": "\\mathbb{Q}", "CC": "\\mathbb{C}", "quad": "\\quad", "int": "\\int", "oint": "\\oint", "sum": "\\sum",
    "prod": "\\prod", ":.": "\\therefore",
}  # fmt: skip
_ONE = {"sqrt": "\\sqrt", "hat": "\\hat", "bar": "\\bar", "vec": "\\vec", "dot": "\\dot", "ddot": "\\ddot",
        "tilde": "\\tilde", "ul": "\\underline", "abs": "|", "floor": "floor", "ceil": "ceil", "norm": "norm",
        "bb": "\\mathbf", "bbb": "\\mathbb", "cc": "\\mathcal", "tt": "\\mathtt", "fr": "\\mathfrak",
        "sf": "\\mathsf", "text": "\\text"}  # fmt: skip
_TWO = {"frac": "\\frac", "root": "root", "overset": "\\overset", "underset": "\\underset"}
_AROUND = {
    "|": ("|", "|"),
    "floor": ("\\lfloor ", "\\rfloor "),
    "ceil": ("\\lceil ", "\\rceil "),
    "norm": ("\\|", "\\|"),
}
_OPEN = {"(": "(", "[": "[", "{": "\\{", "(:": "\\langle ", "{:": "."}
_CLOSE = {")": ")", "]": "]", "}": "\\}", ":)": "\\rangle ", ":}": "."}
_WORDS = sorted(
    [*_NAMES, *_ONE, *_TWO, *_OPEN, *_CLOSE, *FUNCTIONS, "^", "_", "/", "|", ","], key=len, reverse=True
)
_TOKENS = re.compile(
    r'"(?P<quoted>[^"]*)"|text\((?P<text>[^)]*)\)|(?P<number>\d+(?:\.\d+)?)|(?P<word>'
    + "|".join(map(re.escape, _WORDS))
    + r")|(?P<other>\S)"
)
MAX_DEPTH = 100


def asciimath_tex(source: str) -> str:
    """TeX of one AsciiMath expression; what is nested deeper than `MAX_DEPTH` stays as it was written."""
    tokens = [(m.lastgroup or "other", m[m.lastgroup or 0]) for m in _TOKENS.finditer(source)]
    try:
        return _Parser(tokens).expression(0).strip()
    except RecursionError:
        return source.strip()


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.at = tokens, 0

    def peek(self) -> str:
        kind, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        return text if kind in ("word", "other") else ""

    def expression(self, depth: int) -> str:
        """Up to the closing bracket that belongs to the caller."""
        parts = []
        while self.at < len(self.tokens) and self.peek() not in _CLOSE:
            parts.append(self.fraction(depth))
            if depth == 0 and self.peek() in _CLOSE:  # a bracket that nobody opened
                parts.append(_CLOSE[self.peek()])
                self.at += 1
        return " ".join(parts)

    def fraction(self, depth: int) -> str:
        above, bare = self.scripted(depth)
        if self.peek() == "/":
            self.at += 1
            _, below = self.scripted(depth)
            return f"\\frac{{{bare}}}{{{below}}}"
        return above

    def scripted(self, depth: int) -> tuple[str, str]:
        """(TeX, the same without its outer brackets)."""
        tex, bare = self.simple(depth)
        scripts = ""
        while self.peek() in ("_", "^"):
            mark = self.peek()
            self.at += 1
            scripts += f"{mark}{{{self.simple(depth)[1]}}}"
        return (tex + scripts, tex + scripts) if scripts else (tex, bare)

    def simple(self, depth: int) -> tuple[str, str]:
        if depth > MAX_DEPTH:
            raise RecursionError
        if self.at >= len(self.tokens):
            return "", ""
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind in ("quoted", "text"):
            return f"\\text{{{text}}}", f"\\text{{{text}}}"
        if kind == "number":
            return text, text
        if text in _ONE:
            inner = self.simple(depth + 1)[1]
            left, right = _AROUND.get(_ONE[text], (f"{_ONE[text]}{{", "}"))
            return _twice(f"{left}{inner}{right}")
        if text in _TWO:
            a, b = self.simple(depth + 1)[1], self.simple(depth + 1)[1]
            return _twice(f"\\sqrt[{a}]{{{b}}}" if text == "root" else f"{_TWO[text]}{{{a}}}{{{b}}}")
        if text in FUNCTIONS:
            return f"\\{text}", f"\\{text}"
        if text in _OPEN:
            inner = self.expression(depth + 1)
            close = self.peek()
            self.at += 1
            return _bracketed(text, inner, close)
        return _twice(_NAMES.get(text, text))


def _twice(text: str) -> tuple[str, str]:
    return text, text


def _bracketed(left: str, inner: str, right: str) -> tuple[str, str]:
    rows = re.findall(r"(?:\[|\\left\[)([^\[\]]*?)(?:\]|\\right\])", inner)
    between = re.sub(r"(?:\[|\\left\[)[^\[\]]*?(?:\]|\\right\])", "", inner)
    if len(rows) > 1 and not between.replace(",", "").strip():
        lines = " \\\\ ".join(" & ".join(c.strip() for c in row.split(",")) for row in rows)
        kind = {"[": "bmatrix", "(": "pmatrix"}.get(left, "matrix")
        return _twice(f"\\begin{{{kind}}}{lines}\\end{{{kind}}}")
    return f"{_OPEN[left]}{inner}{_CLOSE.get(right, '')}", inner
