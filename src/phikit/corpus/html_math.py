"""Mathematics in a page as TeX, whatever wrote it: MathML, KaTeX, MathJax 2 and 3, Wikipedia, images with TeX in
`alt`, LaTeXML."""

from __future__ import annotations

import re

from phikit.corpus.asciimath import asciimath_tex
from phikit.corpus.html_tree import Element
from phikit.corpus.mathml import mathml_tex

_IMAGE_CLASSES = {"latex", "latexcenter", "tex", "math", "mathtex", "mwe-math-fallback-image-inline",
                  "mwe-math-fallback-image-display"}  # fmt: skip
_IMAGE_SERVERS = re.compile(
    r"codecogs\.com|latex\.php|mimetex|mathtex\.cgi|cht=tx|/media/math/render|latex\.artofproblemsolving"
)
_DELIMITED = re.compile(
    r"\s*(?:\$\$(?P<a>.+)\$\$|\\\[(?P<b>.+)\\\]|\$(?P<c>.+)\$|\\\((?P<d>.+)\\\))\s*", re.S
)
_DISPLAYSTYLE = re.compile(r"\{\\(displaystyle|textstyle)\s?(.*)\}", re.S)
_COMMENT = re.compile(r"(?<!\\)%[^\n]*\n")
_SPACES = re.compile(r"\s+")
_DISPLAY_ENVIRONMENT = re.compile(r"\\begin\{(equation|align|gather|multline|eqnarray|displaymath)\*?\}")
_MATHJAX2 = {"MathJax", "MathJax_Display", "MathJax_SVG", "MathJax_SVG_Display", "MathJax_CHTML",
             "MJXc-display", "MathJax_MathML"}  # fmt: skip
_TYPESET = re.compile(r"mathjax|katex|asciimath|math/tex", re.I)


def formula(e: Element) -> tuple[str, bool] | None:
    """(TeX, whether displayed) when this element is one formula; ("", False) when it is a second form of a
    formula that stands elsewhere (previews, rendered glyphs); None when it is no mathematics."""
    tag, classes = e.tag, e.classes
    if tag == "math":
        return _math(e)
    if tag == "script":
        return _script(e)
    if tag == "img":
        return _image(e)
    if tag == "mjx-container":
        return _inner(e, e.attrs.get("display") == "true")
    if not classes:
        return None
    if "MathJax_Preview" in classes:
        return "", False
    if classes & _MATHJAX2:
        return _mathjax2(e)
    if "katex-display" in classes or "katex" in classes:
        return _inner(e, "katex-display" in classes)
    if "mwe-math-element" in classes:
        return _inner(e, "mwe-math-element-block" in classes)
    if ("math" in classes or "arithmatex" in classes) and (match := _DELIMITED.fullmatch(e.text())):
        return _delimited(match)
    for name in ("data-latex", "data-tex", "data-math"):
        if e.attrs.get(name):
            return clean_tex(e.attrs[name], tag == "div" or "display" in e.tokens)
    return None


def typeset(root: Element) -> bool:
    """Whether the page loads a program that turns delimiters in running text into formulas."""
    for e in root.elements():
        if e.tag == "script" and _TYPESET.search(e.attrs.get("src", "") + e.attrs.get("type", "") + e.text()):
            return True
        if e.tag == "link" and _TYPESET.search(e.attrs.get("href", "")):
            return True
    return False


def clean_tex(tex: str, display: bool) -> tuple[str, bool]:
    """TeX on one line without its delimiters, comments and outer `\\displaystyle`."""
    if match := _DELIMITED.fullmatch(tex):
        tex, delimited = _delimited(match)
        display = display or delimited
    tex = _SPACES.sub(" ", _COMMENT.sub("\n", tex)).strip()
    while (match := _DISPLAYSTYLE.fullmatch(tex)) and _balanced(match[2]):
        tex = match[2].strip()
    return tex, display or bool(_DISPLAY_ENVIRONMENT.match(tex))


def delimited(tex: str, display: bool) -> str:
    """The formula as it stands in a text."""
    if not tex:
        return ""
    return f"$${tex}$$" if display else f"${tex}$"


def _balanced(tex: str) -> bool:
    depth = 0
    for c in tex.replace("\\{", "").replace("\\}", ""):
        depth += (c == "{") - (c == "}")
        if depth < 0:
            return False
    return depth == 0


def _delimited(match: re.Match[str]) -> tuple[str, bool]:
    name = match.lastgroup or "c"
    tex, display = clean_tex(match[name], name in "ab")
    return tex, display


def _math(e: Element) -> tuple[str, bool]:
    display = e.attrs.get("display") == "block" or e.attrs.get("mode") == "display"
    for a in e.elements():
        if a.tag == "annotation" and "tex" in a.attrs.get("encoding", "").lower() and a.text().strip():
            return clean_tex(a.text(), display)
    for name in ("alttext", "data-latex"):
        if e.attrs.get(name, "").strip():
            return clean_tex(e.attrs[name], display)
    return clean_tex(mathml_tex(e), display)


def _script(e: Element) -> tuple[str, bool] | None:
    kind, _, mode = e.attrs.get("type", "").lower().partition(";")
    display = "display" in mode
    if kind.strip() == "math/tex":
        return clean_tex(e.text(), display)
    if kind.strip() == "math/asciimath":
        return asciimath_tex(e.text()), display
    if kind.strip() == "math/mml":
        from phikit.corpus.html_tree import parse

        math = parse(e.text()).find("math")
        return _math(math) if math else None
    return None


def _image(e: Element) -> tuple[str, bool] | None:
    alt = e.attrs.get("alt", "").strip()
    if not alt:
        return None
    known = bool(e.classes & _IMAGE_CLASSES) or bool(_IMAGE_SERVERS.search(e.attrs.get("src", "")))
    if known or _DELIMITED.fullmatch(alt) or _DISPLAY_ENVIRONMENT.match(alt):
        centred = e.classes & {"latexcenter", "mwe-math-fallback-image-display"}
        return clean_tex(alt, bool(centred))
    return None


def _inner(e: Element, display: bool) -> tuple[str, bool]:
    """The formula of a wrapper: its MathML, else its image, else the glyphs it shows."""
    if math := e.find("math"):
        tex, shown = _math(math)
        return tex, display or shown
    if (image := e.find("img")) and (found := _image(image)):
        return found[0], display or found[1]
    return clean_tex(e.line(), display)


def _mathjax2(e: Element) -> tuple[str, bool] | None:
    """What MathJax 2 rendered stands beside its source in a script; without the script the MathML it keeps in
    an attribute is taken."""
    around = e.parent.children if e.parent else []
    if any(isinstance(c, Element) and c.attrs.get("type", "").startswith("math/") for c in around):
        return "", False
    display = any("isplay" in c for c in e.classes)
    for inner in e.elements():
        if inner.tag == "math":
            tex, shown = _math(inner)
            return tex, display or shown
        if mathml := inner.attrs.get("data-mathml"):
            from phikit.corpus.html_tree import parse

            if math := parse(mathml).find("math"):
                tex, shown = _math(math)
                return tex, display or shown
    return clean_tex(e.line(), display)
