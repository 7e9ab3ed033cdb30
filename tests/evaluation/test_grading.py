"""Only the answer that a text states counts, and it is compared as what it is: mathematics, a letter, characters."""

from __future__ import annotations

import pytest

from multiverse.evaluation.grading import Verdict, grade
from multiverse.harness.stated import stated


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("first \\boxed{3}, no: \\boxed{4}", "4"),
        ("The final answer is 12.", "12"),
        ("the final answer is $x = 3.5$. Done.", "x = 3.5"),
        ("**Answer:** 7\n", "7"),
        ("The answer is 3. No, wait: the answer is 4.", "4"),
        ("The answer is (C) because of that", "(C) because of that"),
        ("some numbers 3 4 5", None),
        ("the answer is 3" + " but wait" * 60, None),
        ("it is \\boxed{12", None),
        ("", None),
    ],
)
def test_the_answer_is_the_last_box_or_what_is_said_to_be_it(text: str, answer: str | None) -> None:
    assert stated(text) == answer


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("073", "73"),
        ("\\frac65", "\\frac{6}{5}"),
        ("\\frac{1}{2}", "0.5"),
        ("\\text{even}", "Even"),
        ("90^\\circ", "90"),
        ("x = 2", "2"),
        ("\\{1, 2\\}", "\\{2, 1\\}"),
        ("12\\pi", "\\pi \\cdot 12"),
        ("5x - 7y + 11z + 4 = 0", "5x-7y+11z+4=0"),
    ],
)
def test_answers_that_are_the_same_mathematically_are_right(expected: str, found: str) -> None:
    assert grade("math", expected, f"\\boxed{{{found}}}").verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("055", "51"),
        ("12", "2"),
        ("\\text{even}", "neve"),
        ("even", "neve"),
        ("\\frac{1}{2}", "2"),
        ("(1,2)", "(2,1)"),
        ("x^2", "x^3"),
    ],
)
def test_others_are_wrong(expected: str, found: str) -> None:
    graded = grade("math", expected, f"\\boxed{{{found}}}")
    assert (graded.verdict, graded.found) == (Verdict.WRONG, found)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So \\boxed{42}. I put it in \\boxed{}.", "42"),
        ("\\boxed{42} and then \\boxed{4", "42"),
        ("### Final Answer\n17", "17"),
        ("**Final Answer**\n\n$$\n17\n$$", "17"),
        ("Answer:\n\n17", "17"),
        ("The final answer is:\n\\[ 17 \\]\n", "17"),
        ("so <answer>17</answer>", "17"),
        ("\\boxed{3} was a try. <answer>17</answer>", "17"),
        ("<answer> \\boxed{17} </answer>", "17"),
        ("<answer></answer> Answer: 17", "17"),
        ("Answer: 27</s>", "27"),
        ("The answer is 27.<|im_end|>\n<|endoftext|>", "27"),
        ("\\boxed{3}, \\boxed{5}, and $\\boxed{7}$", "3, 5, 7"),
        ("\\boxed{42}\n\nFinal: \\boxed{42}", "42"),
        ("\\boxed{}", None),
        ("Answer:\n\n", None),
    ],
)
def test_the_answer_is_found_wherever_models_put_it(text: str, answer: str | None) -> None:
    assert stated(text, several=True) == answer


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("3, 5, 7", "\\boxed{3}, \\boxed{5}, \\boxed{7}"),
        ("9", "Final Answer: Each gets 9 apples"),
        ("2x(15x^2-4x+10)", "\\boxed{2x(15x\u00b2-4x+10)}"),
        ("10^{12}", "\\boxed{10\u00b9\u00b2}"),
        ("3200", "\\boxed{3\\,200}"),
        ("12345", "\\boxed{12\\,345}"),
        ("1000000", "\\boxed{1\u202f000\u202f000}"),
        ("10\\,000", "\\boxed{10000}"),
        ("50", "\\boxed{50\\%}"),
        ("50\\%", "\\boxed{50}"),
        ("-4", "\\boxed{\u22124}"),
        ("9", "\\boxed{9 \\text{ apples}}"),
        ("3200", "\\boxed{3{,}200}"),
    ],
)
def test_right_answers_in_other_dress_are_right(expected: str, text: str) -> None:
    assert grade("math", expected, text).verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("0", "\\boxed{10\\,000}"),
        ("357", "\\boxed{12\\,345}"),
        ("7", "\\boxed{3}, \\boxed{5}, \\boxed{7}"),
        ("9", "Final Answer: 9 of 12 apples"),
        ("9", "Final Answer: it is not 9 but more"),
        ("42", "There are 42 in all. \\boxed{}"),
        ("12", "\\boxed{1\\,2\\,3}"),
    ],
)
def test_no_wrong_answer_becomes_right_by_its_dress(expected: str, text: str) -> None:
    assert grade("math", expected, text).verdict is not Verdict.CORRECT


def test_of_several_choices_the_last_counts() -> None:
    assert grade("choice", "A", "\\boxed{A}, \\boxed{B}").verdict is Verdict.WRONG


@pytest.mark.parametrize(
    "text", ["\\boxed{C}", "\\boxed{\\text{(C)}}", "Answer: C", "The answer is (c).", "answer is **C**"]
)
def test_a_choice_is_known_by_its_letter(text: str) -> None:
    assert grade("choice", "C", text).verdict is Verdict.CORRECT
    assert grade("choice", "B", text).verdict is Verdict.WRONG


def test_a_word_is_no_letter() -> None:
    assert grade("choice", "C", "the answer is Carbon").verdict is Verdict.WRONG


def test_exact_answers_differ_by_a_character() -> None:
    assert grade("exact", "12", "Answer: 12").verdict is Verdict.CORRECT
    assert grade("exact", "12", "Answer: 12.0").verdict is Verdict.WRONG


def test_a_right_number_that_nobody_calls_the_answer_is_none() -> None:
    assert grade("math", "4005", "and then we get 4005").verdict is Verdict.NO_ANSWER
