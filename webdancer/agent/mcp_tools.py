"""Tools of MCP servers for the agent, besides search and visit (Model Context Protocol; the `mcp` package).

A server is a program that speaks over its stdin and stdout, or an address that speaks HTTP. Its connection lives in a task of its
own and is made again, at the next call, where it broke. What a server says of its tools and what a tool brings is text from
outside: it is cut, and it cannot act as a tag.
"""

import asyncio
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TextIO

import anyio
import httpx2
import mcp
from jsonschema import SchemaError
from jsonschema.exceptions import best_match
from jsonschema.validators import Draft202012Validator, validator_for
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import JsonValue, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from webdancer.agent.format import neutralise
from webdancer.agent.schemas import TOOL_SCHEMAS, ArgumentError, ExtraTools
from webdancer.config import McpServerSettings
from webdancer.errors import ConfigError, ReplayError, WebdancerError
from webdancer.keys import read_key, redact
from webdancer.web.protocol import ToolFailure

_START_S = 30.0
_HTTP_TIMEOUT = httpx2.Timeout(30.0, read=300.0)
"""How long a tool may take is the toolbox's business; a stream that says nothing for minutes is dead."""
_MAX_RESULT_CHARS = 10_000
_MAX_DESCRIPTION_CHARS = 1000
_MAX_NAME_CHARS = 64
"""What the tool calls of chat APIs take as a name: so many of letters, digits, `_` and `-`."""
_MAX_PAGES = 100
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


@asynccontextmanager
async def open_mcp_tools(servers: Mapping[str, McpServerSettings]) -> AsyncIterator[ExtraTools]:
    """The tools of all servers, by the names under which the agent calls them; the servers are left at the end.

    Raises:
        ConfigError: a server does not answer, its settings make no sense, or it has no such tool.
    """
    async with AsyncExitStack() as stack:
        found: list[tuple[_Connection, mcp.Tool]] = []
        for name, settings in servers.items():
            connection = await stack.enter_async_context(_Connection(name, settings))
            found += [(connection, tool) for tool in _chosen(await connection.list_tools(), name, settings)]
        shown = _shown_names([(connection.name, tool.name) for connection, tool in found])
        yield {name: _McpTool(*of, name=name) for name, of in zip(shown, found, strict=True)}


def told_tools(tools: ExtraTools) -> list[JsonValue]:
    """What the servers told of their tools, for a recording."""
    return [
        {"name": name, "tool": tool.told.model_dump(mode="json", by_alias=True)}
        for name, tool in tools.items()
        if isinstance(tool, _McpTool)
    ]


def retold_tools(told: Sequence[JsonValue]) -> ExtraTools:
    """The tools of a recording: they look at arguments as the servers' own do, and cannot be called."""
    found = {}
    for row in told:
        assert isinstance(row, dict)
        name = str(row["name"])
        found[name] = _McpTool(None, mcp.Tool.model_validate(row["tool"]), name=name)
    return found


def _chosen(tools: Sequence[mcp.Tool], server: str, settings: McpServerSettings) -> list[mcp.Tool]:
    """The tools that the settings name, all where they name none."""
    offered = {tool.name: tool for tool in tools}
    for name in settings.tools:
        if name not in offered:
            raise ConfigError(f"[mcp.{server}] tools: the server has no tool {name!r}; it has: {', '.join(offered)}")
    return [offered[name] for name in settings.tools or offered]


def _shown_names(names: Sequence[tuple[str, str]]) -> list[str]:
    """The names under which the model calls tools given as (server, tool): the tool's own, with the server's where two clash.

    Raises:
        ConfigError: two still clash.
    """
    plain = [_api_name(tool) for _, tool in names]
    count = Counter([*plain, *(str(schema["name"]) for schema in TOOL_SCHEMAS)])
    shown = [
        name if count[name] == 1 else _api_name(f"{server}_{tool}")
        for name, (server, tool) in zip(plain, names, strict=True)
    ]
    twice = next((name for name, number in Counter(shown).items() if number > 1), None)
    if twice is not None:
        raise ConfigError(f"[mcp]: two tools would be called {twice!r}; leave one out with `tools` of its server")
    return shown


