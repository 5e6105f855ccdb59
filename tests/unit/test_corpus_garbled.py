from __future__ import annotations

import base64
import random
import string
from collections import Counter

import numpy as np
import pytest

from phikit.corpus import quality
from phikit.corpus.garbled import WINDOW, coincidence, mojibake_share, noise_share

RNG = random.Random(3)
SENTENCE = (
    "the river ran past an old mill and under a bridge of stone where two boys were fishing for trout in the "
    "evening while their father read a letter that had come by the morning post from his brother in town"
)
PROSE = " ".join(RNG.choice(SENTENCE.split()) for _ in range(1200))


def jumbled(word: str) -> str:
    return "".join(RNG.sample(word, len(word)))


def letters(alphabet: str, n: int = 6000) -> str:
    return "".join(RNG.choice(alphabet) for _ in range(n))


NOISE = {
    "base64": base64.b64encode(RNG.randbytes(6000)).decode(),
    "hex": RNG.randbytes(3000).hex(),
    "letters and blanks": letters(string.ascii_lowercase + "    "),
    "letters of the prose in another order": jumbled(PROSE),
    "characters of a large alphabet": letters("".join(map(chr, range(0x4E00, 0x9FFF)))),
    "bytes read as Latin-1": RNG.randbytes(6000).decode("latin-1"),
}


@pytest.mark.parametrize("kind", NOISE)
def test_what_no_one_wrote_is_noise(kind):
    assert noise_share(NOISE[kind]) > 0.8  # few trigrams of base64 occur twice in a window, by chance more


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "".join(f"    if x[{i}] > {i % 7}:\n        return x[{i}] - {i}\n\n" for i in range(200)),
        "=" * 5000,
        "-----\n" * 900,
        "中文的文本没有空格，" * 300,
        "short",
        "",
    ],
)
def test_what_people_write_is_not(text):
    assert noise_share(text) == 0.0


def test_part_of_a_text_counts_as_part():
    half = PROSE[: 4 * WINDOW] + NOISE["base64"][: 4 * WINDOW]
    assert 0.4 < noise_share(half) < 0.6


def test_coincidence_is_that_of_its_definition():
    text = PROSE[:900]
    plain = [c for i, c in enumerate(text) if not i or c != text[i - 1]]

    def equal(things):
        n = len(things)
        return sum(c * (c - 1) for c in Counter(things).values()) / (n * (n - 1))

    expected = equal(list(zip(plain, plain[1:], plain[2:]))) / equal(plain) ** 3
    assert np.allclose(coincidence(text), [expected])


def test_utf8_read_in_another_code_is_told_from_accents():
    text = "Le garçon a mangé là-bas où l’été commençait déjà, « voilà » dit-il. " * 30
    for code in ("cp1252", "latin-1"):
        broken = text.encode().decode(code, "ignore")
        assert mojibake_share(broken) > 0.05
        assert quality.reason(broken, quality.TEXT)[0] in ("mojibake_share", "control_share")
    assert mojibake_share(text) == 0.0
    assert mojibake_share("Ångström, Ärger, ÀÉ, naïve, 100 £, 5 €") == 0.0


def test_a_jumbled_document_is_rejected_by_name():
    text = " ".join(jumbled(letters(string.ascii_lowercase, RNG.randint(2, 9))) for _ in range(800))
    name, _ = quality.reason(text, quality.TEXT)
    assert name in ("noise_share", "compression_ratio")
    assert quality.reason(text, {"noise_share": quality.TEXT["noise_share"]}) == (
        "noise_share",
        "1 is above 0.3",
    )
