"""The agent loop over a scripted model and a web in memory."""

import asyncio

import pytest
from fixtures import MemoryWeb, ScriptedModel, answer_turn, call_turn, make_page, summary

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings
from webdancer.errors import ContextFullError, ModelError
from webdancer.llm.protocol import ChatReply, Sampling
from webdancer.records import CotMode, Status, Step, ToolError, Trajectory, Usage

LUNT = make_page("http://w.example/Ada_Lunt", "Ada Lunt", "Ada Lunt was born in Velm.")
SEARCH = call_turn("I look for her page.", "search", query=["Ada Lunt"])
VISIT = call_turn("I read her page.", "visit", url=LUNT.url, goal="where she was born")
ANSWER = answer_turn("Her page says so.", "Velm")
NO_ACTION = "<think>\nhm\n</think>"


async def run(
    replies, *, mode=CotMode.SHORT, sampling=None, on_step=None, model=None, web=None, omit_thoughts=False, **settings
) -> Trajectory:
    model = model or ScriptedModel(replies)
    summariser = ScriptedModel([summary("Ada Lunt was born in Velm.", "Ada Lunt was born in Velm.")] * 99)
    agent = AgentSettings(**settings)
    toolbox = Toolbox(*[web or MemoryWeb({LUNT.url: LUNT})] * 2, summariser, agent)
    return await run_episode(
        model, toolbox, trajectory_id="t", qa_id="q", question="Where was Ada Lunt born?", settings=agent, mode=mode,
        sampling=sampling or Sampling(), seed=5, on_step=on_step, omit_thoughts=omit_thoughts,
    )  # fmt: skip


async def test_an_episode_searches_visits_and_answers():
    seen: list[Step] = []
    trajectory = await run([SEARCH, VISIT, ANSWER], on_step=seen.append)
    assert trajectory.status is Status.ANSWERED
    assert trajectory.answer == "Velm"
    assert [step.tool for step in trajectory.steps] == ["search", "visit", None]
    assert trajectory.steps[0].observation == (
        'A search for "Ada Lunt" found 1 result:\n\n## Web Results\n'
        "1. [Ada Lunt](http://w.example/Ada_Lunt)\nAda Lunt was born in Velm."
    )
    assert trajectory.steps[1].observation == (
        'What http://w.example/Ada_Lunt says about the goal "where she was born":\n\n'
        "Evidence in page:\nAda Lunt was born in Velm.\n\nSummary:\nAda Lunt was born in Velm."
    )
    assert trajectory.usage == Usage(prompt_tokens=300, completion_tokens=30, llm_calls=3, tool_calls=2)
    assert seen == list(trajectory.steps)


async def test_the_model_sees_the_question_alone_then_its_turns_and_the_observations():
    model = ScriptedModel([SEARCH, ANSWER])
    await run([], model=model)
    first, second = (messages for messages, _ in model.calls)
    assert [m.role for m in first] == ["system", "user"]
    assert first[1].content == "Where was Ada Lunt born?"
    assert [m.role for m in second] == ["system", "user", "assistant", "user"]
    assert second[2].content == SEARCH
    assert second[3].content.startswith('<tool_response>\nA search for "Ada Lunt" found 1 result:')


async def test_each_call_has_the_episodes_seed_and_the_turns_limit():
    model = ScriptedModel([SEARCH, ANSWER])
    await run([], model=model, sampling=Sampling(0.6, 0.95, None, ("X",)), max_turn_tokens=77)
    assert [sampling for _, sampling in model.calls] == [Sampling(0.6, 0.95, 77, ("X",), 5)] * 2


@pytest.mark.parametrize("omit_thoughts", [True, False])
async def test_long_cot_stores_the_reasoning_and_only_the_teacher_does_not_see_it_again(omit_thoughts):
    call = SEARCH.split("</think>\n")[1]
    model = ScriptedModel([ChatReply(call, "I look <think>.\n"), ChatReply("<answer>Velm</answer>", "Found.")])
    trajectory = await run([], model=model, mode=CotMode.LONG, omit_thoughts=omit_thoughts)
    assert [step.thought for step in trajectory.steps] == ["I look <\u200bthink>.", "Found."]
    assert trajectory.mode is CotMode.LONG
    thought = "" if omit_thoughts else "<think>\nI look <\u200bthink>.\n</think>\n"
    assert model.calls[1][0][2].content == thought + call


