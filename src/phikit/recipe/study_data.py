"""`phikit study revision | repetition | synthetic-only`: what the report's data ablations show in a closed world.

revision        a small teacher's answers as they come, validated, self-revised, and both, at equal tokens (section 2.2)
repetition      a fixed set of synthetic text seen 4 or 12 times, the rest fresh web, from one web model (figure 2)
synthetic-only  synthetic text alone, with web rewrites, and mixed with web (table 3)

Every arm of a study processes the same number of tokens with the recipe's own trainer and is asked the same held-out
items with the same seeds, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

SEEDS = (1, 2, 3)  # named before any of them was run
TUNE = 101  # sizes and rates were chosen on it; it is in no result


ANSWERS = -1


@dataclass(frozen=True)
class Part:
    """A share of the tokens: from a fixed set of `unique` tokens, repeated; with 0 fresh at every draw, with `ANSWERS`
    from the answers of the teacher."""

    share: float
    unique: int = 0


@dataclass(frozen=True)
class Arm:
    """`parts` by source; `base`: the model that is trained on, "" for a new one."""

    name: str
    parts: Mapping[str, Part]
    base: str = ""


@dataclass(frozen=True)
class Study:
    """`tokens` of each arm; `contrasts`: the pairs (a, b) whose differences are shown, and what they are to tell."""

    name: str
    tokens: int
    arms: Sequence[Arm]
    contrasts: Sequence[tuple[str, str, str]]


WEB = Arm("web model", {"web": Part(1.0)})
WEB_TOKENS = 120_000  # the model that arms with base "web" begin with
TEACHER = Arm("teacher", {"synthetic": Part(0.8), "web": Part(0.2)}, "web")
TEACHER_TOKENS = 200_000  # right in one answer of seven, on seed TUNE

SET = 15_000  # tokens of the synthetic set that is repeated
HORIZON = 17 * SET  # 16, and the padding of packed rows

REPETITION = Study(
    "repetition",
    HORIZON,
    (
        Arm("web only", {"web": Part(1.0)}, "web"),
        Arm("4 times", {"synthetic": Part(0.25, SET), "web": Part(0.75)}, "web"),
        Arm("12 times", {"synthetic": Part(0.75, SET), "web": Part(0.25)}, "web"),
        Arm("once", {"synthetic": Part(0.75), "web": Part(0.25)}, "web"),
    ),
    (
        ("12 times", "4 times", "figure 2: more repetitions of synthetic text, or more fresh web"),
        ("4 times", "web only", "any synthetic text"),
        ("once", "12 times", "what repeating costs: as much synthetic text, all of it new"),
    ),
)  # fmt: skip

SYNTHETIC_ONLY = Study(
    "synthetic-only",
    21 * SET,
    (
        Arm("mixed", {"synthetic": Part(0.5, SET), "web": Part(0.5)}),
        Arm("synthetic", {"synthetic": Part(1.0, SET)}),
        Arm("synthetic and rewrites", {"synthetic": Part(0.5, SET), "rewrites": Part(0.5, SET // 2)}),
        Arm("web", {"web": Part(1.0)}),
    ),
    (
        ("synthetic", "mixed", "table 3, first row: reasoning up, knowledge down"),
        ("synthetic and rewrites", "mixed", "table 3, second row: less so"),
        ("mixed", "web", "what synthetic text adds to a web"),
    ),
)

_SHARE = 0.8  # of the tokens; the rest is web, as in the teacher's own training
REVISION = Study(
    "revision",
    150_000,
    tuple(
        Arm(name, {source: Part(_SHARE, ANSWERS), "web": Part(1 - _SHARE)}, "web")
        for name, source in (
            ("as it comes", "raw"),
            ("validated", "validated"),
            ("self-revised", "revised"),
            ("self-revised, validated", "revised_validated"),
        )
    )
    + (Arm("by program", {"gold": Part(_SHARE, ANSWERS), "web": Part(1 - _SHARE)}, "web"),),
    (
        ("validated", "as it comes", "validation alone"),
        ("self-revised", "as it comes", "self-revision alone"),
        ("self-revised, validated", "as it comes", "both"),
        ("self-revised, validated", "validated", "self-revision, where there is validation"),
        ("by program", "self-revised, validated", "what a perfect teacher would add"),
    ),
)
STUDIES = {s.name: s for s in (REVISION, REPETITION, SYNTHETIC_ONLY)}


def data_study(study: Study, out: Path, seeds: Sequence[int] = SEEDS) -> int:
    """Runs a study into `out`; what is done is not done again. The web model of a seed is shared by the studies
    (`out.parent / data`). Tables are written again after every arm; exit code 0 when all are done, whatever they
    show."""
    from phikit.recipe.study_data_seed import DataSeed
    from phikit.recipe.study_data_show import publish

    done = []
    for number in seeds:
        seed = DataSeed(number, study, out / f"seed-{number}", out.parent / "data" / f"seed-{number}")
        for arm in study.arms:
            seed.measured(arm)
        done.append(seed)
        publish(study, out, done)
    return 0


revision = partial(data_study, REVISION)
repetition = partial(data_study, REPETITION)
synthetic_only = partial(data_study, SYNTHETIC_ONLY)
