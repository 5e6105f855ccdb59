import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phikit.ask.grammar import schema_grammar
from phikit.ask.repair import find_json
from phikit.ask.structured import ReadCounts, problems, read_json

SCHEMA = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "minLength": 1},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
    },
    "required": ["question", "score"],
}


@pytest.mark.parametrize(
    "text, value, repairs",
    [
        ('{"a": [1, 2.5, true, null]}', {"a": [1, 2.5, True, None]}, ()),
        ('Sure!\n```json\n{"a": 1}\n```\nHope it helps', {"a": 1}, ("fence",)),
        ('The answer: {"a": 1}. Bye', {"a": 1}, ("prose",)),
        ("{'a': 'it\\'s', 'b': True}", {"a": "it's", "b": True}, ("python_word", "single_quotes")),
        ('{"a": [1, 2,], }', {"a": [1, 2]}, ("trailing_comma",)),
        ('{"a": 1 "b": [1 2]}', {"a": 1, "b": [1, 2]}, ("missing_comma",)),
        ('{a: yes, "b": 2}', {"a": "yes", "b": 2}, ("bare_word",)),
        ('{"a": "one\ntwo"}', {"a": "one\ntwo"}, ("newline_in_string",)),
        ('{"a": [1, {"b": "cut he', {"a": [1, {"b": "cut he"}]}, ("cut_end",)),
        ('{"a": 1, "b', {"a": 1}, ("cut_end",)),
        ('{"a": 1, "b":', {"a": 1}, ("cut_end",)),
        ('{"a": "\\u00e9 \\n"', {"a": "\u00e9 \n"}, ("cut_end",)),
    ],
)
def test_common_faults_are_mended_and_named(text, value, repairs):
    assert find_json(text) == (value, repairs)


@pytest.mark.parametrize("text", ["", "no json here", "42", "[" * 500, '{"a" 1}', "{:}"])
def test_what_cannot_be_read_is_an_error(text):
    with pytest.raises(ValueError, match=r"JSON|expected|unexpected"):
        find_json(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4))
def test_valid_json_is_read_as_it_is_also_inside_prose(value):
    assert find_json(json.dumps(value)) == (value, ())
    assert find_json("Here you are: " + json.dumps(value) + " Done")[0] == value


@given(st.text(alphabet="{}[]\"',:ab1 \\\n-.tru", max_size=40))
def test_no_text_makes_the_reader_hang_or_crash(text):
    try:
        value, _ = find_json(text)
    except ValueError:
        return
    assert isinstance(value, (dict, list))


def test_read_json_counts_good_repaired_and_dropped():
    counts = ReadCounts()
    good = '{"question": "q", "score": 4}'
    assert read_json(good, SCHEMA, counts) == {"question": "q", "score": 4}
    assert read_json('{"question": "q", "score": "4",}', SCHEMA, counts) == {"question": "q", "score": 4}
    for bad in ("none", '{"question": "q"}', '{"question": "q", "score": 9}', '{"question": "", "score": 1}'):
        assert read_json(bad, SCHEMA, counts) is None
    assert (counts.good, counts.repaired, counts.repairs) == (1, 1, {"trailing_comma": 1})
    assert counts.dropped == {"no_json": 1, "bad_schema": 3}


def test_problems_name_the_path():
    found = problems({"question": 1, "score": True, "tags": ["a", 2]}, SCHEMA)
    assert found == [
        "$.question: expected string, got int",
        "$.score: expected integer, got bool",
        "$.tags[1]: expected string, got int",
    ]
    assert problems("c", {"enum": ["a", "b"]})
    assert problems({"x": 1}, {"type": "object", "additionalProperties": False}) == [
        "$: unknown property 'x'"
    ]
    with pytest.raises(ValueError, match=r"\$: unknown keywords \['oneOf'\]"):
        problems(1, {"oneOf": []})


def test_a_schema_without_a_grammar_is_an_error():
    with pytest.raises(ValueError, match="root-0: type None"):
        schema_grammar({"type": "object", "properties": {"a": {}}})
