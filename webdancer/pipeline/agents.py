"""Opens the agent: the model that the user names, over the web and with the tools that the settings name."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import openai
from pydantic import JsonValue

from webdancer.agent.answering import Agent, OpenModel
from webdancer.agent.schemas import NO_EXTRA, ExtraTool, ExtraTools
from webdancer.calls.ledger import Ledger, total_of
from webdancer.calls.outside import Outside
from webdancer.calls.tape import CallKind, Codec, Tape
from webdancer.config import Config, EndpointSettings, McpServerSettings, WebSettings
from webdancer.errors import ConfigError
from webdancer.keys import redact
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import ChatModel
from webdancer.pipeline.models import Models, open_models
from webdancer.pipeline.policies import open_policy
from webdancer.pipeline.progress import console
from webdancer.pipeline.toolbox import needs_snapshot, open_toolbox
from webdancer.records import CotMode
from webdancer.scribe.model import Scribe
from webdancer.web.snapshot import Snapshot

_LIST_TIMEOUT_S = 10.0
_ENDPOINT = Codec(EndpointSettings)
_TOLD = Codec(list[JsonValue])
"""Of what MCP servers tell of their tools."""


class AgentChoice(NamedTuple):
    """Which agent: what the command line says, and the settings that go with it."""

    config: Config
    snapshot: Path
    """The web to search, where the settings want one."""
    model: str | None = None
    """A checkpoint's folder, or the root of an OpenAI-compatible API that serves one; None: the teacher's model."""
    mode: CotMode | None = None
    """Of models behind an API; None: as sampled. A checkpoint here answers as in training, in one text."""
    tape: Tape | None = None
    """Records all calls, or answers them."""
    is_embedded: bool = False
    """The web to search is the embedded one, which is invented."""


def on_snapshot(config: Config) -> Config:
    """The settings with search and visit answering from a snapshot alone."""
    web: WebSettings = config.web.model_copy(update={"search": ("snapshot",), "reader": "snapshot"})
    return config.model_copy(update={"web": web})


def is_checkpoint(model: str | None) -> bool:
    """Whether `--model` names a folder, not an API."""
    return model is not None and not model.startswith(("http://", "https://"))


@asynccontextmanager
async def open_agent(choice: AgentChoice) -> AsyncIterator[Agent]:
    """The agent, ready to be asked.

    Raises:
        ConfigError: there is no such model, a key is missing, or an MCP server does not answer.
        SnapshotError: there is no finished snapshot in that folder.
    """
    config = choice.config
    mode = CotMode.SHORT if is_checkpoint(choice.model) else choice.mode or config.sample.mode
    outside = Outside("ask", ledger=Ledger(None, config.budget), tape=choice.tape)
    wants_snapshot = needs_snapshot(config) and not outside.is_replay
    with Snapshot.open(choice.snapshot) if wants_snapshot else nullcontext() as snapshot:
        async with (
            open_models(config.llm, mode=mode, outside=outside) as models,
            open_toolbox(config, models.summariser, outside, snapshot=snapshot) as toolbox,
            _extra_tools(config.mcp, outside, prompt=config.agent.prompt) as extra,
            _open_model(choice.model, config, models, outside) as (open_model, name, reads_conversations),
        ):
            yield Agent(
                open_model,
                toolbox.with_extra({name: _CountedTool(outside, name, tool) for name, tool in extra.items()}),
                config.agent,
                name=name,
                mode=mode,
                seed=config.seed,
                temperature=None if _has_temperature(choice) else 0.0,
                reads_conversations=reads_conversations,
                spent=lambda: total_of(outside.ledger.totals),
            )


def _has_temperature(choice: AgentChoice) -> bool:
    """Whether the settings say at which temperature the model is to answer."""
    endpoint = choice.config.llm.teacher or choice.config.llm.default
    return choice.model is None and endpoint.temperature is not None


class _CountedTool:
    """A further tool whose calls are recorded and counted."""

    def __init__(self, outside: Outside, name: str, tool: ExtraTool) -> None:
        self._outside, self._name, self._tool = outside, name, tool
        self.schema = tool.schema

    def check(self, arguments: dict[str, JsonValue]) -> None:
        self._tool.check(arguments)

    async def call(self, arguments: dict[str, JsonValue]) -> str:
        return await self._outside.tool(self._name, arguments, lambda: self._tool.call(arguments))


class _Opened(NamedTuple):
    open_model: OpenModel
    name: str
    reads_conversations: bool


@asynccontextmanager
async def _open_model(model: str | None, config: Config, models: Models, outside: Outside) -> AsyncIterator[_Opened]:
    """The model that answers."""
    if model is None:
        is_general = not isinstance(models.agent, Scribe)
        yield _Opened(lambda _: nullcontext(models.agent), models.agent.name, is_general)
    elif not is_checkpoint(model):
        ask = partial(_first_served, model)
        tape = outside.tape
        endpoint = await (ask() if tape is None else tape.call(CallKind.TOOL, "models", model, ask, _ENDPOINT))
        async with OpenAIChatModel(endpoint) as client:
            served: ChatModel = outside.model("agent", client, endpoint)
            yield _Opened(lambda _: nullcontext(served), served.name, True)
    else:
        async with open_policy(Path(model), config.policy, name=Path(model).name) as policy:
            yield _Opened(lambda key: closing(policy.episode(key)), policy.name, False)


async def _first_served(url: str) -> EndpointSettings:
    """The endpoint at `url`, with the first model that it lists.

    Raises:
        ConfigError: nothing answers there, or it has no model.
    """
    try:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=_LIST_TIMEOUT_S) as client:
            names = [served.id async for served in await client.models.list()]
    except openai.OpenAIError as error:
        problem = redact(f"no OpenAI-compatible API answers there ({error})")
        raise ConfigError(f"--model {url}: {problem}") from None
    if not names:
        raise ConfigError(f"--model {url}: the API there has no model")
    return EndpointSettings(base_url=url, model=names[0])


@asynccontextmanager
async def _extra_tools(
    servers: Mapping[str, McpServerSettings], outside: Outside, *, prompt: str
) -> AsyncIterator[ExtraTools]:
    """The tools of the MCP servers that the settings name; where a recording answers, as it tells of them.

    Raises:
        ConfigError: the `mcp` package is not installed, or a server does not answer.
    """
    if not servers:
        yield NO_EXTRA
        return
    try:
        from webdancer.agent.mcp_tools import open_mcp_tools, retold_tools, told_tools
    except ModuleNotFoundError as error:
        raise ConfigError(f"[mcp]: {error}; install it with: pip install 'webdancer[mcp]'") from None
    async with nullcontext(NO_EXTRA) if outside.is_replay else open_mcp_tools(servers) as tools:

        async def tell() -> list[JsonValue]:
            return told_tools(tools)

        if outside.tape is not None:
            told = await outside.tape.call(CallKind.TOOL, "mcp", list(servers), tell, _TOLD)
            tools = retold_tools(told) if outside.is_replay else tools
        if prompt == "agent_brief":
            note = "Note: the brief prompt names no tools; set agent.prompt = 'agent' for those of [mcp]."
            console.print(note, markup=False)
        yield tools
