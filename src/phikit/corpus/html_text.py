"""A page's content as text: paragraphs, headings, lists, tables and code as Markdown, mathematics as TeX.

Code blocks keep every character of `<pre>`, between fences longer than any run of backticks in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from phikit.corpus.html_main import edge, main_element
from phikit.corpus.html_math import delimited, formula, typeset
from phikit.corpus.html_thread import mark_posts
from phikit.corpus.html_tree import Element, parse

_SPACES = re.compile(r"[ \t\n\r\f\u00a0]+")
_AROUND_BREAK = re.compile(r" *\n *")
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "dd",
        "details",
        "dir",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "html",
        "li",
        "main",
        "menu",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "ul",
        "tr",
        "td",
        "th",
        "tbody",
        "thead",
        "tfoot",
        "caption",
        "hgroup",
        "legend",
        "optgroup",
        "post",
    ]
)
_HEADINGS = {f"h{i}": "#" * i + " " for i in range(1, 7)}
_CODE = frozenset(["code", "kbd", "tt", "samp"])
_LANGUAGE = re.compile(r"(?:language|lang|highlight|brush:|sourceCode)[-: ]\s*([A-Za-z0-9+#]{1,20})")
_NO_LANGUAGE = {"default", "none", "text", "plain", "source", "notranslate", "plaintext"}
_SHORT_SCRIPT = re.compile(r"[+−-]?(?:\d{1,4}|[A-Za-z])$")
_RAW_TEX = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
LONG_CELL = 400  # characters of a cell from which on a table is taken for layout


@dataclass(slots=True)
class Block:
    """One block of the result; `kind` is text, head, code, math, list, table or post."""

    text: str
    kind: str = "text"


def html_text(html: str) -> str:
    """The main content of a page as text; "" where there is none."""
    root = parse(html)
    tex = typeset(root)
    mark_posts(root)
    element = main_element(root)
    title = next((t for e in root.elements() if e.tag == "h1" and (t := e.line().rstrip("¶# "))), "")
    blocks = Writer(tex).blocks(element)
    blocks = _trimmed(blocks)
    heading = next((b.text for b in blocks if b.kind == "head"), "")
    if (
        title
        and blocks
        and title not in heading.replace("`", "")
        and not any(title in b.text for b in blocks[:3])
    ):
        blocks.insert(0, Block("# " + title, "head"))
    return "\n\n".join(b.text for b in blocks)


def fence(code: str, language: str = "") -> str:
    """A fenced block around `code`, byte for byte (a last line end is added where it has none)."""
    runs = max((len(r) for r in re.findall(r"`{3,}", code)), default=2)
    marks = "`" * (runs + 1)
    return f"{marks}{language}\n{code}{'' if code.endswith(chr(10)) else chr(10)}{marks}"


def markdown_table(rows: list[list[str]]) -> str:
    """Rows of cells as a Markdown table; the first row is the head."""
    width = max(map(len, rows), default=0)
    lines = [
        "| "
        + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in r + [""] * (width - len(r)))
        + " |"
        for r in rows
    ]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]]) if lines else ""


class Writer:
    """Turns elements into blocks. `tex`: delimiters of TeX in running text are formulas on this page."""

    def __init__(self, tex: bool) -> None:
        self.tex = tex
        self.done: list[Block] = []
        self.line: list[str] = []

    def blocks(self, e: Element) -> list[Block]:
        """The blocks of an element's content."""
        outer = self.done, self.line
        self.done, self.line = [], []
        self._flow(e)
        self._flush()
        found = self.done
        self.done, self.line = outer
        return found

    def inline(self, e: Element) -> str:
        """The content as one paragraph's text."""
        return " ".join(b.text for b in self.blocks(e)).replace("\n", " ")

    def _flush(self, kind: str = "text", prefix: str = "") -> None:
        text = _AROUND_BREAK.sub("\n", _SPACES_ONLY.sub(" ", "".join(self.line))).strip()
        self.line = []
        if self.tex:
            text = _RAW_TEX.sub(_raw_tex, text)
        if text:
            self.done.append(Block(prefix + text, kind))

    def _flow(self, e: Element) -> None:
        for c in e.children:
            if isinstance(c, str):
                self.line.append(_SPACES.sub(" ", c))
            else:
                self._element(c)

    def _element(self, e: Element) -> None:
        found = formula(e)
        if found is not None:
            tex, display = found
            if display and tex:
                self._flush()
                self.done.append(Block(delimited(tex, True), "math"))
            else:
                self.line.append(delimited(tex, False))
            return
        tag = e.tag
        if tag == "pre" or (tag == "div" and "highlight" in e.classes and _only_code(e)):
            self._flush()
            self._pre(e)
        elif tag in _HEADINGS:
            self._flush()
            inner = self.inline(e)
            text = re.sub(r"[\s¶#]+$", "", inner).strip()
            if text:
                self.done.append(Block(_HEADINGS[tag] + text, "head"))
        elif tag in ("ul", "ol", "dir", "menu"):
            self._flush()
            self._list(e)
        elif tag == "table":
            self._flush()
            self._table(e)
        elif tag == "blockquote":
            self._flush()
            for b in self.blocks(e):
                text = b.text if b.kind == "code" else "> " + b.text.replace("\n", "\n> ")
                self.done.append(Block(text, b.kind))
        elif tag == "post":
            self._flush()
            self.done.append(Block("---\n\n" + e.attrs["author"] + ":", "post"))
            self._flow(e)
            self._flush()
        elif tag in _BLOCKS:
            self._flush()
            self._flow(e)
            self._flush()
        else:
            self._inline_element(e)

    def _inline_element(self, e: Element) -> None:
        tag = e.tag
        if tag == "br":
            self.line.append("\n")
        elif tag in _CODE:
            text = _SPACES.sub(" ", e.text()).strip()
            if text:
                marks = "``" if "`" in text else "`"
                self.line.append(f"{marks}{text}{marks}")
        elif tag in ("sup", "sub"):
            mark = "^" if tag == "sup" else "_"
            text = e.line()
            if _SHORT_SCRIPT.match(text) and not e.find("a"):
                self.line.append(mark + (text if len(text) == 1 else f"{{{text.replace('−', '-')}}}"))
            else:
                self._flow(e)
        elif tag == "q":
            self.line.append('"')
            self._flow(e)
            self.line.append('"')
        elif tag not in ("script", "img", "hr", "wbr"):
            self._flow(e)

    def _pre(self, e: Element) -> None:
        code = _code_text(e)
        if code.strip():
            self.done.append(Block(fence(code, _language(e)), "code"))

    def _list(self, e: Element) -> None:
        number = int(e.attrs["start"]) if e.attrs.get("start", "").isdecimal() else 1
        items = []
        for c in e.children:
            if isinstance(c, str) or c.tag not in ("li", "ul", "ol", "div", "post"):
                continue
            inner = self.blocks(c)
            if not inner:
                continue
            if c.tag in ("ul", "ol") and items:
                items.append(_indented(inner, "  "))
                continue
            mark = f"{number}. " if e.tag == "ol" else "- "
            number += 1
            body = _indented(inner, " " * len(mark))
            items.append(body if inner[0].kind in ("code", "post") else mark + body.lstrip(" "))
        if items:
            self.done.append(Block("\n".join(items), "list"))

    def _table(self, e: Element) -> None:
        if caption := next((x for x in e.elements() if x.tag == "caption"), None):
            self._flow(caption)
            self._flush()
        rows = _rows(e)
        cells = [c for r in rows for c in r]
        layout = (
            e.attrs.get("role") == "presentation"
            or len(rows) < 2
            or max(map(len, rows)) < 2
            or any(c.startswith(("ltx_eq", "highlighttable", "rouge-table")) for c in e.classes)
            or any(_holds_blocks(c) for c in cells)
        )
        if layout:
            for cell in cells:
                self._flow(cell)
                self._flush()
            return
        texts = [[t for c in r for t in [self.inline(c)] + [""] * (_span(c) - 1)] for r in rows]
        texts = [r for r in texts if any(r)]
        if texts:
            self.done.append(Block(markdown_table(texts), "table"))


