"""What an engine's child process and its parent say to each other: frames of a 4-byte length and MessagePack.

Requests carry an id; every reply names the id it answers. Nothing here can run code when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import msgspec

from phikit.engine.base import GenRequest, ScoreRequest
from phikit.records.types import Finish

Alternatives = tuple[tuple[int, float], ...]  # (id, log-probability), best first


class Generate(msgspec.Struct, tag="generate"):
    """Answered by one Done per sample; before it a Token per token where `stream`."""

    id: int
    request: GenRequest
    stream: bool


class Scoring(msgspec.Struct, tag="score"):
    """Answered by Value: a list of (log-probability of each continuation token, was each the arg-max)."""

    id: int
    requests: list[ScoreRequest]


class Embed(msgspec.Struct, tag="embed"):
    """Answered by Value: a list of vectors."""

    id: int
    texts: list[str]


class Encode(msgspec.Struct, tag="encode"):
    """Answered by Value: the ids of all parts; in a part with True special-token strings are tokens."""

    id: int
    parts: list[tuple[str, bool]]


class Decode(msgspec.Struct, tag="decode"):
    """Answered by Value: the text."""

    id: int
    ids: list[int]


class Spell(msgspec.Struct, tag="spell"):
    """Answered by Value: the bytes of each token, empty for a special one."""

    id: int
    ids: list[int]


class Cancel(msgspec.Struct, tag="cancel"):
    """Not answered; replies already on their way still come."""

    ids: list[int]


class Ready(msgspec.Struct, tag="ready", array_like=True):
    """The first reply: the model is loaded."""


class Token(msgspec.Struct, tag="token", array_like=True):
    id: int
    sample: int
    token: int
    logprob: float
    text: str
    top: Alternatives = ()


class Done(msgspec.Struct, tag="done", array_like=True):
    """A sample has ended. `text` is the whole of it, or where it was streamed what no Token has said yet."""

    id: int
    sample: int
    tokens: list[int]
    logprobs: list[float]
    text: str
    finish: Finish
    prefilled: int
    top: list[Alternatives] = []


class Value(msgspec.Struct, tag="value", array_like=True):
    id: int
    value: Any
    prefilled: int = 0


class Fault(msgspec.Struct, tag="fault", array_like=True):
    """The request `id` failed: its own fault (`bad`) or the engine's."""

    id: int
    message: str
    bad: bool


Request = Generate | Scoring | Embed | Encode | Decode | Spell | Cancel
Reply = Ready | Token | Done | Value | Fault

_encoder = msgspec.msgpack.Encoder()


def frames(messages: Sequence[Request | Reply]) -> bytes:
    parts: list[bytes] = []
    for message in messages:
        body = _encoder.encode(message)
        parts += (len(body).to_bytes(4, "little"), body)
    return b"".join(parts)


def read_frame(stream: IO[bytes]) -> bytes | None:
    """The next frame's body; None at the end of the stream, also when it ends inside a frame."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    size = int.from_bytes(head, "little")
    body = stream.read(size)
    return body if len(body) == size else None
