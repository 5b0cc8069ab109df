"""Puts a model, or the whole agent, behind HTTP or MCP: the scribe, a trained checkpoint, or the agent over its web."""

import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.types import ASGIApp

from webdancer.config import Config, PolicySettings
from webdancer.errors import ConfigError
from webdancer.llm.protocol import ChatModel
from webdancer.pipeline.agents import AgentChoice, open_agent
from webdancer.pipeline.policies import open_policy
from webdancer.pipeline.progress import console
from webdancer.pipeline.run_folder import read_manifest
from webdancer.records import CotMode
from webdancer.scribe.model import Scribe
from webdancer.serve.agent_model import AgentModel
from webdancer.serve.checkpoint import ServedCheckpoint
from webdancer.serve.guard import Access, guarded
from webdancer.serve.openai_api import create_app, serve

AGENT_NAME = "webdancer"
"""Under which clients ask for the whole agent."""
_STOPPED = 130
"""Exit code of what was stopped by Ctrl-C."""


async def serve_model(model: str, *, access: Access, port: int, config: Config | None = None) -> None:
    """Serve `scribe` or the checkpoint in a folder until stopped.

    Args:
        config: settings of the engine (`policy`); None takes those of the run that the checkpoint is in.

    Raises:
        ConfigError: there is no such model.
    """
    async with _open(model, config) as models:
        await _serve(create_app(models), access, port, what=", ".join(models), path="/v1")


async def serve_agent(choice: AgentChoice, *, access: Access, port: int, think_tags: bool) -> None:
    """Serve the whole agent as a model until stopped.

    Raises:
        ConfigError: there is no such agent.
    """
    async with open_agent(choice) as agent:
        model = AgentModel(agent, name=AGENT_NAME, think_tags=think_tags)
        what = f"the agent over {agent.name} as {AGENT_NAME}"
        await _serve(create_app({AGENT_NAME: model}), access, port, what=what, path="/v1")


async def serve_mcp_http(choice: AgentChoice, *, access: Access, port: int) -> None:
    """Serve the agent and its web as an MCP server over HTTP until stopped.

    Raises:
        ConfigError: there is no such agent, or the `mcp` package is not installed.
    """
    _check_mcp()
    from webdancer.serve.mcp_server import make_mcp_server, mcp_app

    async with open_agent(choice) as agent, mcp_app(make_mcp_server(agent)) as app:
        await _serve(app, access, port, what=f"search, visit and ask (the agent over {agent.name})", path="/mcp")


async def serve_mcp_stdio(choice: AgentChoice) -> None:
    """Serve the agent and its web as an MCP server over stdin and stdout until stdin ends. Ctrl-C ends the process at once.

    Raises:
        ConfigError: there is no such agent, or the `mcp` package is not installed.
    """
    _check_mcp()
    from webdancer.serve.mcp_server import make_mcp_server

    async with open_agent(choice) as agent:
        # The thread that waits for stdin cannot be woken. MCP servers that were started end when their own stdin does.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(_STOPPED))
        await make_mcp_server(agent).run_stdio_async()


def _check_mcp() -> None:
    try:
        import mcp  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("the package mcp is not installed; install it with: pip install 'webdancer[mcp]'") from None


async def _serve(app: ASGIApp, access: Access, port: int, *, what: str, path: str) -> None:
    """Serve an app behind the checks, and say where."""

    def on_ready(bound: int) -> None:
        host = f"[{access.host}]" if ":" in access.host else access.host
        console.print(f"Serving {what} at http://{host}:{bound}{path} (Ctrl-C stops)", markup=False, soft_wrap=True)
        if access.is_open:
            warning = "anybody who reaches this address can use the server; --token-env NAME asks for a token"
            console.print(f"[bold yellow]warning:[/] {warning}", soft_wrap=True)

    await serve(guarded(app, access), access.host, port, on_ready)


@asynccontextmanager
async def _open(model: str, config: Config | None) -> AsyncIterator[Mapping[str, ChatModel]]:
    """The models to serve, by name."""
    if model == "scribe":
        yield {scribe.name: scribe for scribe in (Scribe(mode=CotMode.SHORT), Scribe(mode=CotMode.LONG))}
        return
    path, settings = _checkpoint(model, config)
    name = path.name
    async with open_policy(path, settings, name=name) as policy:
        yield {name: ServedCheckpoint(policy.tokens, policy.engine, name=name)}


def _checkpoint(model: str, config: Config | None) -> tuple[Path, PolicySettings]:
    """The checkpoint's folder, and how to run it: as given, else as the run did that it is in, else by default."""
    path = Path(model).resolve()
    if not path.is_dir():
        raise ConfigError(f"--model: got {model!r}, expected 'scribe' or the folder of a checkpoint")
    if config is None:
        manifest = read_manifest(path.parent)
        config = manifest.config if manifest else Config()
    return path, config.policy
