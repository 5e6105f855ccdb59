"""Questions about people who do not exist ("Who is X?"), a named weakness of the report's model (section 8).

Names are put together from usual parts, so that they sound like any other; a list of known names keeps real ones
out. The right answer is to say that one does not know them. Questions about the model itself are its counterpart:
those it must answer.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence

from phikit.preference.rollouts import Question
from phikit.preference.unknown import Variants
from phikit.records.ids import content_id
from phikit.records.types import Dialog, Turn

_FIRST = (
    "Ada Adrian Alan Alba Amara Anders Anita Arlo Astrid Aurel Bea Bernard Bruno Carla Cedric Clara Conrad Daria "
    "Dario Edith Elias Elmar Emilia Enzo Esther Fabian Felix Fiona Gerda Gideon Hanna Henrik Ida Igor Ingrid Iris "
    "Jasper Joana Jonas Judith Kamil Karla Kilian Lara Leon Livia Lorenz Lucia Magnus Marek Marta Milan Mira "
    "Nadia Nils Nora Olaf Otto Paula Petra Quentin Rafael Renata Roman Rosa Samir Selma Silas Sonja Tamara Theo "
    "Tilda Ulrich Vera Viktor Wanda Willem Xenia Yara Yves Zora"
)
_BEGIN = (
    "Al Bar Bel Ber Bran Cal Cor Dar Del Dor Ed Fal Fen Gar Gel Hal Har Hol Jar Kal Kar Kel Lan Lor Mal Mar Mor "
    "Nor Ors Pel Quen Ral Ren Ros Sal Sel Sten Tal Ter Tor Ul Val Ver Vor Wal Wen Wil Yar Zel"
)
_FINAL = (
    "berg by den dorf feld ford gard hurst ik ing ko land ler ley lin man mont ner nik now rath ridge rov sen ska "
    "son stad strom ton vic ward wood zen"
)
FIRST, BEGIN, FINAL = _FIRST.split(), _BEGIN.split(), _FINAL.split()
MIDDLE = ("", "a", "e", "i", "o", "en", "in", "er", "and", "ol")

ASKS = (
    "Who is {name}?",
    "Who was {name}?",
    "Tell me about {name}.",
    "What is {name} known for?",
    "Give me a short biography of {name}.",
    "When was {name} born?",
    "What did {name}, the {role}, achieve?",
)
ROLES = (
    "chemist",
    "painter",
    "composer",
    "engineer",
    "novelist",
    "historian",
    "architect",
    "runner",
    "botanist",
)
REFUSALS = (
    "I don't know anyone called {name}. If you tell me where you came across the name, I can help with the context.",
    "I do not have any information about {name}, so I would rather not guess.",
    "I'm not familiar with {name}. It may be a private person, or the name may be spelled differently.",
    "I have no reliable information about a person called {name}.",
)
IDENTITY_ASKS = ("Who are you?", "What are you?", "What is your name?", "Who made you?", "Are you a human?")


def invented_names(seed: int, known: Collection[str] = ()) -> Iterator[str]:
    """An endless stream of different names ("Nora Feningdorf"). Names in `known` are left out, and so is every name
    that shares its family name with one of them (case is ignored)."""
    names = {n.lower() for n in known}
    families = {n.split()[-1] for n in names if n.split()}
    rng, seen = random.Random(seed), set()
    while True:
        family = rng.choice(BEGIN) + rng.choice(MIDDLE) + rng.choice(FINAL)
        name = f"{rng.choice(FIRST)} {family}"
        if name.lower() in names or family.lower() in families or name in seen:
            continue
        seen.add(name)
        yield name


def person_questions(count: int, seed: int, known: Collection[str] = ()) -> list[tuple[Question, Variants]]:
    """`count` questions about invented people, each with a refusal. They have no right answer (`Question.answer` is
    ""): see `preference.unknown`."""
    rng = random.Random(seed + 1)
    names = invented_names(seed, known)
    out = []
    for _ in range(count):
        name = next(names)
        asked = rng.choice(ASKS).format(name=name, role=rng.choice(ROLES))
        question = Question(content_id("person", asked), asked, "", "text")
        out.append((question, Variants("", rng.choice(REFUSALS).format(name=name))))
    return out


def identity_dialogs(name: str, maker: str, facts: Sequence[str] = ()) -> list[Dialog]:
    """Answers of the model about itself, so that "Who is ...?" is not refused where it is the one asked about."""
    about = " ".join([f"I am {name}, a language model made by {maker}.", *facts])
    answers = (about, about, f"My name is {name}.", f"I was made by {maker}.", f"No. {about}")
    return [
        Dialog((Turn("user", ask), Turn("assistant", answer)), "identity", {"kind": "identity"})
        for ask, answer in zip(IDENTITY_ASKS, answers)
    ]
