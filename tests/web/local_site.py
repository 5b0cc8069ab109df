"""A small site on loopback for tests: pages from a table, every request on record."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
HTML = "text/html; charset=utf-8"


def html(*links: str, title: str = "Page", text: str = "") -> bytes:
    """A page with a heading, a text of its own, and links."""
    items = "".join(f'<p><a href="{link}">to {link}</a></p>' for link in links)
    body = text or f"{title} has a paragraph of its own that is long enough to be taken for the text of a page."
    head = f"<html><head><title>{title}</title></head>"
    return f"{head}<body><main><h1>{title}</h1><p>{body}</p>{items}</main></body></html>".encode()


class LocalSite:
    """Serves `pages` (path with query → answer) under whatever host names are asked for.

    A page is the body of an HTML page, an `Answer`, or (status, headers, body). `requests` holds (host, path) of each
    request, in order.
    """

    def __init__(self, pages: dict[str, bytes | Answer | tuple[int, dict[str, str], bytes]] | None = None) -> None:
        self.pages = pages or {}
        self.requests: list[tuple[str, str]] = []
        self.times_s: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.port = 0
        self.max_at_once = 0
        self._at_once = 0

    @property
    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [path for _, path in self.requests]

    @property
    def address(self) -> str:
        """`address:port`, as `resolve` takes it."""
        return f"127.0.0.1:{self.port}"

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request.headers["Host"], request.path_qs))
        self.times_s.append(asyncio.get_running_loop().time())
        self.headers.append(dict(request.headers))
        self._at_once += 1
        self.max_at_once = max(self.max_at_once, self._at_once)
        try:
            page = self.pages.get(request.headers["Host"] + request.path_qs) or self.pages.get(request.path_qs)
            if page is None:
                return web.Response(status=404, body=b"not here", content_type="text/plain")
            if isinstance(page, bytes):
                return web.Response(body=page, headers={"Content-Type": HTML})
            if isinstance(page, tuple):
                status, headers, body = page
                return web.Response(status=status, headers=headers, body=body)
            return await page(request)
        finally:
            self._at_once -= 1

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        server = web.TCPSite(self._runner, "127.0.0.1", 0)
        await server.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
