"""Is this answer right: one definition for synthesis, preference data and evaluation."""

from phikit.verify.check import NoSandbox, check
from phikit.verify.verdict import Verdict

__all__ = ["NoSandbox", "Verdict", "check"]
