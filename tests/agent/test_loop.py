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
    replies, *, mode=CotMode.SHORT, sampling=Sampling(), on_step=None, model=None, web=None, **settings
) -> Trajectory:
    model = model or ScriptedModel(replies)
    summariser = ScriptedModel([summary("Ada Lunt was born in Velm.", "Ada Lunt was born in Velm.")] * 99)
    agent = AgentSettings(**settings)
    toolbox = Toolbox(*[web or MemoryWeb({LUNT.url: LUNT})] * 2, summariser, agent)
    return await run_episode(
        model, toolbox, trajectory_id="t", qa_id="q", question="Where was Ada Lunt born?", settings=agent, mode=mode,
        sampling=sampling, seed=5, on_step=on_step,
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
