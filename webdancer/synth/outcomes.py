"""What becomes of a page group: the questions written from it, and why each of them was kept, dropped or never came.

Every group ends as one `GroupOutcome` in `qa_groups.jsonl`; the files for later stages are a pure function of those.
"""

from enum import StrEnum

from webdancer.records import QA, QAKind, Record


class DropReason(StrEnum):
    """Why a question that was written is not used."""

    # the question by itself
    NOT_A_QUESTION = "not_a_question"
    REFERS_TO_PAGE = "refers_to_page"
    EMPTY_ANSWER = "empty_answer"
    LONG_ANSWER = "long_answer"
    NOT_A_NUMBER = "not_a_number"
    LEAKS_ANSWER = "leaks_answer"
    EVIDENCE_OUTSIDE = "evidence_outside"
    """It names an evidence page that was not among the pages given."""
    TOO_FEW_PAGES = "too_few_pages"
    TOO_FEW_REWRITES = "too_few_rewrites"
    # what a system without an agent makes of it
    EASY_CLOSED_BOOK = "easy_closed_book"
    EASY_ONE_SEARCH = "easy_one_search"
    EASY_CHECK_FAILED = "easy_check_failed"
    """The endpoint or the search failed, so that nobody knows whether it is easy."""
    # beside the other questions
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    PAGES_TOO_COMMON = "pages_too_common"
    """So many questions need the very same pages already."""
    ANSWER_TOO_COMMON = "answer_too_common"
    SURPLUS = "surplus"
    """A good question, but the aim was reached before it."""


class FailReason(StrEnum):
    """Why a page group brought no question at all."""

    NO_QUESTION = "no_question"
    MALFORMED = "malformed"
    MODEL_ERROR = "model_error"


class Candidate(Record):
    """One question that was written, with what its own checks say."""

    qa: QA
    reason: DropReason | None = None
    detail: str = ""
    lineage: tuple[QA, ...] = ()
    """For easy_to_hard: the questions that it was rewritten from, the simple one first, itself left out."""


class GroupOutcome(Record):
    """All that came of one page group."""

    id: str
    """`PREFIXKIND-INDEX`"""
    kind: QAKind
    urls: tuple[str, ...]
    candidates: tuple[Candidate, ...] = ()
    failure: FailReason | None = None
    detail: str = ""


class DroppedQA(Record):
    """One question that is not used, and why."""

    id: str
    question: str
    kind: QAKind
    reason: DropReason
    detail: str = ""
