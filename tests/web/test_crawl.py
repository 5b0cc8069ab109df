"""The crawler over real HTTP: limits, robots.txt, duplicates, redirects, traps, and the same pages whatever the timing."""

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from local_site import HTML, LocalSite, html

from webdancer.config import CrawlSettings
from webdancer.errors import ConfigError, SnapshotError
from webdancer.web import polite as polite_module
from webdancer.web import robots as robots_module
from webdancer.web.crawl import CrawlCounts, crawl
from webdancer.web.snapshot import Snapshot

HOST = "http://site.example"


@pytest.fixture
async def site() -> AsyncIterator[LocalSite]:
    async with LocalSite() as site:
        yield site


def settings(site: LocalSite, **changes: object) -> CrawlSettings:
    values: dict[str, object] = {
        "urls": (HOST + "/",),
        "resolve": {"site.example": site.address, "other.example": site.address},
    }
    return CrawlSettings.model_validate(values | changes)


def robots_txt(text: str) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "text/plain"}, text.encode()


def paths(out: Path) -> list[str]:
    """The pages of a snapshot, without the host."""
    with Snapshot.open(out) as snapshot:
        return [url.removeprefix(HOST) for url in snapshot.urls()]


async def test_every_page_once(site: LocalSite, tmp_path: Path) -> None:
    site.pages |= {
        "/": html("a", "b#part", "/a?utm_source=x", "mailto:x@y.example", "http://elsewhere.example/", title="Root"),
        "/a": html("b", "/", title="A"),
        "/b": html("c/", "missing", title="B"),
        "/c/": html("../a", title="C"),
    }
    seen: list[CrawlCounts] = []
    counts = await crawl(settings(site), tmp_path, on_page=seen.append)
    assert paths(tmp_path) == ["/", "/a", "/b", "/c/"]
    assert (counts.num_pages, counts.num_errors, counts.finished) == (4, {"not_found": 1}, True)
    assert sorted(site.paths) == ["/", "/a", "/b", "/c/", "/missing", "/robots.txt"]
    assert site.paths[0] == "/robots.txt"
    assert [progress.num_pages for progress in seen] == [1, 2, 3, 4, 4]
    assert json.loads((tmp_path / "crawl.json").read_text())["num_pages"] == 4
    with Snapshot.open(tmp_path) as snapshot:
        page = snapshot.page(HOST + "/b")
        assert page is not None
        assert page.links == (HOST + "/c/", HOST + "/missing")


