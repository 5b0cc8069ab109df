"""Stands before real servers on loopback and lets a share of all requests fail, in every way that real ones do.

One port, several servers: told apart by the first segment of the path (an API) or by the Host header (pages). Which requests
fail is chance, drawn anew for every request, so that a second try may succeed.
"""

import asyncio
import random
from collections import Counter
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

HTML = "<html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>"
FAILURES = ("busy", "broken", "dropped", "truncated", "html", "gateway")
_HOP_BY_HOP = {"transfer-encoding", "content-length", "connection", "content-encoding", "date", "server"}


class FlakyProxy:
    """Forwards requests, or fails them.

    Args:
        apis: first segment of the path → root of the server behind it.
        pages: `host:port` of the server of all pages.
        share: of the requests that fail.
    """

    def __init__(self, apis: dict[str, str], pages: str, *, share: float, seed: int) -> None:
        self._apis, self._pages, self._share = apis, pages, share
        self._rng = random.Random(seed)
        self.asked: Counter[str] = Counter()
        """Requests by API, pages under `pages`."""
        self.failed: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        api, _, rest = request.raw_path.lstrip("/").partition("/")
        is_page = api not in self._apis
        name = "pages" if is_page else api
        url = f"http://{self._pages}{request.raw_path}" if is_page else f"{self._apis[api]}/{rest}"
        self.asked[name] += 1
        is_robots = request.raw_path == "/robots.txt"  # else a whole host would be closed for an hour
        failure = None if is_robots or self._rng.random() >= self._share else self._rng.choice(FAILURES)
        if failure is not None:
            self.failed[failure] += 1
        match failure:
            case "busy":
                return web.Response(status=429, headers={"Retry-After": "0.05"}, text="slow down")
            case "broken":
                return web.Response(status=500, text="internal error")
            case "gateway":
                return web.Response(status=502, text=HTML, content_type="text/html")
            case "dropped":
                return self._drop(request)
        headers = {"Host": request.host} if is_page else {}
        sent = {**headers, "Content-Type": request.headers.get("Content-Type", "")}
        async with self._session.request(
            request.method, url, data=await request.read(), headers=sent, allow_redirects=False
        ) as answer:
            body = await answer.read()
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP]
            encoding = answer.headers.get("Content-Encoding")
            kept += [("Content-Encoding", encoding)] if encoding else []
            if failure == "html" and not is_page:
                return web.Response(status=200, text=HTML, content_type="text/html")
            if failure in ("truncated", "html"):
                return await self._truncate(request, body, kept)
            return web.Response(status=answer.status, headers=kept, body=body)

    def _drop(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _truncate(
        self, request: web.BaseRequest, body: bytes, headers: list[tuple[str, str]]
    ) -> web.StreamResponse:
        """Announce the whole body, send half of it and leave."""
        response = web.StreamResponse(headers=[*headers, ("Content-Length", str(len(body) + 1))])
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        await asyncio.sleep(0)
        assert request.transport is not None
        request.transport.abort()
        return response
