"""The settings for the released checkpoints, against a server that answers as vLLM does with them."""

import json
from pathlib import Path

import pytest
from fixtures import MemoryWeb, ScriptedModel, make_page, summary
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.config import Config
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import Sampling
from webdancer.records import Status, ToolError, Trajectory
from webdancer.settings_file import load_config
from webdancer.trajectories.rules import check_validity

RELEASED = load_config(Path("released"))
VELM = make_page("http://velm.example/", "Velm", "The lighthouse of Velm was built in 1904.")
PYTHON = (
    'Compute.\n</think>\n<tool_call>\n{"name": "PythonInterpreter", "arguments": {}}\n<code>\n1\n</code>\n</tool_call>'
)
SCHOLAR = (
    'Papers.\n</think>\n<tool_call>\n{"name": "google_scholar", "arguments": {"query": ["lighthouse"]}}\n</tool_call>'
)
SEARCH = 'Look.\n</think>\n<tool_call>\n{"name": "search", "arguments": {"query": ["lighthouse Velm", "Velm"]}}\n</tool_call>'
VISIT = (
    'Read.\n</think>\n<tool_call>\n{"name": "visit", "arguments": '
    '{"url": ["http://velm.example/"], "goal": "year"}}\n</tool_call>'
)
ANSWER = "So it is.\n</think>\n<answer>\n1904\n</answer>"


def serve(httpserver: HTTPServer, *contents: str, reasoning_parser: bool = False) -> list[dict]:
    """Answer with these turns as QwQ's template leaves them: the opening `<think>` stood in the prompt. One with a reasoning
    parser sends the thought apart. Gives the list that the requests' bodies come into."""
    bodies: list[dict] = []
    turns = iter(contents)

    def answer(request: Request) -> Response:
        bodies.append(request.get_json())
        content = next(turns)
        message: dict[str, object] = {"role": "assistant", "content": content}
        if reasoning_parser:
            thought, action = content.split("</think>")
            message = {"role": "assistant", "reasoning_content": thought, "content": action}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 900, "completion_tokens": 50, "total_tokens": 950}
        reply = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
        return Response(json.dumps(reply), content_type="application/json")

    httpserver.expect_request("/v1/chat/completions", method="POST").respond_with_handler(answer)
    return bodies


async def ask(httpserver: HTTPServer, config: Config = RELEASED) -> Trajectory:
    endpoint = config.llm.default.model_copy(update={"base_url": httpserver.url_for("/v1")})
    web = MemoryWeb({VELM.url: VELM})
    toolbox = Toolbox(web, web, ScriptedModel([summary("Built in 1904.", "1904.")]), config.agent)
    async with OpenAIChatModel(endpoint) as model:
        return await run_episode(
            model,
            toolbox,
            trajectory_id="ask",
            qa_id="ask",
            question="When was the lighthouse of Velm built?",
            settings=config.agent,
            mode=config.sample.mode,
            sampling=Sampling(),
            seed=0,
        )


@pytest.mark.parametrize("reasoning_parser", [False, True])
async def test_a_released_checkpoint_is_asked_as_its_authors_ask_it_and_understood(
    httpserver, reasoning_parser
) -> None:
    bodies = serve(httpserver, SEARCH, VISIT, ANSWER, reasoning_parser=reasoning_parser)
    trajectory = await ask(httpserver)
    assert (trajectory.status, trajectory.answer) == (Status.ANSWERED, "1904")
    assert [(step.thought, step.tool, step.error) for step in trajectory.steps] == [
        ("Look.", "search", None),
        ("Read.", "visit", None),
        ("So it is.", None, None),
    ]
    assert check_validity(trajectory) is None
    assert [(b["model"], b["temperature"], b["top_p"], b["repetition_penalty"], b["max_tokens"]) for b in bodies] == [
        ("Alibaba-NLP/WebDancer-32B", 0.6, 0.95, 1.1, 8192)
    ] * 3
    told = bodies[2]["messages"][-1]
    assert told["role"] == "user"
    assert told["content"].startswith("<tool_response>\nWhat http://velm.example/ says about the goal")
    assert bodies[1]["messages"][-1]["content"].count("\n=======\n") == 1  # two queries in one call


async def test_a_tool_of_tongyi_that_is_not_here_is_answered_and_the_episode_goes_on(httpserver) -> None:
    bodies = serve(httpserver, SCHOLAR, PYTHON, SEARCH, ANSWER)
    trajectory = await ask(httpserver)
    assert [step.error for step in trajectory.steps] == [ToolError.UNKNOWN_TOOL, ToolError.INVALID_JSON, None, None]
    assert "'google_scholar'" in bodies[1]["messages"][-1]["content"]
    assert "search, visit" in bodies[1]["messages"][-1]["content"]
    assert (trajectory.status, trajectory.answer) == (Status.ANSWERED, "1904")


def test_the_profile_is_for_asking_alone() -> None:
    assert RELEASED.policy.base == "none"
    assert (RELEASED.web.search, RELEASED.web.reader) == (("serper",), "jina")
    assert (RELEASED.agent.max_steps, RELEASED.agent.max_tokens, RELEASED.sample.mode) == (50, 32_768, "long")
