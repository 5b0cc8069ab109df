"""The live reader against a local site."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hostile import TableDns
from local_site import HTML, LocalSite, html
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen import canvas

from webdancer.config import CrawlSettings
from webdancer.records import Page
from webdancer.web import memory as memory_module
from webdancer.web import polite as polite_module
from webdancer.web import robots as robots_module
from webdancer.web.fetch import FetchResult
from webdancer.web.live import LiveReader
from webdancer.web.protocol import PageNotFound, ToolFailure

HOST = "http://site.example"


@pytest.fixture
async def site() -> AsyncIterator[LocalSite]:
    async with LocalSite() as site:
        yield site


@asynccontextmanager
async def open_reader(
    site: LocalSite, *, cache_s: float = 600.0, seen: list[tuple[Page, FetchResult]] | None = None, **changes: object
) -> AsyncIterator[LiveReader]:
    names = ("site.example", "other.example")
    given = {"resolve": dict.fromkeys(names, site.address), "timeout_s": 5.0}
    on_page = None if seen is None else lambda page, response: seen.append((page, response))
    settings = CrawlSettings.model_validate(given | changes)
    async with LiveReader(settings, cache_s=cache_s, on_page=on_page, dns=TableDns({})) as reader:
        yield reader


def pages_asked(site: LocalSite) -> list[str]:
    return [path for path in site.paths if path != "/robots.txt"]


async def test_a_page_is_read_with_all_its_fields(site: LocalSite) -> None:
    site.pages["/a"] = html("/b", title="Ferry", text="The ferry of Varn was built in 1931 and still runs every day.")
    async with open_reader(site) as reader:
        page = await reader.read(f" {HOST}/a?utm_source=x#top ")
    assert (page.url, page.title) == (HOST + "/a", "Ferry")
    assert "built in 1931" in page.text
    assert page.links == (HOST + "/b",)
    assert page.content_hash == hashlib.sha256(site.pages["/a"]).hexdigest()  # type: ignore[arg-type]
    assert site.paths == ["/robots.txt", "/a"]


async def test_pages_and_failures_are_remembered_for_a_while(site: LocalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/a"] = html()
    now_s = 1000.0
    monkeypatch.setattr(memory_module, "_now_s", lambda: now_s)
    async with open_reader(site, cache_s=600.0) as reader:
        for _ in range(2):
            await reader.read(HOST + "/a")
            with pytest.raises(PageNotFound, match=r"there is no such page \(HTTP 404\)"):
                await reader.read(HOST + "/gone")
        assert pages_asked(site) == ["/a", "/gone"]
        now_s += 599.0
        await reader.read(HOST + "/a")
        assert pages_asked(site) == ["/a", "/gone"]
        now_s += 1.0
        await reader.read(HOST + "/a")
        with pytest.raises(PageNotFound):
            await reader.read(HOST + "/gone")
        assert pages_asked(site) == ["/a", "/gone", "/a", "/gone"]


async def test_without_a_cache_nothing_is_remembered(site: LocalSite) -> None:
    site.pages["/a"] = html()
    async with open_reader(site, cache_s=0.0) as reader:
        await reader.read(HOST + "/a")
        await reader.read(HOST + "/a")
    assert pages_asked(site) == ["/a", "/a"]


async def test_the_memory_is_bounded(site: LocalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_MAX_CHARS", 3 * (memory_module._CHARS_PER_ENTRY + 1000))
    for name in "abcd":
        site.pages[f"/{name}"] = (200, {"Content-Type": "text/plain"}, name.encode() * 1000)
    async with open_reader(site) as reader:
        for name in "abcad":
            await reader.read(f"{HOST}/{name}")
        await reader.read(HOST + "/a")
        await reader.read(HOST + "/b")  # b was used longest ago when d came
    assert pages_asked(site) == ["/a", "/b", "/c", "/d", "/b"]


async def test_requests_for_one_page_are_joined(site: LocalSite) -> None:
    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return web.Response(body=html(title="Slow"), headers={"Content-Type": HTML})

    site.pages |= {"/slow": slow, "/to": (302, {"Location": "/slow"}, b"")}
    async with open_reader(site, cache_s=0.0) as reader:
        spellings = [HOST + "/slow", "HTTP://SITE.example:80/slow", HOST + "/./slow#x"]
        pages = await asyncio.gather(*(reader.read(url) for url in spellings * 10))
    assert {page.title for page in pages} == {"Slow"}
    assert pages_asked(site) == ["/slow"]


async def test_a_caller_that_gives_up_does_not_stop_the_others(site: LocalSite) -> None:
    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return web.Response(body=html(title="Slow"), headers={"Content-Type": HTML})

    site.pages["/slow"] = slow
    async with open_reader(site) as reader:
        patient = asyncio.create_task(reader.read(HOST + "/slow"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(HOST + "/slow")
        assert (await patient).title == "Slow"
    assert pages_asked(site) == ["/slow"]


async def test_a_reader_that_closes_gives_up_what_is_under_way(site: LocalSite) -> None:
    async def never(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    site.pages["/never"] = never
    async with asyncio.timeout(5):
        async with open_reader(site, timeout_s=60.0) as reader:
            task = asyncio.create_task(reader.read(HOST + "/never"))
            await asyncio.sleep(0.3)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_redirects_are_followed_and_remembered_under_both_names(site: LocalSite) -> None:
    site.pages |= {
        "site.example/a": (301, {"Location": "http://other.example/b"}, b""),
        "other.example/b": html(title="B"),
    }
    seen: list[tuple[Page, FetchResult]] = []
    async with open_reader(site, seen=seen) as reader:
        assert (await reader.read(HOST + "/a")).url == "http://other.example/b"
        await reader.read(HOST + "/a")
        await reader.read("http://other.example/b")
    assert site.requests == [
        ("site.example", "/robots.txt"),
        ("site.example", "/a"),
        ("other.example", "/robots.txt"),
        ("other.example", "/b"),
    ]
    assert [(page.url, response.redirects, response.raw) for page, response in seen] == [
        ("http://other.example/b", ((HOST + "/a", "http://other.example/b"),), html(title="B"))
    ]


async def test_each_hop_obeys_the_robots_txt_of_its_host(site: LocalSite) -> None:
    site.pages |= {
        "other.example/robots.txt": (200, {"Content-Type": "text/plain"}, b"User-agent: *\nDisallow: /secret\n"),
        "site.example/a": (302, {"Location": "http://other.example/secret"}, b""),
        "other.example/secret": html(),
    }
    async with open_reader(site) as reader:
        for url in (HOST + "/a", "http://other.example/secret"):
            with pytest.raises(ToolFailure, match=r"robots\.txt of its site forbids it"):
                await reader.read(url)
    assert ("other.example", "/secret") not in site.requests


async def test_robots_txt_is_not_asked_for_where_the_user_says_so(site: LocalSite) -> None:
    site.pages |= {"/robots.txt": (200, {}, b"User-agent: *\nDisallow: /"), "/a": html()}
    async with open_reader(site, obey_robots=False) as reader:
        await reader.read(HOST + "/a")
    assert site.paths == ["/a"]


async def test_a_redirect_to_a_private_host_is_refused_and_not_asked(site: LocalSite) -> None:
    site.pages |= {"/a": (302, {"Location": f"http://127.0.0.1:{site.port}/inside"}, b""), "/inside": html()}
    async with open_reader(site) as reader:
        with pytest.raises(ToolFailure, match=r"must not be asked for .*this machine"):
            await reader.read(HOST + "/a")
    assert pages_asked(site) == ["/a"]


@pytest.mark.parametrize(
    ("target", "told"), [("/a", "in a circle"), ("/1", "too often"), ("mailto:a@b", "no web page")]
)
async def test_redirects_that_lead_nowhere(site: LocalSite, target: str, told: str) -> None:
    site.pages |= {"/a": (302, {"Location": target}, b"")}
    site.pages |= {f"/{n}": (302, {"Location": f"/{n + 1}"}, b"") for n in range(1, 9)}
    async with open_reader(site) as reader:
        with pytest.raises(ToolFailure, match=told):
            await reader.read(HOST + "/a")


async def test_a_host_is_asked_at_its_pace_by_all_episodes_together(site: LocalSite) -> None:
    for number in range(4):
        site.pages[f"/{number}"] = html(title=f"Page {number}")
    site.pages["/robots.txt"] = (200, {"Content-Type": "text/plain"}, b"User-agent: *\nCrawl-delay: 0.2\n")
    async with open_reader(site) as reader:
        await asyncio.gather(*(reader.read(f"{HOST}/{number}") for number in range(4)))
    gaps_s = [after - before for before, after in zip(site.times_s, site.times_s[1:], strict=False)]
    assert len(gaps_s) == 4
    assert min(gaps_s) > 0.18


async def test_at_most_so_many_requests_at_once_to_a_host(site: LocalSite) -> None:
    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return web.Response(body=html(title=request.path), headers={"Content-Type": HTML})

    site.pages |= {f"/{number}": slow for number in range(9)}
    async with open_reader(site, max_per_host=3) as reader:
        await asyncio.gather(*(reader.read(f"{HOST}/{number}") for number in range(9)))
    assert site.max_at_once == 3


async def test_connections_are_kept(site: LocalSite) -> None:
    peers = set()

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(body=html(title=request.path), headers={"Content-Type": HTML})

    site.pages |= {f"/{number}": page for number in range(5)}
    async with open_reader(site) as reader:
        for number in range(5):
            await reader.read(f"{HOST}/{number}")
    assert len(peers) == 1


async def test_transient_problems_are_tried_again(site: LocalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polite_module, "_RETRY_AFTER_S", (0.01, 0.01))
    answers = [(503, b""), (429, b""), (200, html(title="At last"))]

    async def flaky(request: web.BaseRequest) -> web.StreamResponse:
        status, body = answers.pop(0)
        return web.Response(status=status, body=body, headers={"Content-Type": HTML})

    site.pages |= {"/flaky": flaky, "/down": (503, {}, b"")}
    async with open_reader(site) as reader:
        assert (await reader.read(HOST + "/flaky")).title == "At last"
        with pytest.raises(ToolFailure, match=r"its server failed \(HTTP 503\)"):
            await reader.read(HOST + "/down")
    assert pages_asked(site) == ["/flaky"] * 3 + ["/down"] * 3


@pytest.mark.parametrize(
    ("url", "kind", "told"),
    [
        ("site.example/a", PageNotFound, "not the address of a web page"),
        ("not a url", PageNotFound, "not the address of a web page"),
        ("ftp://site.example/a", PageNotFound, "only http and https"),
        ("http://127.0.0.1/", ToolFailure, "this machine"),
        ("http://site.example/" + "a" * 3000, PageNotFound, "not the URL of a web page"),
        (HOST + "/image", ToolFailure, "not a text, an HTML page or a PDF .image/png."),
        (HOST + "/empty", ToolFailure, "holds no text that can be read .text/html."),
        (HOST + "/scripts", ToolFailure, "no text unless its scripts run"),
        (HOST + "/forbidden", ToolFailure, "refuses the request .HTTP 403."),
        ("http://no-such-host.invalid/", ToolFailure, "its host has no address"),
    ],
)
async def test_failures_in_words_for_a_model(
    site: LocalSite, url: str, kind: type[ToolFailure], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robots_module, "_RETRY_AFTER_S", ())
    site.pages |= {
        "/image": (200, {"Content-Type": "image/png"}, b"\x89PNG"),
        "/empty": (200, {"Content-Type": HTML}, b"<html><body></body></html>"),
        "/scripts": (
            200,
            {"Content-Type": HTML},
            b"<html><body><div id=app></div><script src=a.js></script></body></html>",
        ),
        "/forbidden": (403, {}, b""),
    }
    async with open_reader(site) as reader:
        with pytest.raises(kind, match=told) as caught:
            await reader.read(url)
    assert type(caught.value) is kind
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("charset", "header"), [("gb18030", True), ("gb18030", False), ("big5", True), ("big5", False), ("utf-16", False)]
)
async def test_chinese_pages(site: LocalSite, charset: str, header: bool) -> None:
    text = "瓦恩渡口的渡船建於一九三一年，由工程師王芳設計，至今每日仍往返兩岸，運送旅客與貨物。" * 3
    page = f"<html><head><title>渡口</title></head><body><main><h1>渡口</h1><p>{text}</p></main></body></html>"
    kind = f"text/html; charset={charset}" if header else "text/html"
    site.pages["/zh"] = (200, {"Content-Type": kind}, page.encode(charset))
    async with open_reader(site) as reader:
        found = await reader.read(HOST + "/zh")
    assert (found.title, found.text) == ("渡口", f"# 渡口\n{text}")


async def test_pdf_and_json(site: LocalSite) -> None:
    buffer = io.BytesIO()
    pdf = canvas.Canvas(buffer, pagesize=A4)
    pdf.setTitle("Ferries")
    pdf.drawString(50, 800, "The ferry of Varn was built in 1931.")
    pdf.save()
    site.pages |= {
        "/f.pdf": (200, {"Content-Type": "application/pdf"}, buffer.getvalue()),
        "/g.PDF?v=1": (200, {"Content-Type": "binary/octet-stream"}, buffer.getvalue()),
        "/f.json": (200, {"Content-Type": "application/json"}, b'{"name": "Varn", "built": 1931}'),
    }
    async with open_reader(site) as reader:
        paper, data = await asyncio.gather(reader.read(HOST + "/f.pdf"), reader.read(HOST + "/f.json"))
        assert (await reader.read(HOST + "/g.PDF?v=1")).text == paper.text
    assert (paper.title, paper.text) == ("Ferries", "The ferry of Varn was built in 1931.")
    assert (data.title, data.text) == ("Varn", '{\n "name": "Varn",\n "built": 1931\n}')


async def test_what_the_hook_raises_reaches_the_caller_and_is_not_remembered(site: LocalSite) -> None:
    site.pages["/a"] = html()
    num_calls = 0

    def full_disk(page: Page, response: FetchResult) -> None:
        nonlocal num_calls
        num_calls += 1
        raise OSError("disk full")

    settings = CrawlSettings(resolve={"site.example": site.address})
    async with LiveReader(settings, cache_s=600, on_page=full_disk) as reader:
        for _ in range(2):
            with pytest.raises(OSError, match="disk full"):
                await reader.read(HOST + "/a")
    assert num_calls == 2
