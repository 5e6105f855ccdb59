"""What flows between the stages, how it is stored, and how a stage's output is made reproducible."""

from phikit.records.artifact import Artifact, Manifest
from phikit.records.ids import canonical_json, content_id, fingerprint, seed_of
from phikit.records.types import (
    Completion,
    Dialog,
    Document,
    Preference,
    Score,
    Turn,
    from_row,
    to_row,
    turns,
)

__all__ = [
    "Artifact", "Completion", "Dialog", "Document", "Manifest", "Preference", "Score", "Turn",
    "canonical_json", "content_id", "fingerprint", "from_row", "seed_of", "to_row", "turns",
]  # fmt: skip
