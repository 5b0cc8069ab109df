"""Servers that send too much, too slowly, or nonsense: a fetch ends in time, with a problem, and takes no more than it may."""

import asyncio
import gzip
import time
import zlib
from collections.abc import Awaitable, Callable

import pytest
from hostile import RawServer, Script

from webdancer.config import CrawlSettings
from webdancer.web.extract import extract
from webdancer.web.fetch import Fetcher, FetchProblem, FetchResult

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
Write = Callable[[bytes], Awaitable[None]]


def script(run: Callable[[Write], Awaitable[None]]) -> Script:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        await run(write)

    return serve


def says(*pieces: bytes) -> Script:
    async def run(write: Write) -> None:
        for piece in pieces:
            await write(piece)

    return script(run)


def forever(start: bytes, piece: bytes, pause_s: float = 0.0) -> Script:
    async def run(write: Write) -> None:
        await write(start)
        while True:
            await write(piece)
            await asyncio.sleep(pause_s)

    return script(run)


async def fetch(serve: Script, **changes: object) -> FetchResult:
    async with RawServer(serve) as server:
        given = {"resolve": {"site.example": server.address}, "timeout_s": 10.0}
        async with asyncio.timeout(20), Fetcher(CrawlSettings.model_validate(given | changes)) as fetcher:
            return await fetcher.fetch("http://site.example/x")


def gzipped_zeros(num_bytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(b"\0" * num_bytes) + packer.flush()


def body(encoding: bytes, data: bytes) -> Script:
    return says(OK + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (encoding, len(data)), data)


BOMB = gzipped_zeros(30_000_000)
RAW_DEFLATE = zlib.compressobj(9, wbits=-15)
RAW_BOMB = RAW_DEFLATE.compress(b"\0" * 30_000_000) + RAW_DEFLATE.flush()


@pytest.mark.parametrize(
    ("serve", "problem"),
    [
        (forever(OK, b"X-More: and more\r\n"), FetchProblem.PROTOCOL),
        (forever(OK + b"X-Long: ", b"x" * 1000), FetchProblem.PROTOCOL),
        (forever(b"HTTP/1.1 200 ", b"O" * 1000), FetchProblem.PROTOCOL),
        (forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001), FetchProblem.TIMEOUT),
        (forever(OK, b"X", 0.05), FetchProblem.TIMEOUT),
        (forever(OK + b"\r\n", b"x", 0.05), FetchProblem.TIMEOUT),
        (forever(b"", b"", 0.05), FetchProblem.TIMEOUT),
        (forever(OK + b"\r\n", b"x" * 65_536), FetchProblem.TOO_LARGE),
        (
            forever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
            FetchProblem.TOO_LARGE,
        ),
        (says(OK + b"Content-Length: 99999999999\r\n\r\n", b"x"), FetchProblem.TOO_LARGE),
        (body(b"gzip", BOMB), FetchProblem.COMPRESSION_BOMB),
        (body(b"gzip", b"".join([gzipped_zeros(500_000)] * 60)), FetchProblem.COMPRESSION_BOMB),
        (body(b"deflate", zlib.compress(b"\0" * 30_000_000, 9)), FetchProblem.COMPRESSION_BOMB),
        (body(b"deflate", RAW_BOMB), FetchProblem.COMPRESSION_BOMB),
        (body(b"gzip, gzip", gzip.compress(BOMB)), FetchProblem.BAD_ENCODING),
        (body(b"br", b"x"), FetchProblem.BAD_ENCODING),
        (body(b"gzip", b"<html>"), FetchProblem.BAD_ENCODING),
        (body(b"gzip", BOMB[:20]), FetchProblem.TRUNCATED),
        (says(OK + b"Content-Length: 100\r\n\r\n", b"x"), FetchProblem.TRUNCATED),
        (says(OK + b"Content-Length: -1\r\n\r\n", b"x"), FetchProblem.PROTOCOL),
        (says(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"xx"), FetchProblem.PROTOCOL),
        (says(b"SSH-2.0-OpenSSH_9.6\r\n"), FetchProblem.PROTOCOL),
        (says(b"-ERR unknown command\r\n"), FetchProblem.PROTOCOL),
        (says(b"\x16\x03\x01\x02\x00"), FetchProblem.PROTOCOL),
        (says(b""), FetchProblem.CONNECTION),
        (says(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"), FetchProblem.REDIRECT_LOOP),
    ],
)
async def test_hostile_servers(serve: Script, problem: FetchProblem) -> None:
    started = time.monotonic()
    result = await fetch(serve, timeout_s=0.4 if problem is FetchProblem.TIMEOUT else 10.0)
    assert (result.problem, result.body, result.raw) == (problem, b"", b""), result.detail
    assert time.monotonic() - started < 5.0


async def test_a_body_inside_a_body_is_not_unpacked_twice() -> None:
    result = await fetch(body(b"gzip", gzip.compress(BOMB)))
    assert (result.problem, result.body) == (None, BOMB)
    assert extract(result.body, url=result.url, content_type="text/html").text == ""


async def test_redirects_that_drip_end_each_in_time() -> None:
    async def run(write: Write) -> None:
        await write(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 100\r\n\r\n")
        await asyncio.sleep(10)

    assert (await fetch(script(run), timeout_s=0.3)).problem is FetchProblem.TIMEOUT


@pytest.mark.parametrize(
    "charset",
    ["nonsense", "utf-7", "base64", "rot13", "idna", "unicode_escape", "x" * 500, "\udcff", "utf-16", "zip", ""],
)
async def test_bad_charsets_cost_nothing(charset: str) -> None:
    name = charset.encode("utf-8", "surrogateescape")
    page = b"<html><title>T</title><body><p>Words that are text, in plain ASCII letters.</p></body></html>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=%s\r\nContent-Length: %d\r\n\r\n" % (name, len(page))
    result = await fetch(says(head, page))
    assert result.problem is None
    found = extract(result.body, url=result.url, content_type=result.headers["Content-Type"])
    if charset != "utf-16":  # the header is believed, as browsers do
        assert found.text == "# T\nWords that are text, in plain ASCII letters."
