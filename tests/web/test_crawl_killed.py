"""kill -9 at random moments: after resuming, the snapshot is that of an undisturbed crawl."""

import asyncio
import json
import random
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import web
from fastwarc.warc import ArchiveIterator, WarcRecordType
from local_site import HTML, LocalSite, html

from webdancer.config import CrawlSettings
from webdancer.records import Page
from webdancer.web.crawl import crawl
from webdancer.web.snapshot import Snapshot

_PROGRAM = """
import asyncio, sys
from pathlib import Path
from webdancer.config import CrawlSettings
from webdancer.web import crawl
crawl._COMMIT_EVERY = 7  # several commits in a small site
print("begun", flush=True)
asyncio.run(crawl.crawl(CrawlSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2])))
"""
_ON_A_SMALL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from webdancer.config import CrawlSettings
from webdancer.errors import SnapshotError
from webdancer.web import crawl
crawl._COMMIT_EVERY = 7
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    asyncio.run(crawl.crawl(CrawlSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2])))
except SnapshotError as error:
    sys.exit(str(error))
"""
NUM_PAGES = 150


def make_site() -> LocalSite:
    """A binary tree of pages that each answer after a few milliseconds, leaves with equal pages and redirects among them."""

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.025)
        number = int(request.path[1:] or 1)
        if number > NUM_PAGES // 2 and number % 10 == 3:
            return web.Response(status=302, headers={"Location": f"/{number + 1}"})
        links = [f"/{n}" for n in (2 * number, 2 * number + 1) if n <= NUM_PAGES]
        title = "Page 77" if number % 10 == 7 else f"Page {number}"
        return web.Response(body=html(*links, title=title), headers={"Content-Type": HTML})

    return LocalSite({"/": page} | {f"/{n}": page for n in range(2, NUM_PAGES + 1)})


def contents(out: Path) -> list[Page | None]:
    with Snapshot.open(out) as snapshot:
        pages = [snapshot.page(url) for url in snapshot.urls()]
    return [page and page.model_copy(update={"fetched_at": None}) for page in pages]


async def killed_after(settings: CrawlSettings, out: Path, seconds: float) -> bool:
    """Crawl in a process of its own and kill it; False: it had ended before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, settings.model_dump_json(), str(out), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begun\n"
    try:
        assert await asyncio.wait_for(process.wait(), seconds) == 0
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        return True
    return False


async def test_killed_crawls_end_like_an_undisturbed_one(tmp_path: Path) -> None:
    rng = random.Random()
    async with make_site() as site:
        settings = CrawlSettings(
            urls=("http://site.example/",), resolve={"site.example": site.address}, max_per_host=2, max_depth=50
        )
        expected_counts = await crawl(settings, tmp_path / "whole")
        num_kills, out = 0, tmp_path / "killed"
        while await killed_after(settings, out, rng.uniform(0.2, 1.0)):
            num_kills += 1
            assert num_kills < 60
        counts = json.loads((out / "crawl.json").read_text())
    assert num_kills >= 2
    assert contents(out) == contents(tmp_path / "whole")
    assert urls_in_warc(out) == urls_in_warc(tmp_path / "whole")
    same = expected_counts.model_dump(exclude={"seconds", "pages_per_s"})
    assert {key: counts[key] for key in same} == same
    assert (same["num_pages"], same["num_duplicates"], same["num_redirects"]) == (136, 7, 7)


def urls_in_warc(out: Path) -> list[str]:
    return sorted(
        record.headers["WARC-Target-URI"]
        for file in sorted((out / "warc").iterdir())
        for record in ArchiveIterator(str(file), record_types=WarcRecordType.response)
    )


@pytest.mark.parametrize("max_file_bytes", [5_000, 20_000, 60_000, 90_000])
async def test_a_full_disk_loses_and_doubles_nothing(tmp_path: Path, max_file_bytes: int) -> None:
    """Files that may not grow stand for the disk, whichever of them meets the limit first."""
    out = tmp_path / "small"
    async with make_site() as site:
        settings = CrawlSettings(urls=("http://site.example/",), resolve={"site.example": site.address}, max_depth=50)
        await crawl(settings, tmp_path / "whole")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _ON_A_SMALL_DISK, settings.model_dump_json(), str(out), str(max_file_bytes),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, message = await process.communicate()
        assert process.returncode == 1
        assert "Traceback" not in message.decode()
        assert str(out) in message.decode()
        await crawl(settings, out)
    assert contents(out) == contents(tmp_path / "whole")
    assert urls_in_warc(out) == urls_in_warc(tmp_path / "whole")
    assert len(urls_in_warc(out)) == 136
