"""Files under the SHA-256 of their content, in the layout of Ollama's model folder: `blobs/sha256-<hex>`.

A blob appears whole or not at all. What came of an interrupted download stays beside it as `-partial` and is
continued.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phikit.records.ids import file_sha256
from phikit.store.names import parse_digest

CHUNK = 1 << 20
_RESERVE = 64 << 20  # bytes of disk left free


class WrongDigest(ValueError):
    """Bytes that are not what their digest says."""


class DiskFull(ValueError):
    """Not enough disk for what is about to be written; the message has both numbers."""


class Blobs:
    """`root` is the folder that holds `blobs/`; it is made when the first blob is written."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs"

    def path(self, digest: str) -> Path:
        """Where the blob lies or would lie. Raises BadName for what is no digest."""
        return self.folder / f"sha256-{parse_digest(digest)}"

    def partial(self, digest: str) -> Path:
        path = self.path(digest)
        return path.with_name(f"{path.name}-partial")

    def put(self, chunks: Iterable[bytes], digest: str | None = None) -> tuple[str, int]:
        """Writes a blob; returns (digest, size). Raises WrongDigest where `digest` is given and differs."""
        wanted = parse_digest(digest) if digest else None
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="new-", delete=False) as f:
            try:
                hasher, size = hashlib.sha256(), 0
                for chunk in chunks:
                    hasher.update(chunk)
                    size += len(chunk)
                    f.write(chunk)
                found = hasher.hexdigest()
                if wanted not in (None, found):
                    raise WrongDigest(f"digest mismatch, expected sha256:{wanted}, got sha256:{found}")
                f.flush()
                os.fsync(f.fileno())
                os.replace(f.name, self.path(f"sha256:{found}"))
            except BaseException:
                Path(f.name).unlink(missing_ok=True)
                raise
        return f"sha256:{found}", size

    def put_text(self, text: str) -> tuple[str, int]:
        return self.put([text.encode()])

    def put_file(self, path: Path) -> tuple[str, int]:
        """A copy of a file."""
        self.check_room(path.stat().st_size)
        with path.open("rb") as f:
            return self.put(iter(lambda: f.read(CHUNK), b""))

    @contextmanager
    def exclusive(self, digest: str) -> Iterator[None]:
        """Waits until nobody else, in this process or another, downloads the same blob."""
        partial = self.partial(digest)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as f:
            with suppress(ImportError):  # not on Windows
                import fcntl

                fcntl.flock(f, fcntl.LOCK_EX)
            yield
        if self.path(digest).is_file():
            partial.unlink(missing_ok=True)

    def finish(self, digest: str) -> None:
        """The partial file of the digest becomes the blob. Raises WrongDigest, and then removes it."""
        partial = self.partial(digest)
        if (found := file_digest(partial)) != f"sha256:{parse_digest(digest)}":
            partial.unlink()
            raise WrongDigest(
                f"digest mismatch, expected {digest}, got {found}; what was downloaded is removed"
            )
        os.replace(partial, self.path(digest))

    def check_room(self, need: int) -> None:
        """Raises DiskFull."""
        free = free_space(self.folder)
        if need + _RESERVE > free:
            raise DiskFull(
                f"not enough disk: {need / 1e9:.2f} GB to write, {free / 1e9:.2f} GB free at {self.folder}; free some, "
                "or set PHIKIT_MODELS to a folder on another disk"
            )


def free_space(folder: Path) -> int:
    """Bytes of disk that are free where a folder is or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def file_digest(path: Path) -> str:
    """`sha256:<hex>` of a file."""
    return f"sha256:{file_sha256(path)}"
