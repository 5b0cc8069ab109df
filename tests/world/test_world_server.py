"""The embedded web over real HTTP, and a web of a million pages in little memory."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import aiohttp
import pytest

from webdancer.errors import ConfigError, StoreError
from webdancer.world.server import World, serve, write_facts


async def started(world: World, log: Path | None) -> tuple[asyncio.Task[None], int]:
    ports: asyncio.Queue[int] = asyncio.Queue()
    task = asyncio.create_task(serve(world, access_log=log, on_ready=ports.put_nowait))
    return task, await asyncio.wait_for(ports.get(), 10)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_hosts_are_told_apart_by_their_header_and_requests_are_logged(tmp_path: Path) -> None:
    world = World(7, 68)
    task, port = await started(world, tmp_path / "access.jsonl")
    async with aiohttp.ClientSession(headers={"User-Agent": "tester/1"}) as session:
        for host in world.hosts():
            async with session.get(f"http://127.0.0.1:{port}/robots.txt", headers={"Host": host}) as answer:
                assert (await answer.text()).startswith(("User-agent", "# Please"))
        url = f"http://127.0.0.1:{port}/"
        async with session.get(url, headers={"Host": world.hosts()[0]}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, "/wiki/Main_Page")
        async with session.get(url + "x?y=1", headers={"Host": f"{world.hosts()[1]}:80"}) as answer:
            assert answer.status == 404
    await stop(task)
    entries = [json.loads(line) for line in (tmp_path / "access.jsonl").read_text().splitlines()]
    assert [entry["status"] for entry in entries] == [200, 200, 200, 200, 200, 302, 404]
    assert [entry["host"] for entry in entries] == [*world.hosts(), world.hosts()[0], world.hosts()[1]]
    assert entries[-1]["path"] == "/x?y=1"
    assert {entry["user_agent"] for entry in entries} == {"tester/1"}


async def test_one_path_is_slow_and_does_not_hold_up_others() -> None:
    world = World(7, 68)
    task, port = await started(world, None)
    async with aiohttp.ClientSession(headers={"Host": world.hosts()[1]}) as session:

        async def seconds(path: str) -> float:
            begun = time.monotonic()
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == 200
            return time.monotonic() - begun

        slow, *quick = await asyncio.gather(seconds("/stats"), *(seconds("/") for _ in range(20)))
    await stop(task)
    assert slow >= 0.95
    assert max(quick) < slow


def test_the_log_is_written_when_the_server_is_terminated(tmp_path: Path) -> None:
    log = tmp_path / "log" / "access.jsonl"
    code = (
        "import asyncio, sys; from pathlib import Path; from webdancer.world.server import World, serve\n"
        f"asyncio.run(serve(World(7, 68), access_log=Path({str(log)!r}), on_ready=lambda port: print(port, flush=True)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": "news.example"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    process.terminate()
    assert process.wait(10) == 0
    process.stdout.close()
    assert json.loads(log.read_text())["host"] == "news.example"


async def test_what_cannot_be_served_or_written_is_named(tmp_path: Path) -> None:
    world = World(7, 68)
    task, port = await started(world, None)
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*in use; choose another --port"):
        await serve(world, port=port)
    await stop(task)
    with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1:99999: .*0-65535"):
        await serve(world, port=99999)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"file/log: the access log cannot be written"):
        await serve(world, access_log=tmp_path / "file" / "log")
    with pytest.raises(StoreError, match=r"file/facts: could not be written"):
        write_facts(world, tmp_path / "file" / "facts")


MILLION = """
import random, resource, time
from webdancer.world.facts import World
from webdancer.world.site import place_of
world = World(3, 1_000_000)
rng = random.Random(1)
begun, num_pages = time.monotonic(), 0
for number in rng.sample(range(world.graph.plan.num_regions), 40):
    region = world.graph.region(number)
    for entity in rng.sample(list(region.entities()), 25):
        place = place_of(entity)
        assert world.respond(world.site.hosts[place.host], place.path, {}).status == 200, place
        num_pages += 1
print(num_pages, time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_a_million_pages_take_little_memory() -> None:
    result = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)
    num_pages, _, rss_mb = map(float, result.stdout.split())
    assert num_pages == 1000
    assert rss_mb < 400
