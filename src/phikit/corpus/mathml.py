"""Presentation MathML as TeX."""

from __future__ import annotations

from collections.abc import Mapping

from phikit.corpus.html_tree import Element
from phikit.corpus.tex_symbols import FUNCTIONS, SYMBOLS

_ACCENTS = {"^": "hat", "ˆ": "hat", "¯": "bar", "‾": "bar", "̄": "bar", "→": "vec", "⃗": "vec", "˙": "dot",
            "¨": "ddot", "~": "tilde", "˜": "tilde", "⏞": "overbrace", "_": "overline", "―": "overline"}  # fmt: skip
_UNDER = {"⏟": "underbrace", "_": "underline", "̲": "underline"}
_LIMITS = set("∑∏∐∫∬∮⋃⋂⋁⋀")
_LIMIT_WORDS = {"lim", "max", "min", "sup", "inf", "limsup", "liminf", "argmax", "argmin", "det", "gcd"}
_VARIANTS = {"bold": "mathbf", "double-struck": "mathbb", "script": "mathcal", "fraktur": "mathfrak",
             "normal": "mathrm", "sans-serif": "mathsf", "monospace": "mathtt",
             "bold-italic": "boldsymbol"}  # fmt: skip
_SKIPPED = {"annotation", "annotation-xml", "maligngroup", "malignmark", "mphantom", "mprescripts", "none"}
_ESCAPED = str.maketrans({c: "\\" + c for c in "%#&_{}$"})


def mathml_tex(e: Element) -> str:
    """TeX of a `<math>` element or any element in it. Elements of no known meaning give their content."""
    tag = e.tag
    if tag in _SKIPPED:
        return ""
    if tag in ("mi", "mn", "mo", "mtext", "ms"):
        return _token(e)
    parts = [
        c for c in e.children if isinstance(c, Element) and c.tag not in ("annotation", "annotation-xml")
    ]
    if tag in _FIXED and len(parts) == _FIXED[tag][0]:
        return _FIXED[tag][1](parts)
    if tag == "msqrt":
        return f"\\sqrt{{{_row(parts)}}}"
    if tag == "mspace":
        return "\\\\ " if e.attrs.get("linebreak") == "newline" else "\\ "
    if tag == "mtable":
        return _table(parts)
    if tag == "mfenced":
        return _fenced(e, parts)
    if tag == "menclose" and "box" in e.attrs.get("notation", ""):
        return f"\\boxed{{{_row(parts)}}}"
    if tag == "mmultiscripts":
        return _multiscripts(e)
    if tag == "semantics":
        return mathml_tex(parts[0]) if parts else ""
    if not parts:
        return symbols(e.line())
    return _row(parts)


def symbols(text: str) -> str:
    """Letters and operators of Unicode as TeX commands."""
    out = []
    for c in text:
        if c in SYMBOLS:
            out.append(SYMBOLS[c] + " ")
        elif c not in "\u2061\u2062\u2063\u2064\u200b":  # invisible operators
            out.append(c.translate(_ESCAPED))
    return "".join(out)


def join(parts: list[str]) -> str:
    """Pieces of TeX side by side, with a blank only where a command would swallow a letter."""
    out = ""
    for part in parts:
        if part[:1].isalpha() and _ends_in_command(out):
            out += " "
        out += part
    return out.strip()


def _ends_in_command(tex: str) -> bool:
    stem = tex.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return len(stem) < len(tex) and stem.endswith("\\")


def _row(parts: list[Element]) -> str:
    return join([mathml_tex(p) for p in parts])


def _token(e: Element) -> str:
    text = e.line()
    if e.tag in ("mtext", "ms"):
        return f"\\text{{{text.translate(_ESCAPED)}}}" if text else "\\ "
    if e.tag == "mi" and len(text) > 1 and text.isascii() and text.isalpha():
        return f"\\{text} " if text in FUNCTIONS else f"\\mathrm{{{text}}}"
    tex = symbols(text)
    variant = _VARIANTS.get(e.attrs.get("mathvariant", ""))
    if variant and not (variant == "mathrm" and (len(text) > 1 or not text.isalpha())):
        return f"\\{variant}{{{tex.strip()}}}" if tex.strip() else ""
    if e.tag == "mo" and text.isascii() and text.isalpha() and len(text) > 1:
        return f"\\{text} " if text in FUNCTIONS else f"\\operatorname{{{text}}}"
    return tex


