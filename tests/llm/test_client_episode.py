"""Whole episodes of the agent over HTTP, in the ways that endpoints think and call."""

import pytest
from asking import opened
from fixtures import MemoryWeb, ScriptedModel, make_page
from http_script import completion, delta, endpoint, http, stream, usage_chunk

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import Sampling
from webdancer.records import CotMode, Status, ToolError, Trajectory

LUNT = make_page("http://w.example/Ada_Lunt", "Ada Lunt", "Ada Lunt was born in Velm.")
ARGUMENTS = '{"query": ["Ada Lunt"]}'
TEXT_CALL = f'<tool_call>\n{{"name": "search", "arguments": {ARGUMENTS}}}\n</tool_call>'
NATIVE_CALL = [{"index": 0, "id": "x", "type": "function", "function": {"name": "search", "arguments": ARGUMENTS}}]
ANSWER = "<think>\nThe page says so.\n</think>\n<answer>\nVelm\n</answer>"


async def run(model: OpenAIChatModel, *, mode: CotMode, sampling: Sampling | None = None) -> Trajectory:
    agent = AgentSettings()
    web = MemoryWeb({LUNT.url: LUNT})
    async with model:
        return await run_episode(
            model,
            Toolbox(web, web, ScriptedModel([]), agent),
            trajectory_id="t",
            qa_id="q",
            question="Where was Ada Lunt born?",
            settings=agent,
            mode=mode,
            sampling=sampling or Sampling(),
            seed=5,
            omit_thoughts=mode is CotMode.LONG,
        )


async def test_native_calls_make_the_same_trajectory_as_calls_in_text() -> None:
    native = [
        http(200, completion("I look.", finish="tool_calls", tool_calls=NATIVE_CALL)),
        http(200, completion("It is Velm.")),  # neither a call nor an answer
        http(200, completion(ANSWER)),
    ]
    text = [
        http(200, completion(f"<think>\nI look.\n</think>\n{TEXT_CALL}")),
        *native[1:],
    ]
    async with endpoint(native) as server:
        first = await run(opened(server, tools="native"), mode=CotMode.SHORT)
    async with endpoint(text) as other:
        second = await run(opened(other), mode=CotMode.SHORT)
    assert (first.status, first.answer) == (Status.ANSWERED, "Velm")
    assert [(step.tool, step.thought, step.error) for step in first.steps] == [
        ("search", "I look.", None),
        (None, "", ToolError.INVALID_FORMAT),
        (None, "The page says so.", None),
    ]
    assert [step.model_copy(update={"seconds": 0.0}) for step in first.steps] == [
        step.model_copy(update={"seconds": 0.0}) for step in second.steps
    ]
    roles = [[message["role"] for message in body["messages"]] for body in (server.bodies[2], other.bodies[2])]
    assert roles == [
        ["system", "user", "assistant", "tool", "assistant", "user"],
        ["system", "user", "assistant", "user", "assistant", "user"],
    ]
    assert "no_action" in server.bodies[2]["messages"][-1]["content"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_reasoning_is_the_thought_and_is_not_sent_again(is_stream: bool) -> None:
    turns = [("I look.", TEXT_CALL), ("Found.", "<answer>Velm</answer>")]
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    answers = [
        stream(delta(reasoning_content=thought), delta(content=action), delta("stop"), usage_chunk(**usage))
        if is_stream
        else http(200, completion(action, reasoning_content=thought))
        for thought, action in turns
    ]
    async with endpoint(answers) as server:
        trajectory = await run(opened(server, stream=is_stream), mode=CotMode.LONG)
    assert (trajectory.status, trajectory.mode) == (Status.ANSWERED, CotMode.LONG)
    assert [step.thought for step in trajectory.steps] == ["I look.", "Found."]
    assert (trajectory.usage.prompt_tokens, trajectory.usage.completion_tokens) == (24, 6)
    assert server.bodies[1]["messages"][2] == {"role": "assistant", "content": TEXT_CALL}


async def test_an_endpoint_without_reasoning_is_short_cot_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    turn = f"<think>\nI look.\n</think>\n{TEXT_CALL}"
    async with endpoint([http(200, completion(turn)), http(200, completion(ANSWER))]) as server:
        trajectory = await run(opened(server), mode=CotMode.LONG)
    assert (trajectory.status, trajectory.mode) == (Status.ANSWERED, CotMode.SHORT)
    assert server.bodies[1]["messages"][2]["content"] == turn
    assert caplog.text.count("returned no reasoning") == 1


async def test_an_invented_observation_is_seen_without_stop_and_marked_with_it() -> None:
    turn = f"<think>\nI look.\n</think>\n{TEXT_CALL}\n<tool_response>\nShe was born in Ost.\n</tool_response>"
    answers = [http(200, completion(turn)), http(200, completion(ANSWER))]
    async with endpoint(answers) as server:
        seen = await run(opened(server), mode=CotMode.SHORT)
    async with endpoint(answers) as server:
        saved = await run(opened(server), mode=CotMode.SHORT, sampling=Sampling(stop=("<tool_response>",)))
    assert [(step.tool, step.error, step.cut) for step in seen.steps] == [
        (None, ToolError.INVENTED_OBSERVATION, False),
        (None, None, False),
    ]
    assert [(step.tool, step.error, step.cut) for step in saved.steps] == [("search", None, True), (None, None, False)]
