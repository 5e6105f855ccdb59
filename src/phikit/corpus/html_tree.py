"""An HTML page as a light tree: resiliparse's parser, then one walk of our own.

A page is walked several times (mass, boilerplate, rendering); Python objects with their counts make that cheaper
than asking the parser's nodes each time, and a bound on depth makes recursion safe on hostile pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 120  # deeper elements become children of the last one allowed
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_CHARSET = re.compile(rb"<(?:meta|\?xml)[^>]*(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", re.I)
_SPACES = re.compile(r"\s+")


class Element:
    """One element: `children` are elements and texts in order. `chars` counts the letters and digits below it,
    `linked` those inside `<a href>`."""

    __slots__ = ("_tokens", "attrs", "chars", "children", "classes", "linked", "parent", "tag")

    def __init__(self, tag: str, attrs: dict[str, str], parent: Element | None) -> None:
        self.tag, self.attrs, self.parent = tag, attrs, parent
        self.children: list[Element | str] = []
        self.classes = frozenset(attrs["class"].split()) if "class" in attrs else frozenset()
        self.chars = self.linked = 0
        self._tokens: frozenset[str] | None = None

    @property
    def tokens(self) -> frozenset[str]:
        """Words of class, id and role, lower-cased: `mainNav-left` gives main, nav, left."""
        if self._tokens is None:
            named = " ".join(self.attrs.get(k, "") for k in ("class", "id", "role"))
            self._tokens = frozenset(t.lower() for t in _TOKEN.findall(named))
        return self._tokens

    def elements(self) -> Iterator[Element]:
        """This element and all below it, in document order."""
        todo: list[Element] = [self]
        while todo:
            e = todo.pop()
            yield e
            todo.extend(c for c in reversed(e.children) if isinstance(c, Element))

    def find(self, *tags: str) -> Element | None:
        return next((e for e in self.elements() if e.tag in tags), None)

    def text(self) -> str:
        """All text below, as it stands."""
        parts: list[str] = []
        todo: list[Element | str] = [self]
        while todo:
            e = todo.pop()
            if isinstance(e, str):
                parts.append(e)
            elif e.tag == "br":
                parts.append("\n")
            else:
                todo.extend(reversed(e.children))
        return "".join(parts)

    def line(self) -> str:
        """All text below on one line."""
        return _SPACES.sub(" ", self.text()).strip()

    def count(self) -> None:
        """Sets `chars` and `linked` of this element and all below it."""
        order = list(self.elements())
        for e in reversed(order):
            e.chars = e.linked = 0
            for c in e.children:
                if isinstance(c, str):
                    e.chars += sum(map(str.isalnum, c)) if not c.isspace() else 0
                else:
                    e.chars += c.chars
                    e.linked += c.linked
            if e.tag == "a" and "href" in e.attrs:
                e.linked = e.chars


def decode(data: bytes, charset: str = "") -> str:
    """The page's characters as a browser would read them: by the charset of the answer's header where it had one,
    else by what the page declares, else by what its bytes look like."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    declared = _CHARSET.search(data, 0, 4096)
    charset = charset or (declared[1].decode() if declared else "")
    if not charset or charset.lower() in ("utf-8", "utf8"):
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    return bytes_to_str(data, charset or detect_encoding(data, html5_compatible=True) or "utf-8")


def parse(html: str) -> Element:
    """The page's tree. Never fails: HTML's rules give every text a tree."""
    from resiliparse.parse.html import HTMLTree, NodeType

    tree = HTMLTree.parse(html)
    root = Element("#document", {}, None)
    document = tree.document
    if document is None:
        return root
    text_type, element_type = NodeType.TEXT, NodeType.ELEMENT
    # First child, then next sibling: the parser's lists of children cost the square of their length.
    node, parent, depth = document.first_child, root, 0
    after: list[tuple[Any, Element, int]] = []
    while node is not None or after:
        if node is None:
            node, parent, depth = after.pop()
            continue
        following = node.next_sibling
        kind = node.type
        if kind == text_type:
            parent.children.append(node.value or "")
        elif kind == element_type:
            tag = (node.tag or "").lower().removeprefix("m:").removeprefix("mml:")
            names = node.attrs  # type: ignore[attr-defined]  # the stubs lack what the parser has
            attrs = {n: node.getattr(n) or "" for n in names} if names else {}  # type: ignore[attr-defined]
            e = Element(tag, attrs, parent)
            parent.children.append(e)
            if (child := node.first_child) is not None:
                if following is not None:
                    after.append((following, parent, depth))
                node, parent, depth = child, e if depth < MAX_DEPTH else parent, depth + 1
                continue
        node = following
    root.count()
    return root
