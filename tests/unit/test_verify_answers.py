"""math_answer, choice, text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phikit.verify import Verdict, choice, math_answer, text


@pytest.mark.parametrize(
    "completion, answer",
    [
        ("3 + 4 = 7. The answer is 7.", "7"),
        ("The answer is 5. No: the answer is 6.", "6"),
        ("The answer is 1,250 dollars. Then 3 more.", "1,250 dollars"),
        ("so \\boxed{\\frac{3}{4}} and 9", "\\frac{3}{4}"),
        ("work 1 2 3\n#### 42", "42"),
        ("first 3, then 8 left", "8"),
        ("The answer is $3.50.", "$3.50"),
        ("The answer is \\boxed{12}.", "12"),
        ("no number here", None),
        ("", None),
    ],
)
def test_extract_answer(completion, answer):
    assert math_answer.extract_answer(completion) == answer


@pytest.mark.parametrize(
    "a, b",
    [
        ("5", "5.0"), ("1,250", "1250"), ("1/2", "0.5"), ("\\frac{1}{2}", "0.5"), ("50%", "0.5"),
        ("50%", "50"),
        ("$3.50", "3.5"), ("5 apples", "5"), ("1 1/2", "1.5"), ("-3", "-3.0"), ("12 cm^2", "12"), ("7.", "7"),
        ("\\text{yes}", "Yes"), ("2.5e3", "2500"), ("$12$", "12"), ("-$4", "-4"),
    ],
)  # fmt: skip
def test_equal(a, b):
    assert math_answer.equal(a, b)
    assert math_answer.equal(b, a)


@pytest.mark.parametrize(
    "a, b",
    [
        ("5", "15"), ("15", "5"), ("1.5", "15"), ("0.33", "1/3"), ("5 and 6", "5"), ("50%", "5%"),
        ("-3", "3"),
        ("", ""), ("1,25", "125"), ("3 + 4", "3"), ("1/0", "0"), ("yes", "no"),
    ],
)  # fmt: skip
def test_not_equal(a, b):
    assert not math_answer.equal(a, b)
    assert not math_answer.equal(b, a)


@given(st.integers(-(10**9), 10**9))
def test_every_integer_is_read_back(n):
    assert math_answer.judge(f"So we get it. The answer is {n:,}.", str(n)) is Verdict.right
    assert math_answer.judge(f"So we get it. The answer is {n}.", str(n + 1)) is Verdict.wrong


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader(s):
    found = math_answer.extract_answer(s)
    assert found is None or isinstance(math_answer.equal(found, "1"), bool)


def test_judge_tells_unparsed_from_wrong():
    assert math_answer.judge("I do not know", "3") is Verdict.unparsed
    assert math_answer.judge("it is 4", "3") is Verdict.wrong


@pytest.mark.parametrize(
    "completion, letter",
    [
        ("B", "B"), ("(C)", "C"), ("B. Because", "B"), ("The answer is (D).", "D"), ("Answer: A", "A"),
        ("\\boxed{C}", "C"), ("I think (B) fits", "B"), ("A dog is an animal", None),
        ("the answer is a number", None),
        ("The answer is E", None), ("(A) or (B)", None), ("**Answer: B**", "B"),
    ],
)  # fmt: skip
def test_choice(completion, letter):
    assert choice.extract_choice(completion) == letter
    wanted = Verdict.unparsed if letter is None else Verdict.right
    assert choice.judge(completion, letter or "A") is wanted


def test_text_is_squad_style():
    assert text.normalize("The  Quick, brown-fox!") == "quick brownfox"
    assert text.exact_match("the Eiffel Tower.", ["Eiffel tower", "Paris"])
    assert not text.exact_match("Eiffel", ["Eiffel tower"])
    assert text.f1("Eiffel", ["Eiffel tower"]) == pytest.approx(2 / 3)
    assert text.f1("", ["x"]) == 0
    assert text.judge(" ...", ["x"]) is Verdict.unparsed
