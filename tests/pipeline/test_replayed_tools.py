"""An agent is replayed without the servers of its tools and of its model."""

import shutil
import sys
from pathlib import Path

import pytest
from test_failures import model_server

from webdancer.agent.schemas import ArgumentError
from webdancer.calls.tape import Tape
from webdancer.config import EndpointSettings, LlmSettings, McpServerSettings, ProviderSettings, WebSettings
from webdancer.errors import ReplayError
from webdancer.pipeline.agents import AgentChoice, open_agent
from webdancer.settings_file import load_config

TOY = Path(__file__).parents[1] / "agent" / "toy_mcp.py"
NOWHERE = "http://127.0.0.1:9"


async def test_a_replay_started_the_servers_of_tools(tmp_path):
    program = tmp_path / "toy.py"
    shutil.copy(TOY, program)
    config = load_config(Path("tiny")).model_copy(
        update={
            "llm": LlmSettings(default=EndpointSettings(base_url=f"{NOWHERE}/v1", model="m")),
            "web": WebSettings(search=("searxng",), reader="live", searxng=ProviderSettings(base_url=NOWHERE)),
            "mcp": {"toy": McpServerSettings(command=(sys.executable, str(program)))},
        }
    )
    seen = []
    for replay in (False, True):
        if replay:
            program.unlink()
        with Tape(tmp_path / "tape", replay=replay) as tape:
            async with open_agent(AgentChoice(config, tmp_path / "none", tape=tape)) as agent:
                weather = agent.toolbox.extra["weather"]
                with pytest.raises(ArgumentError) as refused:
                    weather.check({"days": 1})
                text = await weather.call({"city": "Velm", "days": 2})
                seen.append((agent.toolbox.schemas(), str(refused.value), text))
                if replay:
                    with pytest.raises(ReplayError, match="no tool call to tool weather"):
                        await weather.call({"city": "Orn"})
    assert "22.5" in seen[0][2]
    assert seen[1] == seen[0]


async def test_a_model_by_its_address_could_be_recorded_and_not_replayed(tmp_path):
    config = load_config(Path("tiny")).model_copy(
        update={"web": WebSettings(search=("searxng",), reader="live", searxng=ProviderSettings(base_url=NOWHERE))}
    )
    answers = []
    async with model_server() as models:
        choice = AgentChoice(config, tmp_path / "none", model=f"{models}/v1")
        with Tape(tmp_path / "tape", replay=False) as tape:
            async with open_agent(choice._replace(tape=tape)) as agent:
                answers.append((await agent.answer("In which city was Ada Lunt born?")).trajectory)
    with Tape(tmp_path / "tape", replay=True) as tape:  # the server is gone
        async with open_agent(choice._replace(tape=tape)) as agent:
            answers.append((await agent.answer("In which city was Ada Lunt born?")).trajectory)
    assert answers[0].usage.llm_calls > 0
    assert [step.observation for step in answers[1].steps] == [step.observation for step in answers[0].steps]
    assert (answers[1].status, answers[1].model, answers[1].detail) == (
        answers[0].status,
        answers[0].model,
        answers[0].detail,
    )
