"""Units of measure that convert exactly: "150 minutes" is "2.5 hours", "5 cm" is not "5 m"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MONEY_SIGNS = "$\u20ac\u00a3\u00a5"


@dataclass(frozen=True, slots=True)
class Unit:
    """`scale` times a number in this unit is the number in the base unit of its kind."""

    kind: str
    scale: Fraction


# kind -> scale of the base unit -> names. Only names that mean nothing else in a word problem.
_TABLE: dict[str, dict[str, str]] = {
    "length": {"1": "m meter metre", "1/100": "cm centimeter centimetre", "1/1000": "mm millimeter millimetre",
               "1000": "km kilometer kilometre"},
    "imperial length": {"1": "inch inches", "12": "foot feet ft", "36": "yard yd", "63360": "mile mi"},
    "mass": {"1": "g gram gramme", "1000": "kg kilogram", "1/1000": "mg milligram"},
    "imperial mass": {"1": "ounce oz", "16": "pound lb lbs"},
    "volume": {"1": "liter litre", "1/1000": "ml milliliter millilitre"},
    "time": {"1": "second sec", "60": "minute min", "3600": "hour hr h", "86400": "day", "604800": "week"},
    "dollars": {"1": "$ dollar usd", "1/100": "cent \u00a2"},
    "euros": {"1": "\u20ac euro eur"},
    "sterling": {"1": "\u00a3 gbp"},
    "yen": {"1": "\u00a5 yen"},
}  # fmt: skip
_UNITS = {
    name: Unit(kind, Fraction(scale))
    for kind, scales in _TABLE.items()
    for scale, names in scales.items()
    for name in names.split()
}


def unit_of(words: str) -> Unit | None:
    """The unit that `words` begin with ("hours of work"), None where it is none that converts. Areas, volumes
    and rates ("cm^2", "miles per hour", "km/h") are none: their numbers are compared as they stand."""
    m = re.match(rf"([^\W\d_]+|[{MONEY_SIGNS}\u00a2])(.*)", words.strip().lower(), re.DOTALL)
    if m is None or re.match(r"\s*(?:\^|[23/]|per\b|an?\b|each\b)", m[2]):
        return None
    name = m[1]
    return _UNITS.get(name) or (_UNITS.get(name[:-1]) if name.endswith("s") and len(name) > 3 else None)
