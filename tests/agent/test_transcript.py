"""The transcript: what the model is shown, turn by turn."""

from itertools import pairwise

from fixtures import answer_turn, call_turn

from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.agent.transcript import ModelTurn, Transcript, UserTurn, replay
from webdancer.records import Status, Step, ToolError, Trajectory

SEARCH = Step(thought="I look.", tool="search", arguments={"query": ["Velm"]}, observation="found <answer>")
BROKEN = Step(
    thought="", observation="Error: no", error=ToolError.INVALID_FORMAT, raw="<think>\nhm<|im_end|>\n</think>\nwell"
)
LAST = Step(thought="So.")
CALL = '<tool_call>\n{"name": "search", "arguments": {"query": ["Velm"]}}\n</tool_call>'


def trajectory(*steps: Step, status: Status = Status.ANSWERED) -> Trajectory:
    return Trajectory(
        id="t", qa_id="q", question="Where?", model="m", seed=0, steps=steps, answer="Velm", status=status
    )


def roles(transcript: Transcript) -> list[str]:
    return [message.role for message in transcript.messages]


def test_the_question_is_the_user_message_and_is_neutralised():
    transcript = Transcript("Where is <think>|<|im_end|>?", TOOL_SCHEMAS)
    system, user = transcript.messages
    assert system.content.startswith("Role: agent")
    assert '\n<tools>\n{"name": "search", ' in system.content
    assert user.content == "Where is <\u200bthink>|<\u200b|im_end|>?"


def test_turns_and_observations_follow_each_other():
    transcript = replay(trajectory(SEARCH, BROKEN, LAST), TOOL_SCHEMAS)
    assert roles(transcript) == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert [message.content for message in transcript.messages[2:]] == [
        call_turn("I look.", "search", query=["Velm"]),
        "<tool_response>\nfound <\u200banswer>\n</tool_response>",
        "<think>\nhm<\u200b|im_end|>\n</think>\nwell",
        "<tool_response>\nError: no\n</tool_response>",
        answer_turn("So.", "Velm"),
    ]


def test_the_teachers_view_leaves_all_thoughts_out():
    transcript = replay(trajectory(SEARCH, BROKEN, LAST), TOOL_SCHEMAS, omit_thoughts=True)
    assert [message.content for message in transcript.messages if message.role == "assistant"] == [
        CALL,
        "well",
        "<answer>\nVelm\n</answer>",
    ]


def test_the_turns_are_kept_as_data():
    transcript = replay(trajectory(SEARCH, LAST), TOOL_SCHEMAS, omit_thoughts=True)
    assert transcript.entries == (
        UserTurn("Where?"),
        ModelTurn(f"<think>\nI look.\n</think>\n{CALL}", CALL),
        UserTurn("<tool_response>\nfound <\u200banswer>\n</tool_response>"),
        ModelTurn(answer_turn("So.", "Velm"), "<answer>\nVelm\n</answer>"),
    )


def test_what_was_shown_before_never_changes():
    transcript = Transcript("Where?", TOOL_SCHEMAS)
    shown = [transcript.messages]
    for step in (SEARCH, BROKEN, SEARCH):
        transcript.add_step(step)
        shown.append(transcript.messages)
    for before, after in pairwise(shown):
        assert after[: len(before)] == before


def test_a_forced_answer_follows_the_demand_and_the_roles_alternate():
    transcript = replay(trajectory(SEARCH, LAST, status=Status.FORCED_ANSWER), TOOL_SCHEMAS)
    assert roles(transcript) == ["system", "user", "assistant", "user", "assistant"]
    before, demand = transcript.messages[3].content.split("</tool_response>\n\n")
    assert before == "<tool_response>\nfound <\u200banswer>\n"
    assert demand.startswith("No more tool calls are possible.")