_SPACES_ONLY = re.compile(r" {2,}")


def _raw_tex(m: re.Match[str]) -> str:
    return delimited((m[1] or m[2]).strip(), m[2] is not None)


def _indented(blocks: list[Block], by: str) -> str:
    """Blocks of a list item, indented to stand under its mark; code keeps its lines as they are."""
    return "\n".join(b.text if b.kind == "code" else by + b.text.replace("\n", "\n" + by) for b in blocks)


def _rows(table: Element) -> list[list[Element]]:
    """The cells of a table's own rows, not of tables inside it."""
    rows = []
    todo = [c for c in reversed(table.children) if isinstance(c, Element)]
    while todo:
        e = todo.pop()
        if e.tag == "tr":
            cells = [c for c in e.children if isinstance(c, Element) and c.tag in ("td", "th", "post")]
            if cells:
                rows.append(cells)
        elif e.tag in ("tbody", "thead", "tfoot"):
            todo.extend(c for c in reversed(e.children) if isinstance(c, Element))
    return rows


def _span(cell: Element) -> int:
    value = cell.attrs.get("colspan", "")
    return min(int(value), 50) if value.isdecimal() and int(value) else 1


def _holds_blocks(cell: Element) -> bool:
    return cell.chars > LONG_CELL or any(
        x.tag in ("table", "h1", "h2", "h3", "post")
        or (x.tag == "pre" and "\n" in x.text().strip())
        or (x.tag in ("ul", "ol", "dl") and x.chars > 80)
        for x in cell.elements()
    )


def _only_code(e: Element) -> bool:
    return any(x.tag == "pre" for x in e.elements()) and not any(
        x.tag in ("p", "h1", "h2", "h3", "table", "ul", "ol", "dl") for x in e.elements()
    )


def _code_text(e: Element) -> str:
    """The characters of a code block. Line numbers and buttons are already cut off the tree."""
    if e.tag != "pre":
        parts = [_code_text(x) for x in e.elements() if x.tag == "pre"]
        return "\n".join(parts)
    return e.text()


def _language(e: Element) -> str:
    inner = next((x for x in e.elements() if x.tag == "code" and "class" in x.attrs), None)
    above = e.parent.parent if e.parent else None
    for x in (inner, e, e.parent, above):
        if x is not None and (m := _LANGUAGE.search(x.attrs.get("class", "") + " ")):
            name = m[1].lower()
            return (
                "python"
                if name in ("python3", "py", "ipython3", "pycon")
                else ""
                if name in _NO_LANGUAGE
                else name
            )
    return ""


def _trimmed(blocks: list[Block]) -> list[Block]:
    """Without lines about the page itself among its first and last blocks, and without headings over nothing at
    its end."""
    near = range(5), range(len(blocks) - 5, len(blocks))
    kept = [
        b
        for i, b in enumerate(blocks)
        if not (b.kind != "code" and any(i in r for r in near) and all(map(edge, b.text.splitlines())))
    ]
    while kept and kept[-1].kind == "head" and len(kept) > 1:
        kept.pop()
    return kept or blocks
