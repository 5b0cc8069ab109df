"""Scores against values computed by hand or taken from tables."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webdancer.eval.metrics import score, score_by, wilson_interval
from webdancer.records import EvalResult, QAKind, Status


def test_wilson_interval_agrees_with_published_values() -> None:
    # Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@example(0, 125)
@given(st.integers(0, 500), st.integers(1, 500))
def test_interval_holds_the_share(num_correct: int, extra: int) -> None:
    num_questions = num_correct + extra
    low, high = wilson_interval(num_correct, num_questions)
    assert 0 <= low <= num_correct / num_questions <= high <= 1


def test_nothing_asked() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert score([]).pass_at_1 == 0.0


def result(number: int, kind: QAKind, right: bool, status: Status = Status.ANSWERED) -> EvalResult:
    return EvalResult(
        id=f"s/{number}", system="s", qa_id=str(number), kind=kind, num_rewrites=0, answer="x", correct=right,
        exact_match=right, status=status,
    )  # fmt: skip


def test_failures_stay_in_the_denominator() -> None:
    results = [
        result(1, QAKind.COUNT, True),
        result(2, QAKind.COUNT, False, Status.MODEL_ERROR),
        result(3, QAKind.MULTI_HOP, True),
        result(4, QAKind.COUNT, False, Status.STEP_LIMIT),
    ]
    scores = score_by(results, lambda r: r.kind)
    assert list(scores) == ["count", "multi_hop"]
    assert (scores["count"].num_correct, scores["count"].num_questions) == (1, 3)
    assert scores["count"].pass_at_1 == pytest.approx(1 / 3)
    assert scores["multi_hop"].pass_at_1 == 1.0
