"""LaTeX source as text that keeps its equations (report section 2.3: "TeX source" among the formats read).

Simple macros of the preamble are expanded, so that a formula can be read without it; sections, lists, code, tables and
theorems become Markdown; labels, citations, figures' drawings and layout commands go.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from phikit.corpus.html_text import fence, markdown_table
from phikit.corpus.latex_macros import argument, arguments, expand

MAX_INPUTS, MAX_CHARACTERS = 2_000, 50_000_000
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%[^\n]*(?:\n[ \t]*(?=\S))?")
_INPUT = re.compile(r"\\(?:input|include|subfile|subimport\{[^}]*\})\s*\{([^}]+)\}|\\input\s+([^\s\\{}]+)")
_VERBATIM = re.compile(
    r"\\begin\{(verbatim\*?|lstlisting|minted|Verbatim|alltt|code)\}(\[[^\]]*\])?(\{[^}]*\})?(?: *\n)?(.*?)\\end\{\1\}",
    re.S,
)
_EITHER_VERBATIM = re.compile(  # in one scan, so that a % in the one is no comment for the other
    _VERBATIM.pattern + r"|\\(?:verb\*?|lstinline)(?![A-Za-z])([^\sA-Za-z{]).*?\5", re.S
)
_INLINE_VERBATIM = re.compile(r"\\(?:verb\*?|lstinline)(?![A-Za-z])([^\sA-Za-z{])(.*?)\1")
_DISPLAY = "equation|align|alignat|flalign|gather|multline|eqnarray|displaymath|math|dmath|mathpar"
_MATH = re.compile(
    rf"\\begin\{{(?P<env>(?:{_DISPLAY})\*?)\}}(?P<body>.*?)\\end\{{(?P=env)\}}"
    r"|(?<!\\)\\\[(?P<display>.*?)\\\]|(?<!\\)\$\$(?P<dollars>.+?)\$\$|(?<!\\)\\\((?P<paren>.*?)\\\)|(?<!\\)\$(?P<inline>(?:\\.|[^$\\])+)\$",
    re.S,
)
_NUMBERING = re.compile(r"\\(?:label|index|cite[a-z]*)\s*\{[^{}]*\}|\\(?:nonumber|notag)\b")
_DROPPED_ENVIRONMENTS = re.compile(
    r"\\begin\{(tikzpicture|tikzcd|pspicture|picture|thebibliography|comment|filecontents\*?|CCSXML)\}.*?\\end\{\1\}",
    re.S,
)
_SECTIONS = {
    "part": 1,
    "chapter": 1,
    "section": 2,
    "subsection": 3,
    "subsubsection": 4,
    "paragraph": 5,
    "subparagraph": 6,
}
_SECTION = re.compile(
    r"\\(" + "|".join(sorted(_SECTIONS, key=len, reverse=True)) + r")\*?\s*(?:\[[^\]]*\])?\s*(?=\{)"
)
_TABULAR = re.compile(
    r"\\begin\{(tabular[xy*]?|longtable|array)\}(?:\{[^{}]*\})??(?:\[[^\]]*\])?\{((?:[^{}]|\{[^{}]*\})*)\}(.*?)\\end\{\1\}",
    re.S,
)
_LISTS = re.compile(
    r"\\(begin|end)\{(itemize|enumerate|description|compactitem|compactenum|inparaenum)\}(?:\[[^\]]*\])?|\\item(?![A-Za-z])\s*(?:\[([^\]]*)\])?"
)
_NAMED = re.compile(
    r"\\begin\{(theorem|thm|lemma|lem|proposition|prop|corollary|cor|definition|defn|defin|remark|rmk|example|eg|proof|claim|"
    r"conjecture|exercise|problem|solution|axiom|abstract|quote|quotation)\*?\}(?:\s*\[([^\]]*)\])?"
)
_FULL = {"thm": "theorem", "lem": "lemma", "prop": "proposition", "cor": "corollary", "defn": "definition",
         "defin": "definition", "rmk": "remark", "eg": "example"}  # fmt: skip
_BOUNDARY = re.compile(r"\\(begin|end)\{[^{}]*\}(?:\s*\[[^\]\n]*\])?")
_DROPPED = re.compile(
    r"\\(?:label|index|cite[a-zA-Z]*|nocite|vspace|hspace|bibliography|bibliographystyle|includegraphics|pagestyle|"
    r"thispagestyle|setcounter|addtocounter|setlength|addtolength|addcontentsline|markboth|phantomsection|hypersetup|"
    r"pagenumbering|input|include|usepackage|documentclass|theoremstyle|newtheorem|graphicspath|thanks|email|affil|"
    r"institute|orcid|date|pdfbookmark|stepcounter|refstepcounter|enlargethispage|selectlanguage)\*?(?![A-Za-z])"
)
_REFERENCE = re.compile(r"[~ ]?(?:\(\\[cC]?[a-z]*ref\*?\{[^{}]*\}\)|\\[cC]?[a-z]*ref\*?\{[^{}]*\})")
_CHARACTERS = {"ldots": "...", "dots": "...", "textendash": "–", "textemdash": "—", "ss": "ß", "ae": "æ", "oe": "œ",
               "AE": "Æ", "OE": "Œ", "o": "ø", "O": "Ø", "aa": "å", "AA": "Å", "l": "ł", "L": "Ł", "i": "i", "j": "j",
               "S": "§", "P": "¶", "copyright": "©", "TeX": "TeX", "LaTeX": "LaTeX", "textbackslash": "\\",
               "textasciitilde": "~", "quad": " ", "qquad": " ", "par": "\n\n", "newline": "\n", "pounds": "£",
               "textbar": "|", "textless": "<", "textgreater": ">", "textasciicircum": "^"}  # fmt: skip
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
            "c": "\u0327", "v": "\u030c", "u": "\u0306", "H": "\u030b", "k": "\u0328", "r": "\u030a",
            "d": "\u0323"}  # fmt: skip
_ACCENT = re.compile(
    r"\\(?:(['`^\"~=.])\s*|([cvuHkrd])(?:\s+|(?=\{)))(?:\{\\?([A-Za-z])\}|\\?([A-Za-z])(?![A-Za-z]*\{))"
)
_COMMAND = re.compile(r"\\([A-Za-z@]+)\*? ?")


def project(source: str, read: Callable[[str], str | None]) -> tuple[str, list[str]]:
    """(the source with what it inputs in place, names that were not found). `read` gives a file's text by the name
    in the source, or None. Raises ValueError where inputs go round in a circle or grow too large."""
    missing: list[str] = []
    count = size = 0

    def inlined(text: str, path: tuple[str, ...]) -> str:
        nonlocal count, size
        count += 1
        size += len(text)
        if count > MAX_INPUTS or size > MAX_CHARACTERS:
            raise ValueError(f"more than {MAX_INPUTS} inputs or {MAX_CHARACTERS:,} characters of them")

        def one(m: re.Match[str]) -> str:
            name = (m[1] or m[2]).strip()
            if name in path or len(path) > 50:
                raise ValueError(f"\\input goes round in a circle: {' -> '.join([*path, name])}")
            inner = read(name)
            if inner is None:
                missing.append(name)
                return ""
            return inlined(inner, (*path, name))

        return _INPUT.sub(one, without_comments(text))

    return inlined(source, ()), missing


def without_comments(source: str) -> str:
    """Without what stands after `%`, code environments aside."""
    pieces, at = [], 0
    for m in _EITHER_VERBATIM.finditer(source):
        pieces += [_COMMENT.sub(r"\1", source[at : m.start()]), m[0]]
        at = m.end()
    return "".join(pieces) + _COMMENT.sub(r"\1", source[at:])


def latex_text(source: str) -> str:
    """Text of a LaTeX file: formulas as `$..$` and `$$..$$` (numbered environments of several lines as they stand).
    Raises ValueError where macros grow without bound."""
    preamble, begin, body = without_comments(source).partition("\\begin{document}")
    if not begin:
        preamble, body = body, preamble
    kept: list[str] = []

    def keep(text: str) -> str:
        kept.append(text)
        return f"\x02{len(kept) - 1}\x03"

    body = body.partition("\\end{document}")[0].replace("\x02", "").replace("\x03", "")
    body = _VERBATIM.sub(lambda m: f"\n\n{keep(fence(m[4], _language(m)))}\n\n", body)
    body = _INLINE_VERBATIM.sub(lambda m: keep(f"`{m[2]}`"), body)
    body = expand(preamble, body)
    title = argument(preamble + body, "title")
    body = _DROPPED_ENVIRONMENTS.sub("", body)
    body = _MATH.sub(lambda m: _math(m, keep), body)
    body = _TABULAR.sub(lambda m: f"\n\n{keep(_table(m[3]))}\n\n", body)
    text = _prose(body)
    if title:
        text = f"# {_prose(title).strip()}\n\n{text}"
    for _ in range(3):  # a formula in a table in a kept piece
        text = re.sub("\x02(\\d+)\x03", lambda m: kept[int(m[1])], text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" if text.strip() else ""


def _math(m: re.Match[str], keep: Callable[[str], str]) -> str:
    if m["env"]:
        body = _NUMBERING.sub("", m["body"]).strip()
        if m["env"] == "math":
            return keep(f"${body}$")
        if m["env"].rstrip("*") in ("equation", "displaymath", "dmath"):
            shown = f"$${body}$$"
        else:
            shown = "\\begin{" + m["env"] + "}\n" + body + "\n\\end{" + m["env"] + "}"
        return f"\n\n{keep(shown)}\n\n" if body else ""
    display = m["display"] or m["dollars"]
    if display is not None:
        body = _NUMBERING.sub("", display).strip()
        shown = f"$${body}$$"
        return f"\n\n{keep(shown)}\n\n" if body else ""
    body = (m["paren"] or m["inline"] or "").strip()
    return keep(f"${body}$") if body else ""


def _language(m: re.Match[str]) -> str:
    if m[1] == "minted":
        return (m[3] or "")[1:-1]
    found = re.search(r"language=\{?([A-Za-z+#]+)", m[2] or "")
    return found[1].lower() if found else ""


def _table(body: str) -> str:
    body = re.sub(
        r"\\(?:hline|toprule|midrule|bottomrule|c(?:line|midrule)(?:\([^)]*\))?\{[^}]*\})", "", body
    )
    body = re.sub(r"\\multicolumn\{\d+\}\{[^}]*\}", "", body)
    rows = [
        [" ".join(_prose(c).split()) for c in re.split(r"(?<!\\)&", line)]
        for line in re.split(r"\\\\(?:\[[^\]]*\])?", body)
    ]
    return markdown_table([r for r in rows if any(r)])


def _prose(text: str) -> str:
    """Text outside formulas and code."""
    import unicodedata

    text = _REFERENCE.sub("", text)
    text = _sections(_without_dropped(text))
    text = _lists(text)
    text = _NAMED.sub(_named, text)
    text = _BOUNDARY.sub(lambda m: "\n" if m[1] == "end" else "\n\n", text)
    text = re.sub(r"\\texorpdfstring\s*\{([^{}]*)\}\s*\{[^{}]*\}", r"\1", text)
    text = re.sub(r"\\href\s*\{[^{}]*\}", "", text)
    text = re.sub(r"\\footnote(?:text)?\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", r" (\1)", text)
    text = re.sub(
        r"\\(?:textcolor|color|fontsize|selectfont|resizebox|scalebox|rule)(?:\[[^\]]*\])?\{[^{}]*\}",
        "",
        text,
    )
    text = _ACCENT.sub(lambda m: unicodedata.normalize("NFC", (m[3] or m[4]) + _ACCENTS[m[1] or m[2]]), text)
    text = re.sub(r"\\\\\*?(?:\[[^\]]*\])?", "\n", text)
    text = _COMMAND.sub(lambda m: _CHARACTERS.get(m[1], ""), text.replace("\\-", "").replace("\\/", ""))
    text = re.sub(r"\\([&%#_{}])", "\x04\\1", text)
    text = re.sub(r"\\[ ,;:!@>]", " ", text).replace("~", " ")
    text = re.sub("(?<!\x04)[{}]", "", text).replace("\x04", "")
    text = text.replace("---", "—").replace("--", "–").replace("``", '"').replace("''", '"').replace("`", "'")
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" *\n *", "\n", text)
    return re.sub(r" +([.,;:)])", r"\1", text)


def _without_dropped(text: str) -> str:
    out, at = [], 0
    for m in _DROPPED.finditer(text):
        if m.start() >= at:
            out.append(text[at : m.start()])
            at = arguments(text, m.end())[1]
    return "".join(out) + text[at:]


def _sections(text: str) -> str:
    out, at = [], 0
    for m in _SECTION.finditer(text):
        found, end = arguments(text, m.end(), 1)
        if m.start() < at or not found:
            continue
        out += [text[at : m.start()], f"\n\n{'#' * _SECTIONS[m[1]]} {' '.join(found[0].split())}\n\n"]
        at = end
    return "".join(out) + text[at:]


def _lists(text: str) -> str:
    stack: list[list] = []

    def one(m: re.Match[str]) -> str:
        if m[1] == "begin":
            stack.append([m[2], 0])
            return "\n"
        if m[1] == "end":
            if stack:
                stack.pop()
            return "\n"
        if not stack:
            return "\n- "
        stack[-1][1] += 1
        mark = f"{stack[-1][1]}. " if "enum" in stack[-1][0] else "- "
        return "\n" + mark + (f"{m[3]}: " if m[3] else "")

    return re.sub(r"\n\s*\n(?=(?:- |\d+\. ))", "\n", _LISTS.sub(one, text))


def _named(m: re.Match[str]) -> str:
    name = _FULL.get(m[1], m[1])
    if name in ("quote", "quotation"):
        return "\n\n"
    return f"\n\n{name.capitalize()}{f' ({m[2]})' if m[2] else ''}. "
