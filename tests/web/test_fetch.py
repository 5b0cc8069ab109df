"""The fetcher against a real server that misbehaves."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from local_site import HTML, Answer, LocalSite, html

from webdancer.config import CrawlSettings
from webdancer.errors import ConfigError
from webdancer.web.addresses import AddressPolicy
from webdancer.web.fetch import Fetcher, FetchProblem, FetchResult
from webdancer.web.resolver import CheckedResolver

HOST = "http://site.example"


@pytest.fixture
async def site() -> AsyncIterator[LocalSite]:
    async with LocalSite() as site:
        yield site


def settings(site: LocalSite, **changes: object) -> CrawlSettings:
    return CrawlSettings.model_validate({"resolve": {"site.example": site.address}, **changes})


async def fetch(site: LocalSite, path: str, **changes: object) -> FetchResult:
    async with Fetcher(settings(site, **changes)) as fetcher:
        return await fetcher.fetch(HOST + path)


async def test_resolved_host_keeps_its_name(site: LocalSite) -> None:
    site.pages["/a"] = html(title="A")
    result = await fetch(site, "/a", headers={"X-Own": "yes"}, user_agent="tester/1")
    assert (result.problem, result.status, result.url) == (None, 200, HOST + "/a")
    assert result.body == result.raw == html(title="A")
    assert site.requests == [("site.example", "/a")]
    assert site.headers[0]["X-Own"] == "yes"
    assert site.headers[0]["User-Agent"] == "tester/1"


async def test_escapes_are_sent_as_given(site: LocalSite) -> None:
    site.pages["/a%2Fb?q=%26"] = html()
    assert (await fetch(site, "/a%2Fb?q=%26")).problem is None


@pytest.mark.parametrize("value", ["127.0.0.1", "127.0.0.1:x", ":80", "127.0.0.1:0", "127.0.0.1:70000"])
def test_bad_resolve_entry(value: str) -> None:
    async def build() -> None:
        CheckedResolver({"a.example": value}, AddressPolicy())

    with pytest.raises(ConfigError, match=r"a\.example.*expected address:port"):
        asyncio.run(build())


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        ("gzip", gzip.compress(b"hello page", mtime=0)),
        ("gzip", gzip.compress(b"hello ", mtime=0) + gzip.compress(b"page", mtime=0) + b"\0\0"),
        ("deflate", zlib.compress(b"hello page")),
        ("deflate", zlib.compress(b"hello page")[2:-4]),
    ],
)
async def test_encodings(site: LocalSite, encoding: str, raw: bytes) -> None:
    site.pages["/z"] = (200, {"Content-Type": HTML, "Content-Encoding": encoding}, raw)
    result = await fetch(site, "/z")
    assert (result.problem, result.body, result.raw) == (None, b"hello page", raw)


async def test_large_gzip_body_comes_whole(site: LocalSite) -> None:
    text = b"".join(b"line %d of a long page\n" % number for number in range(60_000))
    site.pages["/z"] = (200, {"Content-Type": HTML, "Content-Encoding": "gzip"}, gzip.compress(text))
    assert (await fetch(site, "/z")).body == text


@pytest.mark.parametrize(
    ("headers", "body", "problem"),
    [
        ({"Content-Encoding": "gzip"}, b"no gzip at all", FetchProblem.BAD_ENCODING),
        ({"Content-Encoding": "br"}, b"brotli", FetchProblem.BAD_ENCODING),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"x" * 5000, mtime=0)[:-12], FetchProblem.TRUNCATED),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"\0" * 30_000_000, mtime=0), FetchProblem.COMPRESSION_BOMB),
        ({}, b"x" * 300_001, FetchProblem.TOO_LARGE),
        ({"Content-Type": "image/png"}, b"\x89PNG", FetchProblem.UNSUPPORTED_TYPE),
        ({"Content-Type": "application/octet-stream"}, b"x", FetchProblem.UNSUPPORTED_TYPE),
        ({"Content-Type": "text/css"}, b"a{}", FetchProblem.UNSUPPORTED_TYPE),
        ({"Content-Type": "image/svg+xml"}, b"<svg/>", FetchProblem.UNSUPPORTED_TYPE),
    ],
)
async def test_refused(site: LocalSite, headers: dict[str, str], body: bytes, problem: FetchProblem) -> None:
    site.pages["/x"] = (200, {"Content-Type": HTML} | headers, body)
    limit = 300_000 if problem is FetchProblem.TOO_LARGE else 20_000_000
    result = await fetch(site, "/x", max_bytes=limit)
    assert (result.problem, result.body) == (problem, b"")


@pytest.mark.parametrize("kind", ["application/pdf", "text/plain", "application/rss+xml", "application/ld+json"])
async def test_text_types_pass(site: LocalSite, kind: str) -> None:
    site.pages["/x"] = (200, {"Content-Type": kind}, b"words")
    assert (await fetch(site, "/x")).body == b"words"


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (404, FetchProblem.NOT_FOUND),
        (410, FetchProblem.NOT_FOUND),
        (403, FetchProblem.CLIENT_ERROR),
        (429, FetchProblem.SERVER_ERROR),
        (503, FetchProblem.SERVER_ERROR),
        (304, FetchProblem.CLIENT_ERROR),
    ],
)
async def test_status(site: LocalSite, status: int, problem: FetchProblem) -> None:
    site.pages["/x"] = (status, {}, b"")
    result = await fetch(site, "/x")
    assert (result.status, result.problem) == (status, problem)


def endless(piece: bytes, pause_s: float) -> Answer:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": HTML})
        await response.prepare(request)
        while True:
            await response.write(piece)
            await asyncio.sleep(pause_s)

    return answer


async def test_endless_body_is_cut_by_size(site: LocalSite) -> None:
    site.pages["/x"] = endless(b"x" * 50_000, 0)
    assert (await fetch(site, "/x", max_bytes=200_000)).problem is FetchProblem.TOO_LARGE


async def test_dripping_body_is_cut_by_time(site: LocalSite) -> None:
    site.pages["/x"] = endless(b"x", 0.02)
    assert (await fetch(site, "/x", timeout_s=0.3)).problem is FetchProblem.TIMEOUT


async def test_image_without_end_is_refused_before_its_body(site: LocalSite) -> None:
    async def image(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        await asyncio.sleep(5)
        return response

    site.pages["/x"] = image
    async with asyncio.timeout(2):
        assert (await fetch(site, "/x")).problem is FetchProblem.UNSUPPORTED_TYPE


async def test_body_cut_off_by_the_server(site: LocalSite) -> None:
    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": HTML, "Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    site.pages["/x"] = cut
    assert (await fetch(site, "/x")).problem is FetchProblem.TRUNCATED


async def test_nothing_listens() -> None:
    async with LocalSite() as site:
        pass
    assert (await fetch(site, "/x")).problem is FetchProblem.CONNECTION


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "127.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"],
)
async def test_private_addresses_are_not_asked(site: LocalSite, host: str) -> None:
    """Whoever writes a link or a redirect must not reach the services of this machine or its network."""
    port = site.address.rpartition(":")[2]
    async with Fetcher(settings(site)) as fetcher:
        result = await fetcher.fetch(f"http://{host}:{port}/x")
    # aiohttp itself refuses other spellings of an IPv4 address
    assert result.problem is (
        FetchProblem.INVALID_URL if host in ("127.1", "2130706433") else FetchProblem.PRIVATE_ADDRESS
    )
    assert site.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_private_addresses_that_the_user_names_are_asked(site: LocalSite, host: str) -> None:
    url = f"http://{host}:{site.address.rpartition(':')[2]}/x"
    site.pages["/x"] = b"here"
    async with Fetcher(settings(site, urls=(url,))) as fetcher:
        assert (await fetcher.fetch(url)).body == b"here"


async def test_tls_against_a_plain_server(site: LocalSite) -> None:
    async with Fetcher(settings(site)) as fetcher:
        result = await fetcher.fetch("https://site.example/x")
    assert result.problem in (FetchProblem.TLS, FetchProblem.CONNECTION)


async def test_redirects_are_followed_and_listed(site: LocalSite) -> None:
    site.pages |= {
        "/a": (301, {"Location": "b"}, b""),
        "/b": (302, {"Location": "//site.example/c?utm_source=x#top"}, b""),
        "/c": html(title="C"),
    }
    result = await fetch(site, "/a")
    assert (result.url, result.problem) == (HOST + "/c", None)
    assert result.redirects == ((HOST + "/a", HOST + "/b"), (HOST + "/b", HOST + "/c"))


@pytest.mark.parametrize(
    ("target", "problem", "num_requests"),
    [
        ("/a", FetchProblem.REDIRECT_LOOP, 1),
        ("/b", FetchProblem.REDIRECT_LOOP, 2),
        ("/1", FetchProblem.TOO_MANY_REDIRECTS, 4),
        ("ftp://site.example/", FetchProblem.BAD_REDIRECT, 1),
        ("http://[/", FetchProblem.BAD_REDIRECT, 1),
    ],
)
async def test_redirects_that_lead_nowhere(
    site: LocalSite, target: str, problem: FetchProblem, num_requests: int
) -> None:
    site.pages |= {"/a": (302, {"Location": target}, b""), "/b": (302, {"Location": "/a"}, b"")}
    site.pages |= {f"/{n}": (302, {"Location": f"/{n + 1}"}, b"") for n in range(1, 9)}
    result = await fetch(site, "/a", max_redirects=3)
    assert (result.problem, len(site.requests)) == (problem, num_requests)


async def test_each_hop_is_checked(site: LocalSite) -> None:
    site.pages |= {"/a": (302, {"Location": "/b"}, b""), "/b": (302, {"Location": "/secret"}, b"")}

    async def check(url: str) -> FetchProblem | None:
        return FetchProblem.OUT_OF_SCOPE if url.endswith("/secret") else None

    async with Fetcher(settings(site)) as fetcher:
        result = await fetcher.fetch(HOST + "/a", check_hop=check)
    assert result.problem is FetchProblem.OUT_OF_SCOPE
    assert site.paths == ["/a", "/b"]


async def test_cookies_are_not_kept(site: LocalSite) -> None:
    site.pages |= {"/a": (200, {"Content-Type": HTML, "Set-Cookie": "id=1"}, b"a"), "/b": b"b"}
    async with Fetcher(settings(site)) as fetcher:
        await fetcher.fetch(HOST + "/a")
        await fetcher.fetch(HOST + "/b")
    assert "Cookie" not in site.headers[1]


@pytest.mark.parametrize("url", ["http://", "http://a b/", "http://xn--/", "http://" + "a" * 300 + "/", "nonsense"])
async def test_hostile_urls_give_a_problem(site: LocalSite, url: str) -> None:
    async with Fetcher(settings(site, timeout_s=3.0)) as fetcher:
        assert (await fetcher.fetch(url)).problem is not None
