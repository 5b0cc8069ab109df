"""Questions with their answers, read from lists of one's own, the release, verl's rows and our own records. Pure."""

from pydantic import BaseModel, JsonValue, StrictFloat, StrictInt, StrictStr, ValidationError

from webdancer.records import QA, QAKind, QASplit
from webdancer.trajectories.formats.conversation import RowError, first_problem, question_id

TAGS = {"crawlqa": QAKind.MULTI_HOP, "e2hqa": QAKind.EASY_TO_HARD}
"""The release's two kinds of questions. It does not part CRAWLQA further."""


class _Question(BaseModel):
    """A question of any source; fields not named here are read over."""

    question: str
    answer: StrictStr | StrictInt | StrictFloat
    id: StrictStr | StrictInt | None = None
    kind: QAKind | None = None
    tag: str | None = None
    evidence_urls: tuple[str, ...] | None = None
    parent_id: str | None = None
    num_rewrites: int | None = None
    split: QASplit | None = None


class _ChatMessage(BaseModel):
    role: str
    content: str


class _RewardModel(BaseModel):
    ground_truth: JsonValue


class _VerlRow(BaseModel):
    prompt: list[_ChatMessage]
    reward_model: _RewardModel
    extra_info: dict[str, JsonValue] | None = None


def parse_question(row: JsonValue, *, default_id: str) -> QA:
    """A question from an object with `question` and `answer`, and what else of a QA record is there.

    Without an id it gets one that follows from its text. Without a kind it counts as multi_hop.

    Raises:
        RowError: one of the two is missing or empty, or a field has another type.
    """
    try:
        found = _Question.model_validate(row)
    except ValidationError as error:
        raise RowError(first_problem(error)) from None
    question, answer = found.question, str(found.answer)
    if not question.strip() or not answer.strip():
        raise RowError(f"got an empty {'answer' if question.strip() else 'question'}, expected a text")
    return QA(
        id=question_id(question) if found.id is None else str(found.id),
        question=question,
        answer=answer,
        kind=found.kind or TAGS.get(found.tag or "", QAKind.MULTI_HOP),
        evidence_urls=found.evidence_urls or (),
        parent_id=found.parent_id,
        num_rewrites=found.num_rewrites or 0,
        split=found.split,
    )


def parse_verl(row: JsonValue, *, default_id: str) -> QA:
    """The question of a row of verl's: the last user message of its prompt, unless `extra_info` holds it.

    Raises:
        RowError: it is no such row, or its ground truth is no text.
    """
    try:
        found = _VerlRow.model_validate(row)
    except ValidationError as error:
        raise RowError(first_problem(error)) from None
    extra = found.extra_info or {}
    known = {key: value for key, value in extra.items() if key in _Question.model_fields}
    known["split"] = extra.get("qa_split")  # `split` is verl's own there: train or test
    asked = [message.content for message in found.prompt if message.role == "user"]
    if not asked and not known.get("question"):
        raise RowError(f"got a prompt of the roles {[m.role for m in found.prompt]}, expected a user's message")
    question = known.get("question") or asked[-1]
    return parse_question(
        {**known, "question": question, "answer": found.reward_model.ground_truth}, default_id=default_id
    )