async def test_robots_txt_comes_before_everything(site: LocalSite, tmp_path: Path) -> None:
    async def slow_rules(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response(text="User-agent: *\nDisallow: /no\nDisallow: /*.cgi$\n")

    site.pages |= {"/robots.txt": slow_rules, "/no": html(), "/a.cgi": html(), "/yes": html("/no/deep", title="Yes")}
    site.pages["/"] = html("/no", "/yes", "/a.cgi", "/jump", title="Root")
    site.pages["/jump"] = (302, {"Location": "/no/behind"}, b"")
    urls = tuple(HOST + path for path in ("/", "/no", "/yes"))
    counts = await crawl(settings(site, urls=urls), tmp_path)
    assert site.paths[0] == "/robots.txt"
    assert sorted(site.paths) == ["/", "/jump", "/robots.txt", "/yes"]
    assert (counts.num_pages, counts.num_robots_blocked, counts.num_redirects) == (2, 4, 1)


async def test_host_without_reachable_rules_is_left_alone(
    site: LocalSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robots_module, "_RETRY_AFTER_S", (0.01,))
    site.pages |= {"/robots.txt": (500, {}, b""), "/": html()}
    counts = await crawl(settings(site), tmp_path)
    assert (counts.num_pages, counts.num_robots_blocked) == (0, 1)
    assert counts.skipped_hosts == {HOST: "robots_unreachable"}
    assert set(site.paths) == {"/robots.txt"}


async def test_crawl_delay_is_kept(site: LocalSite, tmp_path: Path) -> None:
    site.pages |= {"/robots.txt": robots_txt("User-agent: *\nCrawl-delay: 0.15"), "/": html("/a", "/b", "/c")}
    site.pages |= {path: html(title=path) for path in ("/a", "/b", "/c")}
    await crawl(settings(site), tmp_path)
    gaps = [after - before for before, after in zip(site.times_s, site.times_s[1:], strict=False)]
    assert len(gaps) == 4
    assert min(gaps) > 0.14


async def test_crawl_delay_too_long_skips_the_host(site: LocalSite, tmp_path: Path) -> None:
    site.pages |= {"/robots.txt": robots_txt("User-agent: *\nCrawl-delay: 99"), "/": html("/a")}
    counts = await crawl(settings(site), tmp_path)
    assert counts.skipped_hosts == {HOST: "robots_delay_too_long"}
    assert site.paths == ["/robots.txt"]


async def test_requests_at_once_are_bounded(site: LocalSite, tmp_path: Path) -> None:
    async def slow(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.02)
        return web.Response(body=html(title=request.path), headers={"Content-Type": HTML})

    site.pages["/"] = html(*(f"/{n}" for n in range(12)))
    site.pages |= {f"/{n}": slow for n in range(12)}
    counts = await crawl(settings(site, max_per_host=3), tmp_path)
    assert (counts.num_pages, site.max_at_once) == (13, 3)


async def test_transient_failure_is_tried_again(
    site: LocalSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polite_module, "_RETRY_AFTER_S", (0.01, 0.01))
    answers = iter([web.Response(status=503), web.Response(body=html(), headers={"Content-Type": HTML})])

    async def flaky(request: web.BaseRequest) -> web.Response:
        return next(answers)

    site.pages |= {"/": flaky}
    assert (await crawl(settings(site), tmp_path)).num_pages == 1
    assert site.paths == ["/robots.txt", "/", "/"]


@pytest.mark.parametrize(
    ("changes", "expected", "num_over_limit"),
    [
        ({"max_depth": 1}, ["/", "/a/", "/b/"], 4),
        ({"max_pages": 4}, ["/", "/a/", "/a/1", "/b/"], 3),
        ({"max_pages_per_host": 2}, ["/", "/a/"], 3),
        ({"path_prefixes": ("/a/",)}, ["/", "/a/", "/a/1", "/a/2"], 0),
        ({"exclude": ("/2$", "^http://site.example/b/$")}, ["/", "/a/", "/a/1"], 0),
        ({"include": ("/b/",)}, ["/", "/b/", "/b/1", "/b/2"], 0),
    ],
)
async def test_limits_and_scope(
    site: LocalSite, tmp_path: Path, changes: dict[str, object], expected: list[str], num_over_limit: int
) -> None:
    site.pages["/"] = html("/a/", "/b/")
    site.pages |= {f"/{x}/": html("1", "2", title=x) for x in "ab"}
    site.pages |= {f"/{x}/{n}": html(title=x + n) for x in "ab" for n in "12"}
    if "max_pages_per_host" in changes:
        del site.pages["/a/1"]  # what lies beyond the limit makes no difference
    counts = await crawl(settings(site, **changes), tmp_path)
    assert paths(tmp_path) == expected
    assert (counts.num_pages, counts.num_over_limit, counts.num_errors) == (len(expected), num_over_limit, {})


async def test_page_limit_is_filled_past_errors(site: LocalSite, tmp_path: Path) -> None:
    site.pages["/"] = html(*(f"/gone/{n}" for n in range(5)), "/a", "/b", "/c")
    site.pages |= {f"/{x}": html(title=x) for x in "abc"}
    counts = await crawl(settings(site, max_pages=3), tmp_path)
    assert paths(tmp_path) == ["/", "/a", "/b"]
    assert counts.num_errors == {"not_found": 5}


async def test_other_hosts_only_where_wanted(site: LocalSite, tmp_path: Path) -> None:
    site.pages |= {"site.example/": html("http://other.example/"), "other.example/": html(title="Other")}
    assert (await crawl(settings(site), tmp_path / "one")).num_pages == 1
    assert {host for host, _ in site.requests} == {"site.example"}
    assert (await crawl(settings(site, same_host=False), tmp_path / "two")).num_pages == 2
    assert ("other.example", "/robots.txt") in site.requests


async def test_duplicates_stand_for_the_first(site: LocalSite, tmp_path: Path) -> None:
    async def late(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response(body=html("/deep", title="Same"), headers={"Content-Type": HTML})

    site.pages |= {"/": html("/main", "/copy", "/deep"), "/main": late, "/copy": html("/deep", title="Same")}
    site.pages["/deep"] = html(title="Deep")
    counts = await crawl(settings(site), tmp_path)
    assert paths(tmp_path) == ["/", "/deep", "/main"], "the first link, though its answer came last"
    assert (counts.num_pages, counts.num_duplicates) == (3, 1)
    with Snapshot.open(tmp_path) as snapshot:
        page = snapshot.page(HOST + "/copy")
        assert page is not None
        assert page.url == HOST + "/main"


async def test_redirects_stand_for_their_target(site: LocalSite, tmp_path: Path) -> None:
    site.pages["/"] = html("/old", "/new", "/x", "/self", "/away", "/chain/1", "/broken")
    site.pages |= {
        "/old": (301, {"Location": "/older"}, b""),
        "/older": (301, {"Location": "/new"}, b""),
        "/new": html(title="New"),
        "/x": (302, {"Location": "/y"}, b""),
        "/y": (302, {"Location": "/x"}, b""),
        "/self": (302, {"Location": "/self"}, b""),
        "/away": (302, {"Location": "http://elsewhere.example/"}, b""),
        "/broken": (302, {"Location": "javascript:0"}, b""),
    }
    site.pages |= {f"/chain/{n}": (302, {"Location": f"/chain/{n + 1}"}, b"") for n in range(1, 9)}
    counts = await crawl(settings(site, max_redirects=3), tmp_path)
    assert paths(tmp_path) == ["/", "/new"]
    assert site.paths.count("/new") == 1
    assert counts.num_redirects == 5, "old, older, chain 1 to 3"
    problems = {"bad_redirect": 1, "out_of_scope": 1, "redirect_loop": 3, "too_many_redirects": 1}
    assert counts.num_errors == problems
    with Snapshot.open(tmp_path) as snapshot:
        page = snapshot.page(HOST + "/old")
        assert page is not None
        assert page.url == HOST + "/new"


async def test_hard_pages(site: LocalSite, tmp_path: Path) -> None:
    """latin-1, gzip, a bomb, a huge body, a slow path, an image, JavaScript: each ends as it should."""

    async def slow(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(5)
        return web.Response(text="late")

    packed = {"Content-Type": HTML, "Content-Encoding": "gzip"}
    latin = html(title="Käse", text="Über den Käse wird hier gesprochen, und zwar mit schönen Umlauten in jedem Satz.")
    app = b"<html><head><title>App</title></head><body><div id=app></div><script src=a.js></script></body></html>"
    site.pages |= {
        "/": html("/latin", "/gzip", "/bomb", "/huge", "/slow", "/image", "/app"),
        "/latin": (200, {"Content-Type": "text/html; charset=iso-8859-1"}, latin.decode().encode("latin-1")),
        "/gzip": (200, packed, gzip.compress(html(title="Packed"))),
        "/bomb": (200, packed, gzip.compress(b"<p>" + b"a" * 9_000_000)),
        "/huge": b"<p>" + b"many words " * 60_000,
        "/slow": slow,
        "/image": (200, {"Content-Type": "image/jpeg"}, b"\xff\xd8"),
        "/app": app,
    }
    counts = await crawl(settings(site, max_bytes=500_000, timeout_s=0.5), tmp_path)
    assert paths(tmp_path) == ["/", "/app", "/gzip", "/latin"]
    # the bomb passes the largest size before it is large enough to be called a bomb
    assert counts.num_errors == {"timeout": 1, "too_large": 2, "unsupported_type": 1}
    assert counts.num_needs_javascript == 1
    with Snapshot.open(tmp_path) as snapshot:
        page = snapshot.page(HOST + "/latin")
        assert page is not None
        assert (page.title, "schönen Umlauten" in page.text) == ("Käse", True)


def calendar(request: web.BaseRequest) -> bytes:
    """Months without end, each with its days, in both directions."""
    _, _, year, month, *day = request.path.split("/")
    names = [chr(ord("A") + number) * 3 for number in range(12)]
    if day:
        return html(f"/calendar/{year}/{month}", title=f"{day[0]} {names[int(month) - 1]} {year}", text="No events.")
    count = int(year) * 12 + int(month) - 1
    around = [f"/calendar/{n // 12}/{n % 12 + 1:02}" for n in (count - 1, count + 1)]
    days = [f"/calendar/{year}/{month}/{n}" for n in range(1, 4)]
    return html(*around, *days, title=f"{names[int(month) - 1]} {year}", text="There are no events in this month.")


async def test_endless_calendar_is_left_and_a_numbered_archive_is_not(site: LocalSite, tmp_path: Path) -> None:
    async def month(request: web.BaseRequest) -> web.Response:
        return web.Response(body=calendar(request), headers={"Content-Type": HTML})

    class Endless(dict):  # type: ignore[type-arg]
        def get(self, key: str, default: object = None) -> object:
            return month if key.startswith("/calendar/") else super().get(key, default)

    words = [f"{a}{b}" for a in ("ash", "birch", "cedar", "elm", "fir") for b in ("wood", "leaf", "root", "bark")]
    papers = {
        f"/abs/{n}": html(f"/abs/{n - 1}", f"/abs/{n + 1}", title=f"On {a} and {b}")
        for n, (a, b) in enumerate([(a, b) for a in words for b in words][:300])
    }
    site.pages = Endless(papers | {"/": html("/calendar/2024/05", "/abs/0", "/abs/299", title="Root")})
    counts = await crawl(settings(site, max_depth=10_000, max_barren_per_pattern=40), tmp_path)
    found = paths(tmp_path)
    assert [path for path in found if path.startswith("/abs/")] == sorted(papers)
    num_days = sum(path.startswith("/calendar/") for path in found)
    assert 40 <= num_days <= 140
    assert counts.num_trapped > 0


async def test_path_that_repeats_itself(site: LocalSite, tmp_path: Path) -> None:
    async def deeper(request: web.BaseRequest) -> web.Response:
        return web.Response(body=html("a/", title=request.path), headers={"Content-Type": HTML})

    site.pages = {"/": html("/a/")} | {"/" + "a/" * n: deeper for n in range(1, 50)}
    counts = await crawl(settings(site, max_depth=1000), tmp_path)
    assert paths(tmp_path) == ["/", "/a/", "/a/a/", "/a/a/a/"]
    assert counts.num_trapped == 1


async def test_urls_that_grow(site: LocalSite, tmp_path: Path) -> None:
    site.pages = {"/": html("/" + "x" * 300)}
    assert (await crawl(settings(site, max_url_length=200), tmp_path)).num_trapped == 1


def random_site(seed: int) -> dict[str, bytes | object]:
    """60 pages with random links, some equal, some redirects, each answering after a random while."""
    rng = random.Random(seed)
    delays = random.Random()

    def page(number: int) -> object:
        links = [f"/p{rng.choice('abcdef')}{rng.randrange(10)}" for _ in range(6)]
        body = html(*links, title=f"Page {number}")

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            await asyncio.sleep(delays.random() * 0.02)
            return web.Response(body=body, headers={"Content-Type": HTML})

        return answer

    pages = {f"/p{x}{n}": page(n) for x in "abcdef" for n in range(10)}
    pages |= {f"/pa{n}": (302, {"Location": f"/pb{n}"}, b"") for n in range(4)}
    pages |= {f"/pc{n}": pages["/pd0"] for n in range(4)}
    pages["/"] = html(*(f"/p{x}{n}" for x in "ace" for n in (1, 2, 7)))
    return pages


@pytest.mark.parametrize("changes", [{}, {"max_pages": 17}, {"max_depth": 2}])
async def test_same_site_gives_the_same_pages(site: LocalSite, tmp_path: Path, changes: dict[str, object]) -> None:
    site.pages = random_site(3)  # type: ignore[assignment]
    results = []
    for number in range(3):
        counts = await crawl(settings(site, **changes), tmp_path / str(number))
        results.append((paths(tmp_path / str(number)), counts.model_copy(update={"seconds": 0.0, "pages_per_s": 0.0})))
    assert results[0] == results[1] == results[2]
    assert results[0][1].num_pages > 10


async def test_finished_crawl_is_not_repeated(site: LocalSite, tmp_path: Path) -> None:
    site.pages["/"] = html()
    first = await crawl(settings(site), tmp_path)
    num_requests = len(site.requests)
    assert await crawl(settings(site), tmp_path) == first
    assert len(site.requests) == num_requests


async def test_crawl_without_any_page_can_be_repeated(
    site: LocalSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was down; the same command must be able to find it up again."""
    monkeypatch.setattr(robots_module, "_RETRY_AFTER_S", (0.01,))
    site.pages["/robots.txt"] = (500, {}, b"")
    first = await crawl(settings(site), tmp_path)
    assert (first.num_pages, first.num_robots_blocked, first.finished) == (0, 1, True)
    del site.pages["/robots.txt"]
    site.pages["/"] = html()
    second = await crawl(settings(site), tmp_path)
    assert (second.num_pages, second.num_robots_blocked, second.finished) == (1, 0, True)


async def test_own_headers_replace_ours_and_robots_txt_is_read_for_the_own_name(
    site: LocalSite, tmp_path: Path
) -> None:
    seen = []

    async def page(request: web.BaseRequest) -> web.Response:
        seen.append((request.headers.getall("User-Agent"), request.headers["X-Key"]))
        return web.Response(body=html("/private"), headers={"Content-Type": HTML})

    site.pages["/"] = site.pages["/private"] = page
    site.pages["/robots.txt"] = robots_txt("User-agent: mybot\nDisallow: /private\n")
    counts = await crawl(settings(site, headers={"user-agent": "mybot/2", "X-Key": "1"}), tmp_path)
    assert seen == [(["mybot/2"], "1")]
    assert (counts.num_pages, counts.num_robots_blocked) == (1, 1)


async def test_other_settings_need_another_folder(site: LocalSite, tmp_path: Path) -> None:
    site.pages["/"] = html()
    await crawl(settings(site), tmp_path)
    await crawl(settings(site, timeout_s=7.0, max_per_host=2), tmp_path)
    with pytest.raises(SnapshotError, match=r"other settings \(max_depth: got 3, begun with 12\)"):
        await crawl(settings(site, max_depth=3), tmp_path)


async def test_two_crawls_cannot_share_a_folder(site: LocalSite, tmp_path: Path) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(request: web.BaseRequest) -> web.Response:
        started.set()
        await go_on.wait()
        return web.Response(body=html(), headers={"Content-Type": HTML})

    site.pages["/"] = wait
    first = asyncio.create_task(crawl(settings(site), tmp_path))
    await started.wait()
    with pytest.raises(SnapshotError, match="another process is crawling into this folder"):
        await crawl(settings(site), tmp_path)
    go_on.set()
    assert (await first).num_pages == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"urls": ()}, "crawl.urls is empty"),
        ({"urls": ("site.example",)}, "got 'site.example', expected an http"),
        ({"include": ("(",)}, r"crawl.include: got '\('"),
        ({"resolve": {"a": "b"}}, "expected address:port"),
        ({"headers": {"Bad name": "x"}}, "got the header 'Bad name': 'x', expected an HTTP header"),
        ({"headers": {"X": "a\r\nY: b"}}, "expected an HTTP header on one line"),
    ],
)
async def test_wrong_settings(site: LocalSite, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await crawl(settings(site, **changes), tmp_path)


async def test_cancelled_crawl_goes_on_where_it_stopped(site: LocalSite, tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.03)
        if request.path == "/8":
            reached.set()
        number = int(request.path[1:])
        return web.Response(body=html(f"/{number + 1}", title=f"Page {number}"), headers={"Content-Type": HTML})

    site.pages = {"/": html("/1")} | {f"/{n}": slow for n in range(1, 21)}
    running = asyncio.create_task(crawl(settings(site, max_depth=100), tmp_path))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(SnapshotError, match="unfinished"):
        Snapshot.open(tmp_path)
    counts = await crawl(settings(site, max_depth=100), tmp_path)
    assert (counts.num_pages, counts.num_errors) == (21, {"not_found": 1})
    assert max(site.paths.count(f"/{n}") for n in range(1, 21)) <= 2
    assert site.paths.count("/1") == 1
