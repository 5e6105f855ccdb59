"""From what a file holds to the text a model should read (report section 2.3, extraction)."""

from __future__ import annotations

from collections.abc import Iterator

from phikit.corpus.code import split_code
from phikit.corpus.rejection import Rejection
from phikit.records import Document


def extract(document: Document, *, max_code: int = 20_000) -> Iterator[Document | Rejection]:
    """The document's text; a Python file longer than `max_code` characters becomes several documents whose
    parent is the file. Other formats pass with line ends and outer blanks made regular."""
    format = document.meta.get("format", "plain")
    text = html_text(document.text) if format == "html" else document.text
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    if not text.strip():
        yield Rejection.of(document, "empty", f"no text in it ({format})")
    elif format == "python" and len(text) > max_code:
        whole = Document(text, document.source, document.meta)
        for number, part in enumerate(split_code(text, max_code), 1):
            yield Document(part, document.source, {**document.meta, "part": number}, parents=(whole.id,))
    else:
        yield Document(text, document.source, document.meta, document.parents)


def html_text(html: str) -> str:
    """Main content of a page: paragraphs, lists and headings as lines, `<pre>` as it stands."""
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(html, main_content=True, alt_texts=False, preserve_formatting=True)
