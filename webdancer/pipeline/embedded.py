"""Serves an embedded web in a process of its own for as long as a crawl needs it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from protego import Protego

from webdancer.errors import WebdancerError
from webdancer.world.facts import World


@asynccontextmanager
async def serve_embedded_web(world: World, *, access_log: Path) -> AsyncIterator[dict[str, str]]:
    """Run `webdancer world serve` for a web on a free loopback port.

    Yields:
        host → `address:port`, for `crawl.resolve`.

    Raises:
        WebdancerError: the server ended before it was ready.
    """
    access_log.parent.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webdancer", "world", "serve"),
        *("--seed", str(world.seed), "--pages", str(world.num_pages), "--right-share", str(world.site.right_share)),
        *("--port", "0", "--access-log", str(access_log)),
        "--until-stdin-closes",  # so that it never outlives us
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    assert process.stdout is not None
    # A task of its own: Ctrl-C in the middle of a line that is just arriving would leave asyncio's reader in disorder.
    reading = asyncio.create_task(process.stdout.readline())
    try:
        line = await asyncio.shield(reading)
        if not line:
            raise WebdancerError(f"the embedded web (seed {world.seed}) did not start; its own message stands above")
        ready = json.loads(line)
        yield dict.fromkeys(ready["hosts"], f"{ready['address']}:{ready['port']}")
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.gather(reading, process.wait())


def count_robots_violations(world: World, access_log: Path) -> int:
    """Requests in the server's log that the robots.txt of their host forbids."""
    rules = {host: Protego.parse(world.respond(host, "/robots.txt", {}).body.decode()) for host in world.hosts()}
    num_violations = 0
    for line in access_log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        url = f"http://{entry['host']}{entry['path']}"
        num_violations += not rules[entry["host"]].can_fetch(url, entry["user_agent"])
    return num_violations