async def test_an_invalid_turn_is_told_kept_raw_and_the_episode_goes_on():
    broken = SEARCH.replace("}}", "}")
    model = ScriptedModel([broken, SEARCH, ANSWER])
    trajectory = await run([], model=model)
    assert trajectory.status is Status.ANSWERED
    first = trajectory.steps[0]
    assert (first.raw, first.error, first.tool, first.thought) == (broken, ToolError.INVALID_JSON, None, "")
    assert first.observation.startswith(
        "Error: the turn does not follow the format (invalid_json: the tool call is not"
    )
    assert model.calls[1][0][2].content == broken
    assert model.calls[1][0][3].content == f"<tool_response>\n{first.observation}\n</tool_response>"
    assert trajectory.usage.tool_calls == 1


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (SEARCH + "\n<tool_response>\nBorn in Velm.\n</tool_response>\n" + ANSWER, ToolError.INVENTED_OBSERVATION),
        (call_turn("a", "google", query="x"), ToolError.UNKNOWN_TOOL),
        (call_turn("a", "search", queries=["x"]), ToolError.INVALID_ARGUMENTS),
        (SEARCH + SEARCH, ToolError.INVALID_FORMAT),
        ("", ToolError.INVALID_FORMAT),
    ],
)
async def test_the_step_of_an_invalid_turn_has_the_type_of_its_first_violation(raw, error):
    trajectory = await run([raw, ANSWER])
    assert [step.error for step in trajectory.steps] == [error, None]


async def test_too_many_invalid_turns_in_a_row_end_the_episode():
    trajectory = await run([NO_ACTION, SEARCH, NO_ACTION, NO_ACTION], max_invalid_turns=2)
    assert trajectory.status is Status.INVALID_FORMAT
    assert len(trajectory.steps) == 4
    assert trajectory.answer is None


async def test_a_turn_that_was_cut_off_is_told_so():
    trajectory = await run([ChatReply("<think>\nand so on", finish="length"), ANSWER])
    assert (
        "unclosed_tag: <\u200bthink> is never closed (the turn was cut off: it was too long)"
        in trajectory.steps[0].observation
    )


async def test_half_characters_of_a_model_do_not_stop_the_record_from_being_written():
    trajectory = await run([ChatReply("<think>\ud800</think>"), answer_turn("a\udfff", "V\ud800elm")])
    assert trajectory.steps[0].raw == "<think>?</think>"
    assert trajectory.answer == "V?elm"
    assert Trajectory.model_validate_json(trajectory.model_dump_json()) == trajectory


async def test_at_the_step_limit_an_answer_is_demanded_and_marked():
    model = ScriptedModel([SEARCH, VISIT, ANSWER])
    trajectory = await run([], model=model, max_steps=2)
    assert (trajectory.status, trajectory.answer, len(trajectory.steps)) == (Status.FORCED_ANSWER, "Velm", 3)
    assert "No more tool calls are possible." in model.calls[2][0][-1].content


async def test_without_the_forced_answer_the_limit_is_the_status():
    trajectory = await run([SEARCH, VISIT], max_steps=2, force_answer=False)
    assert (trajectory.status, trajectory.answer, len(trajectory.steps)) == (Status.STEP_LIMIT, None, 2)


@pytest.mark.parametrize(
    ("reply", "error"), [(SEARCH, ToolError.INVALID_FORMAT), (NO_ACTION, ToolError.INVALID_FORMAT)]
)
async def test_who_does_not_answer_on_demand_keeps_the_limits_status(reply, error):
    trajectory = await run([SEARCH, reply], max_steps=1)
    assert (trajectory.status, trajectory.answer) == (Status.STEP_LIMIT, None)
    assert trajectory.steps[1].error is error
    assert trajectory.usage.tool_calls == 1


async def test_an_endpoint_that_fails_on_demand_keeps_the_limits_status():
    trajectory = await run([SEARCH, ModelError("gone")], max_steps=1)
    assert (trajectory.status, trajectory.detail) == (Status.STEP_LIMIT, "gone")


async def test_the_token_limit_counts_the_longest_call():
    big = ChatReply(SEARCH, usage=Usage(prompt_tokens=900, completion_tokens=100, llm_calls=1))
    trajectory = await run([SEARCH, big, ANSWER], max_tokens=1000)
    assert (trajectory.status, len(trajectory.steps)) == (Status.FORCED_ANSWER, 3)
    assert trajectory.usage.prompt_tokens == 1100


