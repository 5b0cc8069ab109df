"""Pure metrics over evaluation results: pass@1 with its 95 % interval, overall and by group."""

import math
from collections.abc import Callable, Iterable, Sequence

from webdancer.records import EvalResult, Record

_Z95 = 1.959963984540054


class Score(Record):
    """How often a system was right."""

    pass_at_1: float
    """Share of questions answered rightly; unanswered ones count as wrong."""
    ci95: tuple[float, float]
    num_correct: int
    num_questions: int


def wilson_interval(num_correct: int, num_questions: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927); (0, 1) where nothing was asked.

    Unlike the normal approximation it stays inside [0, 1] and is honest near 0 and 1.
    """
    if num_questions == 0:
        return 0.0, 1.0
    share, z2 = num_correct / num_questions, _Z95 * _Z95
    centre = share + z2 / (2 * num_questions)
    spread = _Z95 * math.sqrt(share * (1 - share) / num_questions + z2 / (4 * num_questions * num_questions))
    scale = 1 + z2 / num_questions
    # At 0 and 1 the two terms cancel but for rounding: an end never crosses the share, nor leaves [0, 1].
    low, high = min(share, (centre - spread) / scale), max(share, (centre + spread) / scale)
    return max(0.0, low), min(1.0, high)


def score(outcomes: Sequence[bool]) -> Score:
    """Score of a list of outcomes, one a question."""
    num_correct, num_questions = sum(outcomes), len(outcomes)
    return Score(
        pass_at_1=num_correct / num_questions if num_questions else 0.0,
        ci95=wilson_interval(num_correct, num_questions),
        num_correct=num_correct,
        num_questions=num_questions,
    )


def score_by(results: Iterable[EvalResult], group: Callable[[EvalResult], str]) -> dict[str, Score]:
    """Scores by exact match of each group of results, groups in sorted order."""
    groups: dict[str, list[bool]] = {}
    for result in results:
        groups.setdefault(group(result), []).append(result.exact_match)
    return {name: score(groups[name]) for name in sorted(groups)}
