"""Prompts of a given length: as many parts as fit, never one cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class DoesNotFit(ValueError):
    """The shortest prompt is longer than the room."""


def fill(
    count: Callable[[str], int], room: int, sizes: Sequence[int], least: int, build: Callable[[int], str]
) -> str:
    """`build(n)` for the largest n of at most len(sizes) whose text has at most `room` tokens by `count`; `sizes` are
    the tokens of the parts and give the first guess. Raises DoesNotFit where `build(least)` is longer than the room."""
    shortest = count(build(least))
    spare, n = room - shortest, least
    while n < len(sizes) and spare >= sizes[n]:
        spare -= sizes[n]
        n += 1
    while n >= least:
        text = build(n)
        if count(text) <= room:
            return text
        n -= 1
    raise DoesNotFit(f"there is room for {room} tokens, and the shortest prompt has {shortest}")
