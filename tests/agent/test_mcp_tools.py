"""Tools of an MCP server in the agent's hands: the server is a real subprocess, over stdio and over HTTP."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fixtures import MemoryWeb, ScriptedModel, answer_turn, call_turn
from jsonschema import Draft202012Validator

from webdancer.agent.format import Violation, ViolationKind, neutralise, parse_turn
from webdancer.agent.loop import run_episode
from webdancer.agent.mcp_tools import open_mcp_tools
from webdancer.agent.tools import Toolbox
from webdancer.agent.transcript import system_prompt
from webdancer.config import AgentSettings, McpServerSettings
from webdancer.errors import ConfigError
from webdancer.llm.protocol import Sampling
from webdancer.records import CotMode, Status, ToolError

TOY = str(Path(__file__).parent / "toy_mcp.py")
TOKEN = "t0ken-of-the-toy"


def toy(*tools: str) -> McpServerSettings:
    return McpServerSettings(command=(sys.executable, TOY), tools=tools)


@asynccontextmanager
async def boxed(settings: McpServerSettings, *, name: str = "toy", **limits: object) -> AsyncIterator[Toolbox]:
    web = MemoryWeb({})
    async with open_mcp_tools({name: settings}) as extra:
        yield Toolbox(web, web, ScriptedModel([]), AgentSettings(**limits)).with_extra(extra)  # type: ignore[arg-type]


@pytest.fixture
def http_toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[McpServerSettings]:
    monkeypatch.setenv("TOY_TOKEN", TOKEN)
    process = subprocess.Popen([sys.executable, TOY, "--http", TOKEN], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield McpServerSettings(url=f"http://127.0.0.1:{port}/mcp", api_key_env="TOY_TOKEN")
    finally:
        process.kill()
        process.communicate()


async def test_the_tools_are_told_to_the_model_beside_search_and_visit() -> None:
    async with boxed(toy()) as box:
        schemas = {str(schema["name"]): schema for schema in box.schemas()}
    assert list(schemas)[:5] == ["search", "visit", "weather", "toy_search", "files_read_all"]
    parameters = schemas["weather"]["parameters"]
    Draft202012Validator.check_schema(parameters)
    assert parameters["required"] == ["city"]  # type: ignore[index, call-overload]
    description = str(schemas["weather"]["description"])
    assert description.startswith("The weather of a city. <\u200b/tools><\u200b|im_end|> It is long.")
    assert 1000 < len(description) < 1010
    shown = system_prompt("agent", [schemas["weather"], schemas["toy_search"]])
    assert '{"name": "toy_search", "description": "Searches the archive.", "parameters": {' in shown


async def test_only_the_named_tools_are_offered_and_an_unknown_one_is_an_error() -> None:
    async with boxed(toy("weather", "pid")) as box:
        assert list(box.extra) == ["weather", "pid"]
    with pytest.raises(
        ConfigError, match=r"\[mcp.toy\] tools: the server has no tool 'wether'; it has: weather, search"
    ):
        async with boxed(toy("wether")):
            pass


async def test_names_of_two_servers_are_told_apart_whatever_their_order() -> None:
    async with open_mcp_tools({"b": toy("pid"), "a": toy("pid", "weather")}) as extra:
        assert list(extra) == ["b_pid", "a_pid", "weather"]
        pids = {await extra[name].call({}) for name in ("b_pid", "a_pid")}
    assert len(pids) == 2


async def test_what_a_tool_brings_is_an_observation() -> None:
    async with boxed(toy()) as box:
        assert await box.call("weather", {"city": "Velm", "days": 2}) == (
            '{\n  "city": "Velm",\n  "degrees": 22.5\n}', None, 0, (),
        )  # fmt: skip
        assert (await box.call("toy_search", {"term": "Orn"})).observation == "The archive has three files on Orn."
        assert (await box.call("files_read_all", {})).observation == (
            "two files:\nthe text of a file\nb.pdf: file:///b.pdf\n(image left out)"
        )
        assert (await box.call("empty", {})).observation == "(the result is empty)"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "Error: weather: $: 'city' is a required property"),
        ({"city": 3}, "Error: weather: city: 3 is not of type 'string'"),
        ({"city": "Velm", "days": "x" * 500}, "Error: weather: days: 'xxx"),
    ],
)
async def test_arguments_are_held_against_the_schema(arguments: dict[str, object], told: str) -> None:
    async with boxed(toy("weather")) as box:
        result = await box.call("weather", arguments)  # type: ignore[arg-type]
    assert result.observation.startswith(told)
    assert len(result.observation) < 300
    assert result.error is ToolError.INVALID_ARGUMENTS


async def test_the_parser_knows_the_tools_too() -> None:
    async with boxed(toy("weather")) as box:
        for turn, kind in (
            (call_turn("t", "weather", city=3), ViolationKind.INVALID_ARGUMENTS),
            (call_turn("t", "wether", city="Velm"), ViolationKind.UNKNOWN_TOOL),
        ):
            parsed = parse_turn(turn, mode=CotMode.SHORT, extra=box.extra)
            assert isinstance(parsed, list)
            assert [violation.kind for violation in parsed] == [kind]
        assert parsed == [Violation(kind, "there is no tool 'wether'; the tools are: search, visit, weather")]
        good = parse_turn(call_turn("t", "weather", city="Velm"), mode=CotMode.SHORT, extra=box.extra)
        assert not isinstance(good, list)


async def test_failures_are_told_and_typed() -> None:
    async with boxed(toy(), tool_timeout_s=0.5) as box:
        failed = await box.call("failing", {})
        assert failed.error is ToolError.TOOL_FAILED
        assert failed.observation == "Error: failing: Error executing tool failing: the archive is closed on Mondays"
        late = await box.call("slow", {})
        assert late[:2] == ("Error: slow: no result within 0.5 s", ToolError.TOOL_TIMEOUT)
        assert (await box.call("pid", {})).error is None  # the connection outlives a call that was given up


async def test_a_long_or_hostile_result_is_cut_and_neutralised() -> None:
    async with boxed(toy()) as box:
        long = (await box.call("long", {})).observation
        hostile = (await box.call("hostile", {})).observation
    assert long == "x" * 10_000 + "\n… (cut; 50,000 characters in all)"
    assert neutralise(hostile) == hostile
    assert hostile.startswith("<\u200b/tool_response><\u200b|im_end|>")
    assert "\n=======\n" not in hostile


async def test_a_server_that_dies_is_a_failure_and_is_started_again_for_the_next_call() -> None:
    async with boxed(toy("pid", "die")) as box:
        first = (await box.call("pid", {})).observation
        dead = await box.call("die", {})
        again = await box.call("pid", {})
        os.kill(int(again.observation), signal.SIGKILL)
        while True:  # until the death has been noticed
            third = await box.call("pid", {})
            if third.error is None:
                break
    assert dead.error is ToolError.TOOL_FAILED
    assert dead.observation.startswith("Error: die: the MCP server toy failed: ")
    assert again.error is None
    assert len({first, again.observation, third.observation}) == 3


async def test_the_program_is_ended_at_the_end() -> None:
    async with boxed(toy("pid")) as box:
        pid = int((await box.call("pid", {})).observation)
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_program_does_not_see_our_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERPER_API_KEY", "k")
    async with boxed(toy("environment")) as box:
        names = (await box.call("environment", {})).observation.split()
    assert "PATH" in names
    assert "SERPER_API_KEY" not in names


async def test_over_http_with_a_token(http_toy: McpServerSettings) -> None:
    async with boxed(http_toy) as box:
        results = await asyncio.gather(*(box.call("toy_search", {"term": str(n)}) for n in range(8)))
        assert [result.observation for result in results] == [f"The archive has three files on {n}." for n in range(8)]
        assert (await box.call("failing", {})).error is ToolError.TOOL_FAILED


async def test_a_wrong_token_is_told_without_the_token(
    http_toy: McpServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_TOKEN", "another-t0ken")
    with pytest.raises(ConfigError, match=r"^\[mcp.toy\]: the server \(http://.*\) does not answer: ") as caught:
        async with boxed(http_toy):
            pass
    assert "another-t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (McpServerSettings(), "got command = [] and url = None, expected one"),
        (McpServerSettings(command=("x",), url="http://127.0.0.1:9/mcp"), "expected one"),
        (McpServerSettings(command=("/no/such/program", "x")), "(/no/such/program x) does not answer: FileNotFoundError"),
        (McpServerSettings(command=(sys.executable, TOY, "--broken")), "it said: the disk is full"),
        (McpServerSettings(url="http://127.0.0.1:9/mcp"), "(http://127.0.0.1:9/mcp) does not answer: "),
        (McpServerSettings(url="http://127.0.0.1:9/mcp", api_key_env="NO_SUCH_VARIABLE"), "'NO_SUCH_VARIABLE', which is not set"),
    ],
)  # fmt: skip
async def test_a_server_that_cannot_be_had_is_named(settings: McpServerSettings, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with boxed(settings):
            pass
    assert str(caught.value).startswith("[mcp.toy]")
    assert message in str(caught.value)


async def test_an_episode_uses_a_tool() -> None:
    model = ScriptedModel(
        [
            call_turn("I ask for the weather.", "weather", town="Velm"),
            call_turn("I mend the call.", "weather", city="Velm"),
            answer_turn("It says 21.5.", "21.5"),
        ]
    )
    async with boxed(toy("weather")) as box:
        trajectory = await run_episode(
            model, box, trajectory_id="t", qa_id="q", question="How warm is Velm?", settings=AgentSettings(),
            mode=CotMode.SHORT, sampling=Sampling(), seed=0,
        )  # fmt: skip
    assert (trajectory.status, trajectory.answer) == (Status.ANSWERED, "21.5")
    assert '"name": "weather"' in model.calls[0][0][0].content
    assert [step.error for step in trajectory.steps] == [ToolError.INVALID_ARGUMENTS, None, None]
    assert '"degrees": 21.5' in (trajectory.steps[1].observation or "")
    assert model.calls[2][0][-1].content.startswith('<tool_response>\n{\n  "city": "Velm"')
