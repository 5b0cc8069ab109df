"""Serves the embedded web: all hosts on one loopback port, told apart by the Host header; writes its facts to a file."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from webdancer.errors import ConfigError, StoreError
from webdancer.world.facts import World
from webdancer.world.graph import Entity, Fact

__all__ = ["World", "serve", "stop_at_end_of_stdin", "write_facts"]

_log = logging.getLogger(__name__)
_FLUSH_EVERY_S = 1.0


class AccessLog:
    """Requests as JSON lines: host, path, status, user_agent, time (seconds since 1970). Kept in memory between flushes."""

    def __init__(self, path: Path | None) -> None:
        self._lines: list[str] = []
        self._file = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab", buffering=0)
            except OSError as error:
                raise ConfigError(f"{path}: the access log cannot be written: {error.strerror}") from None

    def add(self, request: web.BaseRequest, status: int) -> None:
        """Note one answered request."""
        if self._file is not None:
            agent = request.headers.get("User-Agent", "")
            host = request.host.partition(":")[0]
            entry = {"host": host, "path": request.raw_path, "status": status, "user_agent": agent, "time": time.time()}
            self._lines.append(json.dumps(entry) + "\n")

    def flush(self) -> None:
        """Write what has gathered, in one piece: a server that is killed, or another on the same log, tears no line."""
        if self._file is not None:
            lines, self._lines = self._lines, []
            self._file.write("".join(lines).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()


async def serve(
    world: World,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    access_log: Path | None = None,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until cancelled or terminated (SIGTERM).

    Args:
        port: 0 takes a free one.
        access_log: JSON lines are appended to this file, each second and at the end.
        on_ready: called with the port once requests are accepted.

    Raises:
        ConfigError: the address or port cannot be had, or the log cannot be written.
    """
    with AccessLog(access_log) as log:

        async def handle(request: web.BaseRequest) -> web.Response:
            answer = world.respond(request.host, request.raw_path, request.headers)
            if answer.delay_s:
                await asyncio.sleep(answer.delay_s)
            log.add(request, answer.status)
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

        runner = web.ServerRunner(web.Server(handle, access_log=None), handle_signals=False)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, address, port).start()
            except (OSError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ConfigError(f"cannot listen on {address}:{port}: {reason}; choose another --port") from None
            bound = runner.addresses[0][1]
            _log.info("seed %d: %d hosts on %s:%d", world.seed, len(world.hosts()), address, bound)
            if on_ready is not None:
                on_ready(bound)
            await _until_stopped(log)
        finally:
            await runner.cleanup()


async def _until_stopped(log: AccessLog) -> None:
    """Flush the log each second until SIGTERM arrives or the task is cancelled."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
    try:
        while not stopped.is_set():
            try:
                await asyncio.wait_for(stopped.wait(), _FLUSH_EVERY_S)
            except TimeoutError:
                log.flush()
    finally:
        if in_main_thread:
            loop.remove_signal_handler(signal.SIGTERM)


def write_facts(world: World, path: Path) -> None:
    """Write entities, facts (with the URLs of all pages that state them) and pages as JSON lines.

    No stage reads this file; tests and evaluation do. A web of many regions is written one region at a time.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            for number in range(world.graph.plan.num_regions):
                for row in _region_rows(world, number):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: could not be written: {error.strerror}; free some space or choose another file"
        ) from error


def _region_rows(world: World, number: int) -> list[dict[str, object]]:
    region = world.graph.region(number)
    docs = list(world.docs(region))
    pages: dict[Fact, list[str]] = {}
    for doc in docs:
        url = world.site.url(doc.place)
        for fact in dict.fromkeys(doc.stated):
            pages.setdefault(fact, []).append(url)
    rows: list[dict[str, object]] = [_entity_row(world, entity) for entity in region.entities()]
    rows += [_fact_row(fact, pages.get(fact, [])) for fact in region.facts()]
    for page in world.page_rows(docs):
        row: dict[str, object] = {"row": "page", "url": page.url, "allowed": page.allowed, "reachable": page.reachable}
        rows.append(row if page.same_as is None else {**row, "same_as": page.same_as})
    return rows


def _entity_row(world: World, entity: Entity) -> dict[str, object]:
    return {
        "row": "entity",
        "key": entity.key,
        "type": entity.type,
        "name": entity.name,
        "title": entity.title,
        "aliases": list(entity.aliases),
        "url": world.url_of(entity),
    }


def _fact_row(fact: Fact, pages: list[str]) -> dict[str, object]:
    return {
        "row": "fact",
        "subject": fact.subject.key,
        "relation": fact.relation,
        "object": fact.object.key if fact.object is not None else None,
        "value": fact.value,
        "year": fact.year,
        "current": fact.current,
        "pages": pages,
    }


def stop_at_end_of_stdin() -> None:
    """Ask this process to end once whoever started it is gone, even by kill -9."""

    def wait() -> None:
        while os.read(0, 4096):  # not sys.stdin: a thread that waits in it breaks the interpreter's end
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
