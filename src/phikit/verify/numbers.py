"""One number with an optional unit: read exactly, as a fraction.

`0.5`, `1/2`, `\\frac{1}{2}`, `5e-1`, `5 \\times 10^{-1}` and "one half" as U+00BD are one value; `0.33` and `1/3`
are two. A unit that we can convert stays with the value, any other word is read over ("5 apples" is 5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from phikit.verify.units import MONEY_SIGNS, Unit, unit_of

NUMBER = r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|[-+]?(?:\d+\.\d+|\.\d+|\d+)"
_EXPONENT = r"[eE][-+]?\d{1,3}(?![\w])|\s*(?:\\times|\\cdot|x|\u00d7|\*)\s*10\s*\^\s*\{?[-+]?\d{1,3}\}?(?!\d)"
_VALUE = re.compile(
    rf"(?P<int>[-+]?\d+)\s+(?P<a>\d+)\s*/\s*(?P<b>[1-9]\d*)"  # 1 1/2
    rf"|(?P<top>{NUMBER})\s*/\s*(?P<bottom>{NUMBER})"
    rf"|(?P<plain>{NUMBER})(?P<exp>{_EXPONENT})?"
)
# A unit: words, degree and currency signs, powers as in "cm^2". Any other digit or operator means an expression.
# Possessive throughout: letters that could be split in many ways would take for ever where the text does not end here.
_UNIT = re.compile(
    r"\s*+(?P<percent>%|percent\b)?+(?P<words>\s*+(?:[^\W\d_]++(?:\^?[23])?+|[\u00b0$\u20ac\u00a3\u00a5'/ .-])*+)"
)
_CONNECTS = re.compile(r"\b(?:and|or|to|not|plus|minus|times|vs)\b", re.IGNORECASE)
_FRAC = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]+)\}\s*\{([^{}]+)\}|(\d)\s*(\d))")
_TEXT = re.compile(r"\\(?:text(?:bf|rm|it)?|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_VULGAR = dict(zip("\u00bd\u2153\u2154\u00bc\u00be\u215b", ("1/2", "1/3", "2/3", "1/4", "3/4", "1/8")))
_DIGITS = {0xFF10 + d: str(d) for d in range(10)}  # full-width digits
_SIGNS = dict.fromkeys((0x2212, 0xFE63, 0xFF0D, 0x2011), "-") | dict.fromkeys((0x00A0, 0x202F, 0x2009), " ")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_WORDS = {w: i for i, w in enumerate(_SMALL.split())}
_WORDS |= {w: 10 * i for i, w in enumerate(_TENS.split(), 3)}
_WORD = re.compile(
    rf"(?:{'|'.join(_WORDS)})\b(?![-\s](?:{'|'.join(_WORDS)}|hundred|thousand|million)\b)", re.IGNORECASE
)
MAX_LENGTH = 200  # of a text that can be one number with its unit


@dataclass(frozen=True, slots=True)
class Quantity:
    """`value` as written; `unit` where it is one that converts; `percent` where it is a percentage."""

    value: Fraction
    percent: bool = False
    unit: Unit | None = None


def plain_signs(text: str) -> str:
    """Unicode minus signs, odd blanks, full-width digits and vulgar fractions as ASCII; nothing else changes."""
    text = text.translate(_SIGNS | _DIGITS)
    for sign, fraction in _VULGAR.items():
        if sign in text:
            text = re.sub(rf"(?<=\d)\s*{sign}", f" {fraction}", text).replace(sign, fraction)
    return text


def parse(text: str) -> Quantity | None:
    """The quantity that a text is, as a whole; None where it is none (words, several numbers, an expression)."""
    if len(text) > MAX_LENGTH:
        return None
    text = unlatex(text)
    sign, text = _money_sign(text)
    text = _WORD.sub(lambda m: str(_WORDS[m[0].lower()]), text, count=1) if _WORD.match(text) else text
    match = _VALUE.match(text)
    if match is None:
        return None
    unit = _UNIT.fullmatch(text, match.end())
    if unit is None or _CONNECTS.search(unit["words"]):
        return None
    value = _value(match)
    if value is None:
        return None
    words = unit["words"].strip(" .")
    return Quantity(value, unit["percent"] is not None, unit_of(sign or words))


def same(a: Quantity, b: Quantity) -> bool:
    """Whether two quantities are equal. Where both have units that convert, they do; else units are read over.

    A percentage equals its number and its share, "50%" = "50" = "0.5", but two percentages must have equal
    numbers."""
    if a.percent != b.percent:
        share, other = (a, b) if a.percent else (b, a)
        return other.value in (share.value, share.value / 100)
    if a.unit and b.unit:
        return a.unit.kind == b.unit.kind and a.value * a.unit.scale == b.value * b.unit.scale
    return a.value == b.value


def unlatex(text: str) -> str:
    """A short answer without its markup: fractions as a/b, no \\text, no spacing commands, no dollar signs of
    math mode, no emphasis."""
    text = _TEXT.sub(r" \1", plain_signs(text))
    text = re.sub(r"(?<=\d)\s*(?=\\[dt]?frac)", " ", text)  # 3\\frac{1}{2} is a mixed number
    text = _FRAC.sub(lambda m: f"({m[1] or m[3]})/({m[2] or m[4]})", text)
    text = (
        text.replace("\\%", "%")
        .replace("\\$", "$")
        .replace("^\\circ", "\u00b0")
        .replace("^{\\circ}", "\u00b0")
    )
    text = re.sub(r"\\[!,;: ]|\\q?quad(?![a-z])", lambda m: "" if m[0] in ("\\!", "\\,") else " ", text)
    text = re.sub(r"(?<=\d)\{,\}(?=\d)", ",", text).strip()
    text = re.sub(r"\((-?[\d.,]+)\)", r"\1", text)
    text = re.sub(r"^\\[\(\[]|\\[\)\]]$", "", text).strip("*`_ \t\n").rstrip(".")
    return text.strip("$") if text.endswith("$") else text


def _money_sign(text: str) -> tuple[str, str]:
    """(sign, text without it): "$5" and "-$5"."""
    if m := re.match(rf"([-+]?)([{MONEY_SIGNS}])\s*(?=[\d.])", text):
        return m[2], m[1] + text[m.end() :]
    return "", text


def _value(match: re.Match[str]) -> Fraction | None:
    if match["int"] is not None:
        part, whole = Fraction(int(match["a"]), int(match["b"])), int(match["int"])
        return whole - part if match["int"].startswith("-") else whole + part
    if match["top"] is not None:
        bottom = _fraction(match["bottom"])
        return None if bottom == 0 else _fraction(match["top"]) / bottom
    value = _fraction(match["plain"])
    if match["exp"]:
        power = re.search(r"[-+]?\d+(?=\}?$)", match["exp"])
        assert power is not None
        value *= Fraction(10) ** int(power[0])
    return value


def _fraction(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))
