"""`webdancer fetch`, run as the user runs it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import pytest
from local_site import LocalSite, html

LINES = [f"<p>Paragraph {n} tells of weather, trade and other matters of the day at length.</p>" for n in range(200)]


@pytest.fixture
async def site() -> AsyncIterator[LocalSite]:
    async with LocalSite() as site:
        site.pages["/a"] = html(title="Ferry", text="The ferry of Varn was built in 1931 and still runs every day.")
        long = [*LINES[:150], "<p>The keeper of the lighthouse was Odessa Quill.</p>", *LINES[150:]]
        site.pages["/long"] = html(title="Long", text="</p>" + "".join(long) + "<p>")
        yield site


async def webdancer(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "webdancer",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_page_is_printed(site: LocalSite) -> None:
    given = ("http://site.example/a", "--resolve", f"site.example={site.address}")
    code, out, err = await webdancer("fetch", *given)
    assert (code, err) == (0, "")
    assert out.startswith("Ferry\nhttp://site.example/a\n\n# Ferry\nThe ferry of Varn was built in 1931")
    code, out, err = await webdancer("fetch", *given, "--json")
    found = json.loads(out)
    assert (code, found["url"], found["title"]) == (0, "http://site.example/a", "Ferry")
    assert set(found) == {"url", "title", "text", "links", "published", "fetched_at", "content_hash"}


async def test_a_private_host_is_refused_with_the_reason_unless_it_is_allowed(site: LocalSite) -> None:
    url = f"http://127.0.0.1:{site.port}/a"
    code, out, err = await webdancer("fetch", url)
    assert (code, out) == (3, "")
    assert err == f"{url}: this URL is not read: the host's address is this machine: '127.0.0.1'\n"
    assert site.requests == []
    code, out, _ = await webdancer("fetch", url, "--allow-private", "127.0.0.0/8")
    assert (code, out.partition("\n")[0]) == (0, "Ferry")


async def test_only_the_passages_nearest_to_the_goal(site: LocalSite) -> None:
    given = ("--allow-private", "127.0.0.1", "--goal", "Who was the keeper of the lighthouse?")
    code, out, _ = await webdancer("fetch", f"http://127.0.0.1:{site.port}/long", *given)
    assert code == 0
    assert "Odessa Quill" in out
    assert len(out) < 4200


async def test_a_page_that_is_not_there(site: LocalSite) -> None:
    code, out, err = await webdancer("fetch", f"http://127.0.0.1:{site.port}/gone", "--allow-private", "127.0.0.1")
    assert (code, out) == (3, "")
    assert "there is no such page (HTTP 404)" in err


async def test_wrong_options_are_wrong_input_and_not_a_refusal() -> None:
    code, _, err = await webdancer("fetch", "http://a.example/", "--allow-private", "10.0.0.0/33")
    assert code == 2
    assert "crawl.allow_private: got '10.0.0.0/33'" in err
