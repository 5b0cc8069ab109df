"""robots.txt, its rules and its failures."""

from collections.abc import AsyncIterator

import pytest
from local_site import LocalSite

from webdancer.config import CrawlSettings
from webdancer.web import robots as robots_module
from webdancer.web.fetch import Fetcher
from webdancer.web.robots import HostRules, Robots, RobotsState

HOST = "http://site.example"


@pytest.fixture
async def site() -> AsyncIterator[LocalSite]:
    async with LocalSite() as site:
        yield site


async def rules(site: LocalSite, **changes: object) -> HostRules:
    resolve = {"site.example": site.address, "other.example": site.address}
    settings = CrawlSettings.model_validate({"resolve": resolve, **changes})
    async with Fetcher(settings) as fetcher:
        return await Robots(fetcher, settings).rules(HOST + "/x")


def robots_txt(text: str) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "text/plain"}, text.encode()


async def test_wildcards_and_longest_match(site: LocalSite) -> None:
    site.pages["/robots.txt"] = robots_txt(
        "User-agent: *\nDisallow: /private/\nAllow: /private/open/\nDisallow: /*.cgi$\nDisallow: /*?print=\n"
    )
    found = await rules(site)
    assert found.state is RobotsState.RULES
    allowed = {
        path: found.allows(HOST + path) for path in ("/", "/private/a", "/private/open/a", "/a.cgi", "/a.cgi?x=1")
    }
    assert allowed == {"/": True, "/private/a": False, "/private/open/a": True, "/a.cgi": False, "/a.cgi?x=1": True}
    assert not found.allows(HOST + "/a?print=1")


async def test_own_group_wins_over_the_star(site: LocalSite) -> None:
    site.pages["/robots.txt"] = robots_txt(
        "User-agent: *\nDisallow: /\n\nUser-agent: WebDancer\nDisallow: /no\nCrawl-delay: 0.5"
    )
    found = await rules(site)
    assert found.allows(HOST + "/x")
    assert not found.allows(HOST + "/no")
    assert found.delay_s == 0.5


async def test_request_rate_is_a_delay(site: LocalSite) -> None:
    site.pages["/robots.txt"] = robots_txt("User-agent: *\nRequest-rate: 1/4\nCrawl-delay: 2\n")
    assert (await rules(site)).delay_s == 4.0


async def test_byte_order_mark(site: LocalSite) -> None:
    site.pages["/robots.txt"] = robots_txt("\ufeffUser-agent: *\nDisallow: /x\n")
    assert not (await rules(site)).allows(HOST + "/x")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_4xx_allows_all(site: LocalSite, status: int) -> None:
    site.pages["/robots.txt"] = (status, {}, b"User-agent: *\nDisallow: /")
    found = await rules(site)
    assert (found.state, found.allows(HOST + "/x")) == (RobotsState.ABSENT, True)


async def test_5xx_is_asked_again_then_forbids_all(site: LocalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots_module, "_RETRY_AFTER_S", (0.01, 0.01))
    site.pages["/robots.txt"] = (503, {}, b"")
    found = await rules(site)
    assert (found.state, found.allows(HOST + "/x")) == (RobotsState.UNREACHABLE, False)
    assert site.paths == ["/robots.txt"] * 3


async def test_unreachable_forbids_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots_module, "_RETRY_AFTER_S", ())
    async with LocalSite() as site:
        pass
    assert (await rules(site)).state is RobotsState.UNREACHABLE


async def test_crawl_delay_above_the_limit(site: LocalSite) -> None:
    site.pages["/robots.txt"] = robots_txt("User-agent: *\nCrawl-delay: 31\n")
    found = await rules(site)
    assert (found.state, found.allows(HOST + "/x")) == (RobotsState.DELAY_TOO_LONG, False)


async def test_redirect_to_another_hosts_robots_txt(site: LocalSite) -> None:
    site.pages |= {
        "site.example/robots.txt": (301, {"Location": "http://other.example/robots.txt"}, b""),
        "other.example/robots.txt": robots_txt("User-agent: *\nDisallow: /x\n"),
    }
    assert not (await rules(site)).allows(HOST + "/x")


async def test_redirect_to_a_page_is_no_robots_txt_and_not_fetched(site: LocalSite) -> None:
    site.pages["/robots.txt"] = (302, {"Location": "/login"}, b"")
    assert (await rules(site)).state is RobotsState.ABSENT
    assert site.paths == ["/robots.txt"]


async def test_disobedience_asks_for_nothing(site: LocalSite) -> None:
    assert (await rules(site, obey_robots=False)).allows(HOST + "/x")
    assert site.paths == []
