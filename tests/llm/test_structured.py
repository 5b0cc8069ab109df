"""JSON out of what models write around it, and asking again."""

import pytest
from fixtures import ScriptedModel
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from webdancer.errors import ModelError
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.llm.structured import MalformedReply, UnusableReply, ask_json, find_object


class Reply(BaseModel):
    reason: str
    correct: bool


class Many(BaseModel):
    questions: list[Reply]


GOOD = '{"reason": "same city", "correct": true}'
EXPECTED = Reply(reason="same city", correct=True)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"Here is my verdict:\n```json\n{GOOD}\n```\nI hope {{this}} helps.",
        f'<think>The form is {{"reason": "x", "correct": false}}, so</think>\n{GOOD}',
        f"no opening tag, as some templates have it</think>{GOOD}",
        f"<think>only a thought: {GOOD}</think>",
        f"\\boxed{{{GOOD}}}",
        f"Set notation {{a, b}} and {{}}: {GOOD}",
        f"{GOOD}\n\nAgain: {GOOD}",  # twice the same is one
        '{"reason": "same city", "correct": true, "confidence": {"value": 1}}',
        '{ \n "correct": true,\r\n\t"reason": "same city" }',
        "\ufeff" + GOOD,
    ],
)
def test_object_is_found(text: str) -> None:
    assert find_object(text, Reply) == EXPECTED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r'{"reason": "braces } { and \" quotes", "correct": true}', 'braces } { and " quotes'),
        ('{"reason": "two\nlines", "correct": true}', "two\nlines"),
        ('{"reason": "a </think> inside", "correct": true}', "a </think> inside"),
        ('{"reason": "```json", "correct": true}', "```json"),
        (r'{"reason": "\u6865 桥", "correct": true}', "桥 桥"),
    ],
)
def test_strings_are_not_mistaken_for_structure(text: str, reason: str) -> None:
    assert find_object(text, Reply) == Reply(reason=reason, correct=True)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "It holds no JSON object."),
        ("I cannot say.", "It holds no JSON object."),
        ("[1, 2]", "It holds no JSON object."),
        ('{"reason": "same city", "corr', "Its JSON object has no end: a closing brace or quotation mark is missing."),
        (
            '{"reason": "a", "correct": true',
            "Its JSON object has no end: a closing brace or quotation mark is missing.",
        ),
        ('{"reason": "a"}', "Its JSON object does not have the form asked for: `correct`: Field required."),
        ('{"reason": 3, "correct": true}', "`reason`: Input should be a valid string"),
        ('{"reason": "a", "correct": True}', "Its JSON is not valid: Expecting value near"),
        ('{"reason": "a", "correct": NaN}', "NaN is no JSON value"),
        (
            f'{GOOD} or rather {{"reason": "other city", "correct": false}}',
            "It holds 2 different JSON objects that fit",
        ),
        ('{"questions": [' + GOOD + "}", "Its JSON is not valid"),  # the inner object does not count
    ],
)
def test_problem_is_told(text: str, problem: str) -> None:
    with pytest.raises(UnusableReply) as caught:
        find_object(text, Reply)
    assert problem in str(caught.value)


@pytest.mark.parametrize("text", ['{"a":' * 50_000, '{"a":' * 3000 + "1" + "}" * 3000, '{"' * 50_000, "{" * 100_000])
def test_hostile_depth_ends_in_a_problem(text: str) -> None:
    with pytest.raises(UnusableReply):
        find_object(text, Reply)


@given(st.text())
def test_any_text_gives_an_object_or_a_problem(text: str) -> None:
    with pytest.raises(UnusableReply):
        find_object(text, Reply)


@given(st.text(), st.booleans())
def test_any_string_survives(reason: str, correct: bool) -> None:
    reply = Reply(reason=reason, correct=correct)
    assert find_object(f"Well,\n```\n{reply.model_dump_json()}\n```", Reply) == reply


async def test_first_good_reply_is_taken() -> None:
    model = ScriptedModel([GOOD])
    sampling = Sampling(temperature=0.3, seed=4)
    assert await ask_json(model, "Judge this.", Reply, sampling=sampling, max_reasks=2) == EXPECTED
    assert model.calls == [((Message("user", "Judge this."),), sampling)]


async def test_bad_reply_is_shown_again_with_what_was_wrong() -> None:
    model = ScriptedModel(["Yes.", '{"reason": "same city"}', GOOD])
    assert await ask_json(model, "Judge this.", Reply, sampling=Sampling(), max_reasks=2) == EXPECTED
    last = model.calls[-1][0]
    assert [message.role for message in last] == ["user", "assistant", "user", "assistant", "user"]
    assert last[1].content == "Yes."
    assert last[2].content.startswith("Your reply could not be used: It holds no JSON object.")
    assert last[3].content == '{"reason": "same city"}'
    assert "`correct`: Field required" in last[4].content


async def test_reply_that_was_cut_off_is_told_so() -> None:
    model = ScriptedModel([ChatReply('{"reason": "same', finish="length"), GOOD])
    await ask_json(model, "Judge this.", Reply, sampling=Sampling(), max_reasks=1)
    assert "The reply was cut off because it was too long: be shorter." in model.calls[1][0][2].content


async def test_empty_reply_is_shown_as_such() -> None:
    model = ScriptedModel(["", GOOD])
    await ask_json(model, "Judge this.", Reply, sampling=Sampling(), max_reasks=1)
    assert model.calls[1][0][1] == Message("assistant", "(empty reply)")


@pytest.mark.parametrize("max_reasks", [0, 2])
async def test_asking_ends_with_an_error(max_reasks: int) -> None:
    model = ScriptedModel(["No."] * 9, name="m")
    with pytest.raises(MalformedReply) as caught:
        await ask_json(model, "Judge this.", Reply, sampling=Sampling(), max_reasks=max_reasks)
    assert len(model.calls) == max_reasks + 1
    assert str(caught.value) == (
        f"model 'm' gave no usable Reply in {max_reasks + 1} replies: It holds no JSON object. Its last reply began: 'No.'"
    )


async def test_failing_model_is_not_asked_again() -> None:
    model = ScriptedModel([ModelError("down"), GOOD])
    with pytest.raises(ModelError, match="down"):
        await ask_json(model, "Judge this.", Reply, sampling=Sampling(), max_reasks=2)
    assert len(model.calls) == 1
