"""Documents of JSONL and Parquet files that anybody wrote: a `text` column, and `source` and `id` where they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from phikit.corpus.rows import rows
from phikit.records import Document


def documents_of(files: Iterable[Path]) -> Iterator[Document]:
    """Raises ValueError naming the file and row that cannot be read or has no text."""
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file")
        for number, row in rows(path):
            if isinstance(row, str):
                raise ValueError(f"{path}, row {number}: {row}")
            text = row.get("text")
            if not isinstance(text, str):
                raise ValueError(
                    f"{path}, row {number}: no text under `text` (it has {', '.join(sorted(row)[:10])})"
                )
            meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
            yield Document(
                text, str(row.get("source") or path.stem), {"path": f"{path.name}#{number}", **meta}
            )
