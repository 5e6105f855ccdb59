import codecs

from hypothesis import given
from hypothesis import strategies as st

from phikit.engine.pieces import Pieces


def say(data: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], Pieces]:
    pieces = Pieces(stop)
    said = []
    for one in data:
        said.append(pieces.add(one))
        if pieces.stopped:
            return said, pieces
    said.append(pieces.end())
    return said, pieces


def test_a_character_comes_when_its_last_byte_does():
    said, pieces = say([b"a\xf0\x9f", b"\x99", b"\x82b"])
    assert said == ["a", "", "\U0001f642b", ""]
    assert pieces.text == "a\U0001f642b"
    assert say([b"x\xe2\x82"])[0] == ["x", "\ufffd"]


def test_what_may_begin_a_stop_string_is_held_back():
    said, pieces = say([b"one\n", b"\nU", b"ser", b": hi"], ("\n\nUser:",))
    assert said == ["one", "", "", ""]
    assert (pieces.text, pieces.stopped) == ("one", True)
    said, pieces = say([b"one\n", b"\nU", b"x"], ("\n\nUser:",))
    assert said == ["one", "", "\n\nUx", ""]
    assert not pieces.stopped
    assert say([b"one\n", b"\nU"], ("\n\nUser:",))[0] == ["one", "", "\n\nU"]


def test_the_earliest_of_several_stop_strings_cuts():
    assert say([b"abcdef"], ("ef", "cd"))[1].text == "ab"
    assert say([b"ab", b"cd"], ("", "bc"))[1].text == "a"


@given(st.binary(max_size=40), st.lists(st.integers(1, 5), min_size=40, max_size=40))
def test_any_cut_of_any_bytes_gives_the_decoded_text(data, sizes):
    parts, at = [], 0
    for n in sizes:
        parts.append(data[at : at + n])
        at += n
    said, pieces = say(parts)
    whole = codecs.decode(data, "utf-8", "replace")
    assert "".join(said) == pieces.text == whole


@given(
    st.lists(st.text("ab\u00e9", max_size=4), max_size=12),
    st.lists(st.text("ab\u00e9", min_size=1, max_size=3), max_size=3),
)
def test_stop_strings_cut_where_they_first_begin_among_those_complete(words, stop):
    said, pieces = say([w.encode() for w in words], tuple(stop))
    assert "".join(said) == pieces.text
    assert not any(s in pieces.text for s in stop)
    whole = "".join(words)
    assert whole.startswith(pieces.text)
    assert pieces.stopped == any(s in whole for s in stop)
    if not pieces.stopped:
        assert pieces.text == whole
