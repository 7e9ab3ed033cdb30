"""The restructured reasoning has to come to the answer of the original, in whatever notation."""

from __future__ import annotations

import threading

import pytest

from multiverse.curator.checks.answer import Agreement, check_answer, compare_answers, compare_with


@pytest.mark.parametrize(
    ("original", "text", "expected"),
    [
        (r"So \boxed{138}.", r"Thus it is \boxed{138}", Agreement.AGREES),
        (r"So \boxed{138}.", r"Thus it is \boxed{139}", Agreement.DIFFERS),
        (r"So $\boxed{\frac{1}{2}}$.", r"It is $\boxed{0.5}$.", Agreement.AGREES),
        (r"So $\boxed{\frac{1}{2}}$.", r"It is $\boxed{\frac{1}{3}}$.", Agreement.DIFFERS),
        (r"So \boxed{138}.", "Nothing is said.", Agreement.DIFFERS),
        (r"It is \boxed{\text{Paris}}.", r"So \boxed{Paris}.", Agreement.AGREES),
        (r"It is \boxed{\text{Paris}}.", r"So \boxed{Rome}.", Agreement.DIFFERS),
        (r"So \boxed{138}.", r"138 was the first try. So \boxed{}.", Agreement.DIFFERS),
        (r"So \boxed{138}. I put it in \boxed{}.", r"Thus \boxed{138}", Agreement.AGREES),
        (r"So \boxed{138}.", "### Final Answer\n138", Agreement.AGREES),
        (r"So \boxed{10\,000}.", r"So \boxed{0}.", Agreement.DIFFERS),
        (r"So \boxed{10\,000}.", r"So \boxed{10000}.", Agreement.AGREES),
        ("We do not know.", "Nor do we.", Agreement.NOT_STATED),
        ("The total is 47.", "Hence the total is 47.", Agreement.AGREES),
    ],
)
def test_answers_are_compared_as_mathematics_else_as_text(original: str, text: str, expected: Agreement) -> None:
    assert compare_answers(original, text) is expected


def test_the_reason_names_both_answers() -> None:
    reason = check_answer(r"So \boxed{138}.", r"Thus \boxed{139}")
    assert reason == ["the answer has changed: it must be 138, it now is 139"]


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("138", r"\boxed{138}", Agreement.AGREES),
        ("1/2", r"$\boxed{\frac{1}{2}}$", Agreement.AGREES),
        ("140", r"\boxed{138}", Agreement.DIFFERS),
        ("140", r"140 pieces. \boxed{}", Agreement.NOT_STATED),
        ("140", "there are 138 pieces in 3 crates", Agreement.NOT_STATED),
        ("a proof", r"\boxed{138}", Agreement.NOT_STATED),
    ],
)
def test_the_chain_has_to_agree_with_the_answer_of_the_input_where_both_can_be_read(
    answer: str, text: str, expected: Agreement
) -> None:
    assert compare_with(answer, text) is expected


def test_answers_can_be_compared_outside_of_the_main_thread() -> None:
    found: list[Agreement] = []
    thread = threading.Thread(target=lambda: found.append(compare_answers(r"\boxed{\frac12}", r"\boxed{0.5}")))
    thread.start()
    thread.join()
    assert found == [Agreement.AGREES]
