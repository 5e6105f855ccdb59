"""PDF to text, page by page (extra `phikit[pdf]`: pypdf). Layout is guessed from the text alone: words that a line end
cuts are joined, lines become paragraphs, and what stands at the top or bottom of most pages is left out. Formulas come
as the characters that the file holds, and scans have no text."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

PAGES = 2_000  # of a file that are read at most
_NUMBER = re.compile(r"\d+")
_HYPHEN = re.compile(r"(\w)[-\u00ad]\n(?=[a-z])")
_ENDS = (".", "!", "?", ":", '"', "\u201d")


def pdf_text(path: Path) -> str:
    """Raises ValueError where pypdf is absent, the file is damaged or locked, has more than PAGES pages or no text."""
    try:
        import pypdf
        from pypdf.errors import PyPdfError
    except ImportError as e:
        raise ValueError("reading PDF needs pypdf: pip install 'phikit[pdf]'") from e
    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("locked with a password")
        if len(reader.pages) > PAGES:
            raise ValueError(f"{len(reader.pages)} pages, more than {PAGES}")
        pages = [page.extract_text().splitlines() for page in reader.pages]
    except (
        PyPdfError,
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        AssertionError,
    ) as e:
        raise ValueError(f"not a readable PDF ({type(e).__name__}: {e})") from e
    text = "\n\n".join(filter(None, map(_paragraphs, _without_margins(pages))))
    if not text.strip():
        raise ValueError("no text in it: its pages are pictures, perhaps")
    return text


def _without_margins(pages: list[list[str]]) -> list[list[str]]:
    """The pages without first and last lines that most of them share, page numbers aside."""
    pages = [[line.strip() for line in page if line.strip()] for page in pages]
    margins: Counter[str] = Counter()
    for page in pages:
        margins.update({_NUMBER.sub("#", line) for line in (*page[:1], *page[-1:])})
    often = {line for line, n in margins.items() if n > 2 and n > len(pages) / 2} | {"#"}
    kept = []
    for page in pages:
        while page and _NUMBER.sub("#", page[0]) in often:
            page = page[1:]
        while page and _NUMBER.sub("#", page[-1]) in often:
            page = page[:-1]
        kept.append(page)
    return kept


def _paragraphs(lines: list[str]) -> str:
    """A line that ends a sentence and is much shorter than the longest one ends a paragraph."""
    width = max(map(len, lines), default=0)
    out: list[str] = []
    begin = True
    for line in lines:
        if begin:
            out.append(line)
        else:
            out[-1] += f"\n{line}"
        begin = line.endswith(_ENDS) and len(line) < 0.8 * width
    return "\n\n".join(_HYPHEN.sub(r"\1", p).replace("\n", " ") for p in out)
