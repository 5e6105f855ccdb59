"""Jupyter notebooks as Markdown: text cells as they are, code cells in fences; outputs are left out."""

from __future__ import annotations

import json


def notebook_text(data: bytes) -> str:
    """Raises ValueError saying what is wrong."""
    try:
        book = json.loads(data.decode("utf-8-sig"))
        cells = book["cells"]
        language = book.get("metadata", {}).get("kernelspec", {}).get("language", "")
        parts = [(c["cell_type"], "".join(c["source"])) for c in cells]
    except RecursionError as e:
        raise ValueError("nested too deep") from e
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"not a notebook of version 4 ({type(e).__name__}: {e})") from e
    return "\n\n".join(
        _fenced(text, language) if kind == "code" else text for kind, text in parts if text.strip()
    )


def _fenced(text: str, language: object) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"