def _api_name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:_MAX_NAME_CHARS]


class _McpTool:
    """One tool of a server, as the agent's toolbox wants it."""

    def __init__(self, connection: "_Connection | None", tool: mcp.Tool, *, name: str) -> None:
        self._connection, self.told = connection, tool
        description = _shown(tool.description or tool.title or tool.name)
        parameters = _shown({key: value for key, value in tool.input_schema.items() if key != "$schema"})
        self.schema: dict[str, JsonValue] = {"name": name, "description": description, "parameters": parameters}
        kind = validator_for(tool.input_schema, default=Draft202012Validator)
        try:
            kind.check_schema(tool.input_schema)
        except SchemaError as error:
            problem = f"the tool {tool.name!r} has a damaged schema ({error.message[:200]})"
            where = f"[mcp.{connection.name}]" if connection else "[mcp]"
            raise ConfigError(f"{where}: {problem}; leave it out with `tools`") from None
        self._validator = kind(tool.input_schema, registry=Registry())  # an empty one: no schema is fetched

    def check(self, arguments: dict[str, JsonValue]) -> None:
        """Hold the arguments against the tool's JSON schema.

        Raises:
            ArgumentError: they do not fit it.
        """
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except Unresolvable:
            return  # the schema rests on one that is elsewhere; the server checks for itself
        if error is not None:
            raise ArgumentError(f"{error.json_path.removeprefix('$.')}: {error.message[:200]}")

    async def call(self, arguments: dict[str, JsonValue]) -> str:
        """What the tool brings, as text.

        Raises:
            ToolFailure: the tool says that it failed, or the server does not answer.
            ReplayError: it is one of a recording.
        """
        if self._connection is None:
            raise ReplayError(f"the tool {self.told.name!r} is replayed and cannot be called")
        return await self._connection.call(self.told.name, arguments)


