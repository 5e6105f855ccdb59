"""The verdict of a check."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """`unparsed`: no answer could be read from the text. It counts as not right, but is reported on its
    own."""

    right = "right"
    wrong = "wrong"
    unparsed = "unparsed"
