"""The crawler on the embedded web over real HTTP, checked against the pages and robots.txt that the web itself lists."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from protego import Protego

from webdancer.config import CrawlSettings
from webdancer.web.crawl import crawl
from webdancer.web.snapshot import Snapshot
from webdancer.world.facts import World
from webdancer.world.server import serve, write_facts

Settings = Callable[..., CrawlSettings]


@asynccontextmanager
async def served(world: World, log: Path) -> AsyncIterator[Settings]:
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(world, access_log=log, on_ready=ready.set_result))
    resolve = dict.fromkeys(world.hosts(), f"127.0.0.1:{await ready}")
    try:
        yield lambda **changes: CrawlSettings.model_validate({"urls": world.roots(), "resolve": resolve, **changes})
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


async def test_every_reachable_allowed_page_once_and_no_forbidden_one(tmp_path: Path) -> None:
    world, log = World(5, 340), tmp_path / "access.jsonl"
    write_facts(world, tmp_path / "facts.jsonl")
    async with served(world, log) as settings:
        counts = await crawl(settings(), tmp_path / "snapshot")
    rows = [json.loads(line) for line in (tmp_path / "facts.jsonl").read_text().splitlines()]
    pages = [row for row in rows if row["row"] == "page"]
    wanted = {row["url"] for row in pages if row["allowed"] and row["reachable"] and "same_as" not in row}
    same_as = {row["url"]: row["same_as"] for row in pages if "same_as" in row and row["allowed"]}
    assert len(wanted) > 250
    assert len(same_as) > 10
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        found = snapshot.urls()
        main_of = {url: getattr(snapshot.page(url), "url", None) for url in same_as}
    trap = [url for url in found if "/calendar/" in url]
    assert sorted(wanted) == [url for url in found if url not in trap]
    assert main_of == same_as
    assert len(trap) <= 2 * CrawlSettings().max_depth
    assert counts.num_pages == len(found)
    assert counts.num_needs_javascript >= 1

    rules = {host: Protego.parse(world.respond(host, "/robots.txt", {}).body.decode()) for host in world.hosts()}
    requests = [json.loads(line) for line in log.read_text().splitlines()]
    first: dict[str, str] = {}
    for request in requests:
        first.setdefault(request["host"], request["path"])
        assert rules[request["host"]].can_fetch(f"http://{request['host']}{request['path']}", "webdancer"), request
    assert first == dict.fromkeys(world.hosts(), "/robots.txt")
    assert max(Counter((request["host"], request["path"]) for request in requests).values()) == 1
    assert counts.num_robots_blocked > 0


async def test_the_calendar_is_left_by_its_own_limit_where_depth_is_not_one(tmp_path: Path) -> None:
    world = World(5, 113)
    async with served(world, tmp_path / "access.jsonl") as settings:
        counts = await crawl(settings(max_depth=5000, max_barren_per_pattern=30), tmp_path / "snapshot")
    with Snapshot.open(tmp_path / "snapshot") as snapshot:
        num_months = sum("/calendar/" in url for url in snapshot.urls())
    assert 30 <= num_months <= 80
    assert counts.num_trapped > 0
    assert counts.num_over_limit == 0
