"""From what a file holds to the text a model should read (report section 2.3, extraction)."""

from __future__ import annotations

from collections.abc import Iterator

from phikit.corpus.code import NAMES, split_code
from phikit.corpus.html_text import html_text
from phikit.corpus.latex import latex_text
from phikit.corpus.rejection import Rejection
from phikit.records import Document

EXTRACTORS = {"html": html_text, "latex": latex_text}


def extract(document: Document, *, max_code: int = 20_000) -> Iterator[Document | Rejection]:
    """The document's text: HTML and LaTeX by their extractors, other formats with line ends and outer blanks made
    regular; a file of code longer than `max_code` characters becomes several documents whose parent is the file."""
    format = document.meta.get("format", "plain")
    text = document.text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        text = EXTRACTORS[format](text) if format in EXTRACTORS else text
    except ValueError as e:
        yield Rejection.of(document, "unreadable", f"{format}: {e}")
        return
    text = text.strip("\n")
    if not text.strip():
        yield Rejection.of(document, "empty", f"no text in it ({format})")
    elif format in NAMES and len(text) > max_code:
        whole = Document(text, document.source, document.meta)
        for number, part in enumerate(split_code(text, max_code, format), 1):
            yield Document(part, document.source, {**document.meta, "part": number}, parents=(whole.id,))
    else:
        yield Document(text, document.source, document.meta, document.parents)
