"""Hostile servers and resolvers for tests."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from aiohttp.abc import AbstractResolver, ResolveResult

from webdancer.web.addresses import Refusal, Refused


class TableDns(AbstractResolver):
    """A resolver whose answers come from a table; a name with several answers gives the next one each time it is asked."""

    def __init__(self, answers: dict[str, Sequence[Sequence[str]]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in self._answers:
            raise OSError(socket.EAI_NONAME, "no such name")
        turn = min(self.asked.count(host), len(self._answers[host]) - 1)
        self.asked.append(host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in self._answers[host][turn]
        ]

    async def close(self) -> None:
        pass


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Counts connections and answers each with a script of raw bytes."""

    def __init__(self, script: Script, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self._script, self._address, self.port = script, address, port
        self.num_connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """`address:port`, as `resolve` takes it."""
        return f"{self._address}:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await self._script(reader, writer)
        writer.close()
        self._tasks.discard(task)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._address, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def told(refused: Refused | None) -> Refusal | None:
    """The reason alone."""
    return None if refused is None else refused.reason
