"""HTML that cannot forget to escape: `tag` escapes every child and attribute that is not already `Html`.

What a page shows is model output and file content, so it is hostile: control characters and lone surrogates
are replaced as well (a lone surrogate cannot be written as UTF-8).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

VOID = frozenset({"meta", "link", "br", "input", "line", "rect", "circle", "path", "polyline"})
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Markup that is already safe."""

    __slots__ = ()


def escape(value: Any) -> Html:
    if isinstance(value, Html):
        return value
    return Html(html.escape(UNPRINTABLE.sub("\ufffd", str(value).replace("\r\n", "\n")), quote=True))


def join(children: Iterable[Any]) -> Html:
    """Children one after the other; None and False are left out, lists are flattened."""
    parts: list[str] = []
    for child in children:
        if child is None or child is False:
            continue
        if isinstance(child, (list, tuple)):
            parts.append(join(child))
        else:
            parts.append(escape(child))
    return Html("".join(parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """`tag("td", "a < b", class_="n", data_tip="...")`: a trailing underscore is dropped, others become
    dashes; None and False leave an attribute out, True writes it bare."""
    out = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        out.append(f" {key}" if value is True else f' {key}="{escape(value)}"')
    if name in VOID and not children:
        return Html("".join(out) + "/>")
    return Html("".join(out) + f">{join(children)}</{name}>")


def clip(text: Any, limit: int) -> str:
    """`text` cut to `limit` characters, saying how many are left out."""
    text = str(text)
    if len(text) <= limit:
        return text
    return f"{text[:limit]} ... ({len(text) - limit:,} more characters)"
