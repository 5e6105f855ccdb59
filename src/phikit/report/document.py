"""A self-contained page: style and script inline, everything else forbidden by its own policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from phikit.report.markup import Html, tag


def document(title: str, body: Sequence[Any], styles: Sequence[str], scripts: Sequence[str]) -> str:
    """The page. `styles` and `scripts` are files of this package."""
    style, script = _text(styles), _text(scripts)
    # Only this script may run: markup that slipped through from a model could not.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(style)),
    )
    tip = tag("div", id="tip", role="tooltip", hidden=True)
    whole = tag("html", head, tag("body", *body, tip, tag("script", Html(script))), lang="en")
    return f"<!doctype html>\n{whole}\n"


def bars(rows: Sequence[tuple[str, int, str]]) -> Html:
    """(label, n, class) as horizontal bars over the largest n."""
    most = max([n for _, n, _ in rows], default=1) or 1
    lines = [
        tag(
            "div",
            tag("div", label, class_="label"),
            tag("div", tag("i", style=f"--w:{100 * n / most:.1f}%"), class_="track"),
            tag("div", f"{n:,}", class_="n"),
            class_=f"row {kind}".strip(),
        )
        for label, n, kind in rows
    ]
    return tag("div", lines, class_="bars")


def _text(names: Sequence[str]) -> str:
    return "\n".join(files("phikit.report").joinpath(n).read_text("utf-8") for n in names)
