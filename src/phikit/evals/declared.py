"""What people declare in YAML for `phikit eval` (a task, a set of questions): its keys and names, checked."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any


def read_keys(path: Path, known: Collection[str]) -> dict[str, Any]:
    """The keys of a YAML file. ValueError where it is no YAML, has no keys, or one that is not known."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as e:
        raise ValueError(f"{path}: not valid YAML ({e})") from e
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected keys such as `{next(iter(known))}:`")
    if unknown := sorted(map(str, found.keys() - set(known))):
        raise ValueError(f"{path}: unknown keys {', '.join(unknown)}; keys are {', '.join(known)}")
    return found


def checked_name(name: str, path: Path) -> str:
    """A name that can be a file's; ValueError else."""
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{path}: name {name!r} may hold letters, digits, dots, dashes and underscores only")
    return name
