"""Records: frozen, no unknown fields, adding up usage."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from webdancer.records import QA, Page, QAKind, Status, Step, Trajectory, Usage


def test_usage_adds_field_by_field() -> None:
    first = Usage(prompt_tokens=100, completion_tokens=7, llm_calls=1)
    second = Usage(prompt_tokens=20, completion_tokens=3, llm_calls=1, tool_calls=2)
    assert first + second == Usage(prompt_tokens=120, completion_tokens=10, llm_calls=2, tool_calls=2)
    each = Usage(**dict.fromkeys(Usage.model_fields, 3))  # no field is forgotten
    assert each + each == Usage(**dict.fromkeys(Usage.model_fields, 6))


def test_records_are_frozen() -> None:
    step = Step(thought="look")
    with pytest.raises(ValidationError, match="frozen"):
        step.thought = "other"  # type: ignore[misc]


def test_unknown_field_is_an_error() -> None:
    with pytest.raises(ValidationError) as caught:
        Step.model_validate({"thought": "look", "confidence": 0.5})
    assert caught.value.errors()[0]["loc"] == ("confidence",)
    assert caught.value.errors()[0]["type"] == "extra_forbidden"


def test_unknown_kind_is_an_error() -> None:
    values = {"id": "q", "question": "?", "answer": "1", "kind": "ordinal", "evidence_urls": []}
    with pytest.raises(ValidationError, match="'count', 'multi_hop', 'intersection' or 'easy_to_hard'"):
        QA.model_validate(values)


def test_trajectory_survives_json() -> None:
    steps = (
        Step(
            thought="search", tool="search", arguments={"query": ["Lunt", "桥"], "filter_year": 1990}, observation="…"
        ),
        Step(thought="done"),
    )
    trajectory = Trajectory(
        id="t", qa_id="q", question="Who?", model="m", seed=3, steps=steps, answer="Ada", status=Status.ANSWERED
    )
    assert Trajectory.model_validate_json(trajectory.model_dump_json()) == trajectory
    assert '"status":"answered"' in trajectory.model_dump_json()


def test_qa_kind_is_its_word_in_json() -> None:
    qa = QA(id="q", question="How many?", answer="7", kind=QAKind.COUNT, evidence_urls=("http://a.example/",))
    assert qa.model_dump(mode="json")["kind"] == "count"
    assert qa.num_rewrites == 0


def test_page_needs_the_time_it_was_fetched() -> None:
    page = Page(url="u", title="t", text="x", fetched_at=datetime(2025, 1, 1, tzinfo=UTC), content_hash="0")
    assert page.links == ()
    with pytest.raises(ValidationError, match="fetched_at"):
        Page.model_validate({"url": "u", "title": "t", "text": "x", "content_hash": "0"})
