"""Names of models, as Ollama's: `host/namespace/model:tag`, the first, second and last with defaults.

Parts are compared without regard to case and shown as they were stored. No part can leave its folder: each begins
with a letter, a digit or `_`, and holds none of `/`, `\\` and NUL (CVE-2024-37032 began with a name that did).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
HUB = "hf.co"  # names of this host are repositories of the Hugging Face hub
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


class BadName(ValueError):
    """A text that names no model."""


@dataclass(frozen=True, slots=True)
class ModelName:
    host: str
    namespace: str
    model: str
    tag: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is compared."""
        return self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower()

    def __str__(self) -> str:
        """The shortest form: defaults are left out, the tag stays."""
        short = f"{self.model}:{self.tag}"
        if (self.host.lower(), self.namespace.lower()) == (HOST, NAMESPACE):
            return short
        short = f"{self.namespace}/{short}"
        return short if self.host.lower() == HOST else f"{self.host}/{short}"


def parse(text: str) -> ModelName:
    """Raises BadName."""
    rest, host, namespace, tag = text.strip(), HOST, NAMESPACE, TAG
    for scheme in ("https://", "http://"):
        rest = rest.removeprefix(scheme)
    head, slash, last = rest.rpartition("/")
    model, colon, given = last.partition(":")
    if colon:
        tag = given
    if slash:
        first, slash, second = head.rpartition("/")
        host, namespace = (first, second) if slash else (host, head)
    name = ModelName(host, namespace, model, tag)
    # The hub's organisations may hold a dot.
    space = _PART if host.lower() in (HUB, "huggingface.co") else _NAMESPACE
    checks = ((_HOST, host), (space, namespace), (_PART, model), (_PART, tag))
    if ".." in host or any(not pattern.fullmatch(part) for pattern, part in checks):
        raise BadName(f"invalid model name {text[:200]!r}: write [host/][namespace/]model[:tag]")
    return name


def plain(stem: str) -> str:
    """A model part out of the name of a file or folder."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", stem).lstrip("-.")[:80] or "model"


def parse_digest(text: str) -> str:
    """The 64 hex digits of `sha256:...` (or `sha256-...`, as files are called). Raises BadName."""
    if not (m := _DIGEST.fullmatch(text)):
        raise BadName(f"invalid digest {text[:100]!r}: write sha256: and 64 lower-case hex digits")
    return m[1]