def _base(e: Element) -> str:
    tex = mathml_tex(e)
    simple = len(tex) <= 1 or (tex.startswith("\\") and tex[1:].strip().isalpha()) or tex.isdigit()
    return tex if simple or _command(tex) else f"{{{tex}}}"


def _command(tex: str) -> bool:
    return tex.startswith(("\\math", "\\operatorname", "\\left")) and tex.endswith(("}", ")", "]", "|"))


def _script(e: Element) -> str:
    return _braced(mathml_tex(e).strip())


def _braced(tex: str) -> str:
    return tex if len(tex) == 1 else f"{{{tex}}}"


def _sup(p: list[Element]) -> str:
    if p[1].tag == "mo" and set(p[1].line()) <= set("′'’") and p[1].line():
        return _base(p[0]) + "'" * len(p[1].line())
    return f"{_base(p[0]).rstrip()}^{_script(p[1])}"


def _over(p: list[Element]) -> str:
    return _stacked(p, _ACCENTS, "^", "overset")


def _under(p: list[Element]) -> str:
    return _stacked(p, _UNDER, "_", "underset")


def _stacked(p: list[Element], marks: Mapping[str, str], script: str, otherwise: str) -> str:
    """A base with something above or below it: an accent, a limit, or neither."""
    mark = p[1].line()
    if mark in marks:
        return f"\\{marks[mark]}{{{mathml_tex(p[0]).strip()}}}"
    if _takes_limits(p[0]):
        return f"{_base(p[0]).rstrip()}{script}{_script(p[1])}"
    return f"\\{otherwise}{{{mathml_tex(p[1]).strip()}}}{{{mathml_tex(p[0]).strip()}}}"


def _takes_limits(e: Element) -> bool:
    text = e.line()
    return text in _LIMITS or text.replace(" ", "") in _LIMIT_WORDS


def _fraction(p: list[Element]) -> str:
    above, below = (mathml_tex(x).strip() for x in p)
    frac = p[0].parent
    if frac is not None and frac.attrs.get("linethickness") in ("0", "0px", "0pt"):
        return f"\\binom{{{above}}}{{{below}}}"
    return f"\\frac{{{above}}}{{{below}}}"


def _table(rows: list[Element]) -> str:
    lines = []
    for row in rows:
        cells = [c for c in row.children if isinstance(c, Element) and c.tag == "mtd"]
        lines.append(" & ".join(mathml_tex(c) for c in cells))
    return "\\begin{matrix}" + " \\\\ ".join(lines) + "\\end{matrix}"


def _fenced(e: Element, parts: list[Element]) -> str:
    marks = e.attrs.get("separators", ",").replace(" ", "")
    left, right = (e.attrs.get(k, d).translate(_ESCAPED) or "." for k, d in (("open", "("), ("close", ")")))
    inner = ""
    for i, p in enumerate(parts):
        if i and marks:
            inner += marks[min(i, len(marks)) - 1]
        inner += mathml_tex(p)
    return f"\\left{left}{inner}\\right{right}"


def _multiscripts(e: Element) -> str:
    parts = [c for c in e.children if isinstance(c, Element)]
    cut = next((i for i, p in enumerate(parts) if p.tag == "mprescripts"), len(parts))
    after, before = parts[1:cut], parts[cut + 1 :]

    def scripts(pairs: list[Element]) -> str:
        out = ""
        for i, p in enumerate(pairs):
            if tex := mathml_tex(p):  # once: nested scripts would take time exponential in their depth
                out += ("_", "^")[i % 2] + _braced(tex.strip())
        return out

    front = scripts(before)
    return (f"{{}}{front}" if front else "") + (_base(parts[0]) if parts else "") + scripts(after)


_FIXED = {
    "mfrac": (2, _fraction),
    "msup": (2, _sup),
    "msub": (2, lambda p: f"{_base(p[0]).rstrip()}_{_script(p[1])}"),
    "msubsup": (3, lambda p: f"{_base(p[0]).rstrip()}_{_script(p[1])}^{_script(p[2])}"),
    "mroot": (2, lambda p: f"\\sqrt[{mathml_tex(p[1]).strip()}]{{{mathml_tex(p[0]).strip()}}}"),
    "mover": (2, _over),
    "munder": (2, _under),
    "munderover": (
        3,
        lambda p: (
            f"{_base(p[0]).rstrip()}_{_script(p[1])}^{_script(p[2])}"
            if _takes_limits(p[0])
            else f"\\overset{{{mathml_tex(p[2]).strip()}}}{{{_under(p[:2])}}}"
        ),
    ),
}