def _shown(value: JsonValue) -> JsonValue:
    """What a server says of its tools, cut and neutralised, for the system prompt."""
    if isinstance(value, str):
        return neutralise(value if len(value) <= _MAX_DESCRIPTION_CHARS else f"{value[:_MAX_DESCRIPTION_CHARS]} …")
    if isinstance(value, dict):
        return {neutralise(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


class _Connection:
    """The connection to one server."""

    def __init__(self, name: str, settings: McpServerSettings) -> None:
        if bool(settings.command) == bool(settings.url):
            raise ConfigError(
                f"[mcp.{name}]: got command = {list(settings.command)} and url = {settings.url!r}, expected one"
            )
        self.name, self._settings = name, settings
        self._key = read_key(env=settings.api_key_env, file=None, what=f"[mcp.{name}]")
        self._opening = asyncio.Lock()
        self._client: mcp.Client | None = None
        self._left, self._scope = asyncio.Event(), anyio.CancelScope()
        self._living: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "_Connection":
        try:
            await self._open()
        except ToolFailure as error:
            raise ConfigError(f"[mcp.{self.name}]: {error}") from None
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._leave()

    async def list_tools(self) -> list[mcp.Tool]:
        """All tools of the server.

        Raises:
            ConfigError: the server fails at telling them.
        """
        client, tools, cursor = await self._open(), list[mcp.Tool](), None
        try:
            async with asyncio.timeout(_START_S):
                for _ in range(_MAX_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    tools += page.tools
                    if (cursor := page.next_cursor) is None:
                        break
        except (mcp.MCPError, ValidationError, TimeoutError) as error:
            raise ConfigError(f"[mcp.{self.name}]: the server does not tell its tools ({_told(error)})") from None
        return tools

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """What a tool brings.

        Raises:
            ToolFailure: the tool failed, or the server is gone.
        """
        client = await self._open()
        try:
            result = await client.call_tool(tool, arguments)
        except (mcp.MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            if not isinstance(error, mcp.MCPError) or error.code in (CONNECTION_CLOSED, INVALID_REQUEST):
                await self._leave()  # the next call connects anew
            raise ToolFailure(f"the MCP server {self.name} failed: {_told(error)}") from None
        except (RuntimeError, ValidationError) as error:  # what it sent is not what it said that it would send
            raise ToolFailure(f"the MCP server {self.name} sent a damaged result: {_told(error)}") from None
        text = _text_of(result)
        if result.is_error:
            raise ToolFailure(text)
        return text

    async def _open(self) -> mcp.Client:
        """The client, connected.

        Raises:
            ToolFailure: the server does not answer.
        """
        async with self._opening:
            if self._client is None:
                await self._connect()
            assert self._client is not None
            return self._client

    async def _connect(self) -> None:
        """Start the task that holds the connection: who opens one must also close it."""
        ready: asyncio.Future[mcp.Client] = asyncio.get_running_loop().create_future()
        self._left, self._scope = asyncio.Event(), anyio.CancelScope()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
            self._living = asyncio.create_task(self._live(ready, self._left, log))
            try:
                async with asyncio.timeout(_START_S):
                    self._client = await ready
            except BaseException as error:
                await self._leave()
                if not isinstance(error, Exception):
                    raise
                said = _last_lines(log)
                problem = f"no answer within {_START_S:g} s" if isinstance(error, TimeoutError) else _told(error)
                how = " ".join(self._settings.command) or self._settings.url
                raise ToolFailure(f"the server ({how}) does not answer: {problem}{said}") from None

    async def _live(self, ready: "asyncio.Future[mcp.Client]", left: asyncio.Event, log: TextIO) -> None:
        """Hold the connection until it is left."""
        try:
            with self._scope:
                async with AsyncExitStack() as stack:
                    client = await stack.enter_async_context(mcp.Client(await self._transport(stack, log)))
                    ready.set_result(client)
                    await left.wait()
        except Exception as error:  # the boundary of the connection: whatever breaks it is told by the next call
            if not ready.done():
                ready.set_exception(error)

    async def _transport(self, stack: AsyncExitStack, log: TextIO) -> Any:
        if self._settings.url is None:
            program, *arguments = self._settings.command
            env = {name: os.environ[name] for name in self._settings.env if name in os.environ}
            parameters = mcp.StdioServerParameters(command=program, args=arguments, env=env or None)
            return mcp.stdio_client(parameters, errlog=log)
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=_HTTP_TIMEOUT))
        return streamable_http_client(self._settings.url, http_client=http)

    async def _leave(self) -> None:
        """Close the connection; a program that was started is ended."""
        living, client = self._living, self._client
        self._living = self._client = None
        if living is None:
            return
        if client is None:
            self._scope.cancel()  # it is still being made
        self._left.set()
        await asyncio.wait([living])


def _text_of(result: mcp.types.CallToolResult) -> str:
    """A result as text; pictures and sounds are only named."""
    parts = [_block_text(block) for block in result.content]
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    text = "\n".join(parts).strip() or "(the result is empty)"
    if len(text) <= _MAX_RESULT_CHARS:
        return text
    return f"{text[:_MAX_RESULT_CHARS]}\n… (cut; {len(text):,} characters in all)"


def _block_text(block: object) -> str:
    match block:
        case TextContent():
            return block.text
        case EmbeddedResource(resource=TextResourceContents() as resource):
            return resource.text
        case ResourceLink():
            return f"{block.name}: {block.uri}"
        case _:
            return f"({getattr(block, 'type', 'something')} left out)"


def _told(error: BaseException) -> str:
    """What an error says, on one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error) if isinstance(error, (mcp.MCPError, WebdancerError)) else f"{type(error).__name__}: {error}"
    return redact(" ".join(text.split())[:300])


def _last_lines(log: TextIO) -> str:
    """The last of what a program wrote to stderr."""
    log.seek(0)
    lines = [line.strip() for line in log.read()[-2000:].splitlines() if line.strip()]
    return redact(f"; it said: {' / '.join(lines[-3:])}") if lines else ""
