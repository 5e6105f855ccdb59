"""Answers on disk as they come: an append-only file that makes a killed evaluation go on where it was.

A line is {"key", ...answer}; the key is a hash of the model's identity and the exact request, so a line is good for
every later run that asks the same, whatever else that run asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from phikit.records.io import RowError


class Journal:
    """Use as a context manager. A last line that a kill tore off is dropped; any other bad line is an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, dict[str, Any]] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                self._known[row.pop("key")] = row
            except (ValueError, KeyError, AttributeError) as e:
                raise RowError(
                    f"{self.path}, line {number}: not a line of a journal ({e}); delete the file to ask anew"
                ) from e
        self._file = self.path.open("r+b" if data else "wb")
        self._file.truncate(len(whole))
        self._file.seek(0, 2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Mapping[str, Any] | None:
        return self._known.get(key)

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._known[key] = dict(answer)
        self._file.write(
            json.dumps({"key": key, **answer}, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        )
        self._file.flush()
