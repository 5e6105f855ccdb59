"""Documents of JSONL and Parquet files that anybody wrote: a `text` column, and `source` and `id` where they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from phikit.corpus.rows import rows
from phikit.records import Document
from phikit.records.remote import Place, Remote, Unreachable


def documents_of(files: Iterable[Place]) -> Iterator[Document]:
    """Raises ValueError naming the file and row that cannot be read or has no text, or the URL that does not answer."""
    for path in files:
        if not isinstance(path, Remote) and not path.is_file():
            raise ValueError(f"{path}: there is no such file")
        try:
            yield from _documents(path)
        except Unreachable as e:
            raise ValueError(f"{e}; give the command again") from e


def _documents(path: Place) -> Iterator[Document]:
    name = str(path) if isinstance(path, Remote) else path.name
    stem = path.name.removesuffix(path.suffix)
    for number, row in rows(path):
        if isinstance(row, str):
            raise ValueError(f"{path}, row {number}: {row}")
        text = row.get("text")
        if not isinstance(text, str):
            has = ", ".join(sorted(row)[:10])
            raise ValueError(f"{path}, row {number}: no text under `text` (it has {has})")
        meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
        yield Document(text, str(row.get("source") or stem), {"path": f"{name}#{number}", **meta})
