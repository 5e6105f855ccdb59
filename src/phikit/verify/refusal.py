"""Does a text refuse: by admitting that it does not know, or by declining to help.

Read from the first sentences only: an answer that ends in "but I am not sure of the year" has answered.
"""

from __future__ import annotations

import re

_OPENING = 240  # characters in which a refusal must show
_UNKNOWING = re.compile(
    r"\bi (?:really |honestly |actually |simply |just )?(?:do not|don't|did not|didn't) (?:really |actually )?"
    r"(?:know|have (?:any |enough |specific |reliable |that )?(?:information|knowledge|details)|recall|recognize)"
    r"|\bi(?:'m| am) (?:not (?:sure|aware|certain|familiar|able to (?:find|verify|confirm))|unsure|unfamiliar|unaware)"
    r"|\bi have (?:no|never) (?:information|knowledge|record|idea|heard)"
    r"|\b(?:cannot|can't|can not|could not|couldn't) "
    r"(?:find|verify|confirm|recall|determine|provide (?:any )?information)"
    r"|\bno (?:reliable )?information (?:about|on|regarding)|\bnot (?:known to me|in my knowledge)",
    re.IGNORECASE,
)
_DECLINING = re.compile(
    r"\b(?:cannot|can't|can not|won't|will not|must not|not able to|unable to|not going to|not comfortable(?: with)?)"
    r"\s+(?:\w+\s+)?(?:help|assist|support|do that|do this|provide|comply|fulfil+|answer that|give|share|explain"
    r"|continue|discuss)"
    r"|\bi must (?:decline|refuse)|\bi (?:decline|refuse) to|\bagainst (?:the law|my (?:rules|guidelines|principles))"
    r"|\b(?:i am|i'm) sorry,? but i",
    re.IGNORECASE,
)


def admits_ignorance(text: str) -> bool:
    """Whether a text opens by saying that it does not know."""
    return bool(_UNKNOWING.search(_opening(text)))


def declines(text: str) -> bool:
    """Whether a text opens by declining to do what was asked."""
    return bool(_DECLINING.search(_opening(text)))


def refuses(text: str) -> bool:
    return admits_ignorance(text) or declines(text)


def _opening(text: str) -> str:
    plain = text.replace("\u2019", "'").strip()[:_OPENING]
    return " ".join(re.split(r"(?<=[.!?])\s+", plain)[:2])
