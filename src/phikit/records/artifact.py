"""Artifacts: a stage's folder with a `manifest.json` written last, atomically.

A manifest holds no time and no machine: equal inputs give an equal manifest, which is how the kill-and-resume
test compares runs. The fingerprint = hash(config, input fingerprints, the stage's own sources, versions of the
libraries that shape its bytes); a stage whose fingerprint is already there is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

from phikit.records.ids import file_sha256
from phikit.records.io import read_json, write_json

MANIFEST = "manifest.json"
UNHASHED = "not hashed"
WORK = ".work"  # what a stage keeps for resuming; never part of the artifact


@dataclass(frozen=True)
class Manifest:
    stage: str
    fingerprint: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]  # stage name -> fingerprint
    counts: Mapping[str, Any]  # what came in, went out, was dropped by reason; numbers, or maps of numbers
    files: Mapping[str, str] = field(default_factory=dict)  # relative path -> sha256, or "not hashed"


@dataclass(frozen=True)
class Artifact:
    """A finished stage folder."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of one of its files; KeyError-like error when the stage did not write it."""
        if name not in self.manifest.files:
            raise FileNotFoundError(
                f"stage {self.manifest.stage} wrote no {name!r} (it wrote {sorted(self.manifest.files)[:20]})"
            )
        return self.path / name


def load(folder: Path) -> Artifact | None:
    """The artifact in `folder`, or None where no manifest was written yet."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    return Artifact(folder, Manifest(**read_json(path)))


def seal(
    folder: Path,
    *,
    stage: str,
    fingerprint: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    counts: Mapping[str, Any],
    unhashed: Sequence[str] = (),
) -> Artifact:
    """Hashes the folder's files and writes the manifest. `.work` and hidden files are left out.

    Files under a path or pattern of `unhashed` (logs with times, request logs) are listed without a hash, so
    that they cannot make the manifests of equal runs differ.
    """
    paths = {
        p.relative_to(folder): p for p in sorted(folder.rglob("*")) if p.is_file() and p != folder / MANIFEST
    }
    files = {
        name.as_posix(): UNHASHED if any(_under(name, u) for u in unhashed) else file_sha256(p)
        for name, p in paths.items()
        if not any(part.startswith(".") for part in name.parts)
    }
    manifest = Manifest(stage, fingerprint, dict(config), dict(inputs), dict(counts), files)
    write_json(folder / MANIFEST, asdict(manifest))
    return Artifact(folder, manifest)


def _under(name: PurePath, pattern: str) -> bool:
    return fnmatch(name.as_posix(), pattern) or PurePath(pattern) in name.parents
