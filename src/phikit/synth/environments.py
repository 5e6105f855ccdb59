"""Small text worlds whose goals can be checked (appendix D.3): Tower of Hanoi, two jugs, rooms with a key.

A state is frozen; `moves` names every legal action and the state it leads to, so a trajectory can be replayed and the
shortest solution is a breadth-first search. `State.text` is all an agent sees.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, ClassVar, Protocol, TypeVar

from phikit.records.types import Document

S = TypeVar("S", bound="State")


class State(Protocol):
    name: ClassVar[str]
    rules: ClassVar[str]

    @property
    def goal(self) -> str: ...
    @property
    def done(self) -> bool: ...
    @property
    def text(self) -> str: ...
    def moves(self: S) -> dict[str, S]: ...


@dataclass(frozen=True, slots=True)
class Hanoi:
    """`pegs`: disks of pegs A, B, C from bottom to top; 1 is the smallest."""

    pegs: tuple[tuple[int, ...], ...]
    name: ClassVar[str] = "hanoi"
    rules: ClassVar[str] = (
        "There are three pegs A, B and C. One move takes the top disk of a peg to another peg. A disk never lies on a "
        "smaller one."
    )

    @classmethod
    def start(cls, disks: int) -> Hanoi:
        return cls((tuple(range(disks, 0, -1)), (), ()))

    @property
    def goal(self) -> str:
        return "All disks are on peg C."

    @property
    def done(self) -> bool:
        return not self.pegs[0] and not self.pegs[1]

    @property
    def text(self) -> str:
        return "; ".join(
            f"peg {p}: " + (", ".join(f"disk {d}" for d in reversed(on)) + " (top first)" if on else "empty")
            for p, on in zip("ABC", self.pegs, strict=True)
        )

    def moves(self) -> dict[str, Hanoi]:
        found = {}
        for i, source in enumerate(self.pegs):
            for j, target in enumerate(self.pegs):
                if i != j and source and (not target or source[-1] < target[-1]):
                    pegs = list(self.pegs)
                    pegs[i], pegs[j] = source[:-1], (*target, source[-1])
                    found[f"move disk {source[-1]} from {'ABC'[i]} to {'ABC'[j]}"] = Hanoi(tuple(pegs))
        return found


@dataclass(frozen=True, slots=True)
class Jugs:
    """Two jugs without marks, by their sizes in litres."""

    sizes: tuple[int, int]
    wanted: int
    water: tuple[int, int] = (0, 0)
    name: ClassVar[str] = "jugs"
    rules: ClassVar[str] = (
        "There are two jugs without marks. One action fills a jug at the tap, empties it, or pours one into the other "
        "until the first is empty or the second is full."
    )

    @property
    def goal(self) -> str:
        return f"One jug holds exactly {self.wanted} litres."

    @property
    def done(self) -> bool:
        return self.wanted in self.water

    @property
    def text(self) -> str:
        return "; ".join(
            f"the {s}-litre jug holds {w} litres" for s, w in zip(self.sizes, self.water, strict=True)
        )

    def moves(self) -> dict[str, Jugs]:
        (a, b), (x, y) = self.sizes, self.water
        ab, ba = min(x, b - y), min(y, a - x)
        all_moves = {
            f"fill the {a}-litre jug": (a, y), f"fill the {b}-litre jug": (x, b), f"empty the {a}-litre jug": (0, y),
            f"empty the {b}-litre jug": (x, 0), f"pour the {a}-litre jug into the {b}-litre jug": (x - ab, y + ab),
            f"pour the {b}-litre jug into the {a}-litre jug": (x + ba, y - ba),
        }  # fmt: skip
        return {k: replace(self, water=w) for k, w in all_moves.items() if w != self.water}


@dataclass(frozen=True, slots=True)
class Rooms:
    """A row of named rooms; the key lies in one of them and opens the chest in another."""

    rooms: tuple[str, ...]
    at: int
    key: int  # -1: carried
    chest: int
    opened: bool = False
    name: ClassVar[str] = "rooms"
    rules: ClassVar[str] = (
        "The rooms lie in a row. One action goes to the room beside, takes the key where it lies, or opens the chest "
        "where it stands, if you carry the key."
    )

    @property
    def goal(self) -> str:
        return "The chest is open."

    @property
    def done(self) -> bool:
        return self.opened

    @property
    def text(self) -> str:
        row = ", ".join(self.rooms)
        key = "you carry the key" if self.key < 0 else f"the key lies in the {self.rooms[self.key]}"
        chest = f"the {'open' if self.opened else 'locked'} chest stands in the {self.rooms[self.chest]}"
        return f"the rooms are {row}; you are in the {self.rooms[self.at]}; {key}; {chest}"

    def moves(self) -> dict[str, Rooms]:
        found: dict[str, Rooms] = {}
        for to in (self.at - 1, self.at + 1):
            if 0 <= to < len(self.rooms):
                found[f"go to the {self.rooms[to]}"] = replace(self, at=to)
        if self.key == self.at:
            found["take the key"] = replace(self, key=-1)
        if self.key < 0 and self.at == self.chest and not self.opened:
            found["open the chest"] = replace(self, opened=True)
        return found


_WORLDS = {w.name: w for w in (Hanoi, Jugs, Rooms)}
_ROOMS = ("hall", "kitchen", "cellar", "study", "attic", "garden", "library", "stable")


def shortest(state: State, most: int = 40) -> int | None:
    """The number of actions of a shortest way to the goal; None where there is none of at most `most`."""
    seen, queue = {state}, deque([(state, 0)])
    while queue:
        at, steps = queue.popleft()
        if at.done:
            return steps
        if steps < most:
            for after in at.moves().values():
                if after not in seen:
                    seen.add(after)
                    queue.append((after, steps + 1))
    return None


def tasks(n: int, seed: int = 0) -> list[Document]:
    """n seeds for the agent flow, the environments in turn, no start twice (so fewer, where there are no more);
    `meta` holds `environment`, `start` and `shortest`."""
    found: dict[str, Document] = {}
    for document in islice(_tasks(random.Random(seed)), 50 * n):
        found.setdefault(document.id, document)
        if len(found) == n:
            break
    return list(found.values())


def _tasks(rng: random.Random) -> Iterator[Document]:
    while True:
        hanoi = Hanoi.start(rng.choice((2, 2, 3, 4)))
        for _ in range(rng.randrange(3)):
            hanoi = rng.choice(list(hanoi.moves().values()))
        sizes = tuple(sorted(rng.sample(range(2, 10), 2)))
        jugs = Jugs((sizes[0], sizes[1]), rng.randrange(1, sizes[1]))
        names = tuple(rng.sample(_ROOMS, rng.choice((3, 4, 5))))
        at, key, chest = (rng.randrange(len(names)) for _ in range(3))
        for state in (hanoi, jugs, Rooms(names, at, key, chest)):
            steps = shortest(state)
            if steps:
                meta = {"environment": state.name, "start": asdict(state), "shortest": steps}
                yield Document(f"{state.rules}\nNow: {state.text}.\nGoal: {state.goal}", "environment", meta)


def load(environment: str, start: dict[str, Any]) -> State:
    """The state of a seed made by `tasks`. Raises ValueError for an unknown environment."""
    if environment not in _WORLDS:
        raise ValueError(f"unknown environment {environment!r}; known: {', '.join(_WORLDS)}")
    return _WORLDS[environment](**{k: _tuples(v) for k, v in start.items()})


def _tuples(value: Any) -> Any:
    """Lists, as JSON gives them back, as the tuples they were."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