@pytest.mark.parametrize(("error", "status"), [
    (ContextFullError("too long"), Status.CONTEXT_FULL),
    (ModelError("HTTP 500"), Status.MODEL_ERROR),
])  # fmt: skip
async def test_a_failing_model_is_a_status_with_its_reason(error, status):
    trajectory = await run([SEARCH, error])
    assert (trajectory.status, trajectory.detail, len(trajectory.steps)) == (status, str(error), 1)


async def test_a_model_that_hangs_ends_by_the_time_limit():
    trajectory = await run([], model=ScriptedModel([SEARCH] * 9, delay_s=30), max_seconds=0.05, tool_timeout_s=0.05)
    assert (trajectory.status, trajectory.steps) == (Status.TIME_LIMIT, ())


async def test_a_slow_model_is_asked_for_its_answer_when_time_is_up():
    trajectory = await run([], model=ScriptedModel([ANSWER], delay_s=0.1), max_seconds=0.05, tool_timeout_s=5)
    assert (trajectory.status, trajectory.answer) == (Status.FORCED_ANSWER, "Velm")


@pytest.mark.parametrize("bug", [ZeroDivisionError("ours"), TimeoutError("a protocol is broken")])
async def test_a_bug_is_raised(bug):
    with pytest.raises(type(bug)):
        await run([bug])


async def test_cancelling_goes_through():
    task = asyncio.create_task(run([], model=ScriptedModel([SEARCH], delay_s=30)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_missing_page_is_an_observation_with_its_type():
    missing = call_turn("a", "visit", url="http://w.example/No", goal="g")
    trajectory = await run([missing, ANSWER])
    assert trajectory.status is Status.ANSWERED
    assert trajectory.steps[0].observation == "Error: http://w.example/No: no page at http://w.example/No"
    assert trajectory.steps[0].error is ToolError.PAGE_NOT_FOUND


async def test_two_runs_differ_only_in_time():
    first, second = [await run([SEARCH, NO_ACTION, VISIT, ANSWER]) for _ in range(2)]

    def timeless(trajectory: Trajectory) -> str:
        steps = tuple(step.model_copy(update={"seconds": 0.0}) for step in trajectory.steps)
        return trajectory.model_copy(update={"steps": steps}).model_dump_json()

    assert timeless(first) == timeless(second)


async def test_the_tools_and_the_mode_go_along_with_each_call_without_making_it_another_one():
    model = ScriptedModel([ChatReply(ANSWER, "So.")])
    await run([], model=model, mode=CotMode.LONG)
    ((_, sampling),) = model.calls
    assert [tool["name"] for tool in sampling.tools] == ["search", "visit"]
    assert sampling.long_cot
    assert sampling == Sampling(max_tokens=AgentSettings().max_turn_tokens, seed=5)
    assert "tools" not in repr(sampling)


@pytest.mark.parametrize(
    ("replies", "mode"),
    [
        ([ChatReply(SEARCH), ChatReply(ANSWER)], CotMode.SHORT),  # the block that the prompt asks for
        ([ChatReply(SEARCH, " "), ChatReply(ANSWER)], CotMode.SHORT),
        ([NO_ACTION, ChatReply(ANSWER)], CotMode.SHORT),
        ([ChatReply(SEARCH, "I reason."), ChatReply(ANSWER)], CotMode.LONG),
        ([ChatReply(SEARCH), ChatReply(ANSWER, "I reason.")], CotMode.LONG),
        ([SEARCH.removeprefix("<think>"), ANSWER], CotMode.LONG),  # a block that only a template can have opened
        ([ModelError("gone")], CotMode.LONG),
    ],
)
async def test_a_model_that_shows_no_reasoning_is_recorded_as_short_cot(replies, mode):
    assert (await run(replies, mode=CotMode.LONG)).mode is mode
    assert (await run(replies)).mode is CotMode.SHORT


async def test_the_thoughts_of_a_model_without_reasoning_were_hidden_from_it_in_long_mode():
    model = ScriptedModel([SEARCH, ANSWER])
    trajectory = await run([], model=model, mode=CotMode.LONG, omit_thoughts=True)
    assert [step.thought for step in trajectory.steps] == ["I look for her page.", "Her page says so."]
    assert model.calls[1][0][2].content == SEARCH


async def test_a_turn_that_a_stop_string_cut_is_marked_and_goes_on():
    cut = ChatReply(SEARCH + "\n", cut_at="<tool_response>")
    trajectory = await run([cut, ChatReply(NO_ACTION, cut_at="<tool_response>"), ANSWER])
    assert trajectory.status is Status.ANSWERED
    assert [(step.tool, step.cut) for step in trajectory.steps] == [("search", True), (None, True), (None, False)]
