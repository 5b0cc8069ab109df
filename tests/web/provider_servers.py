"""Search providers on loopback: each speaks the documented format of one, checks what it is sent, and fails as told.

Every provider serves the same corpus: 45 pages, of which number i (from 0) was published on the (i % 28 + 1)th of March of
2020 + i % 3. What is sent that the documentation does not know is answered with an error, as a strict server would.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from aiohttp import web
from multidict import CIMultiDict

KEY = "sk-4f9a-very-secret"
Answer = Callable[["Seen"], Awaitable[web.StreamResponse] | web.StreamResponse]
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Seen:
    """One request."""

    method: str
    target: str
    """Path and query as sent; the whole URL where the server is asked as a proxy."""
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    raw: bytes
    at_s: float
    http: web.BaseRequest

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        assert self.headers["Content-Type"] == "application/json"
        found = json.loads(self.raw)
        assert isinstance(found, dict)
        return found

    @property
    def form(self) -> dict[str, str]:
        """The form that the body is."""
        assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
        return {name: values[0] for name, values in parse_qs(self.raw.decode(), keep_blank_values=True).items()}


class ProviderServer:
    """Answers `script` in turn, one a request, then whatever `speak` says. `requests` holds all that was asked."""

    def __init__(self, speak: Answer, *script: Answer) -> None:
        self._speak, self._script = speak, list(script)
        self.requests: list[Seen] = []
        self.url = ""
        self.max_at_once = 0
        self.peers: set[object] = set()
        self._at_once = 0

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = Seen(
            request.method,
            request.raw_path,
            request.path,
            dict(request.query),
            CIMultiDict(request.headers),
            await request.read(),
            asyncio.get_running_loop().time(),
            request,
        )
        self.requests.append(seen)
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        self._at_once += 1
        self.max_at_once = max(self.max_at_once, self._at_once)
        try:
            number = len(self.requests) - 1
            answer = (self._script[number] if number < len(self._script) else self._speak)(seen)
            return answer if isinstance(answer, web.StreamResponse) else await answer
        finally:
            self._at_once -= 1

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._runner.cleanup()


# Ways to fail.


def says(status: int, body: object, *, content_type: str = "application/json", **headers: str) -> Answer:
    """An answer; `body` that is neither text nor bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    sent = {"Content-Type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return lambda seen: web.Response(status=status, body=data, headers=sent)


async def hangs(seen: Seen) -> web.StreamResponse:
    """No answer in time."""
    await asyncio.sleep(5)
    return web.Response()


async def drips(seen: Seen) -> web.StreamResponse:
    """An answer that keeps arriving and never ends."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(seen.http)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


async def breaks_off(seen: Seen) -> web.StreamResponse:
    """A body that is shorter than announced."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "500"})
    await response.prepare(seen.http)
    await response.write(b'{"organic": [{"tit')
    assert seen.http.transport is not None
    seen.http.transport.close()
    return response


async def hangs_up(seen: Seen) -> web.StreamResponse:
    """Not a byte."""
    assert seen.http.transport is not None
    seen.http.transport.close()
    return web.Response()


# The corpus.


@dataclass(frozen=True)
class Doc:
    """One page of the web that all providers know."""

    number: int

    @property
    def url(self) -> str:
        return f"https://site{self.number}.example/page"

    @property
    def title(self) -> str:
        return f"Page {self.number}"

    @property
    def day(self) -> date:
        return date(2020 + self.number % 3, 3, self.number % 28 + 1)


DOCS = [Doc(number) for number in range(45)]


def of_year(year: int | None) -> list[Doc]:
    """The corpus, or the pages of a year."""
    return [doc for doc in DOCS if year is None or doc.day.year == year]


def _problem(status: int, body: object) -> web.Response:
    return web.json_response(body, status=status)


def serper(seen: Seen) -> web.Response:
    """serper.dev."""
    if (seen.method, seen.path) != ("POST", "/search"):
        return _problem(404, {"message": f"Cannot {seen.method} {seen.path}", "statusCode": 404})
    if seen.headers.get("X-API-KEY") != KEY:
        return _problem(403, {"message": "Unauthorized.", "statusCode": 403})
    body = seen.body
    num, page = body.get("num", 10), body.get("page", 1)
    if (
        not isinstance(body.get("q"), str)
        or type(num) is not int
        or type(page) is not int
        or body.keys() - SERPER_FIELDS
    ):
        return _problem(400, {"message": "Invalid request", "statusCode": 400})
    year = None
    if tbs := body.get("tbs"):
        year = int(tbs.rpartition("/")[2])
        assert tbs == f"cdr:1,cd_min:1/1/{year},cd_max:12/31/{year}"
    docs = of_year(year)[(page - 1) * num : page * num]
    organic = [
        {
            "title": doc.title,
            "link": doc.url,
            "snippet": f"About {body['q']} & more",
            "date": f"{doc.day:%b} {doc.day.day}, {doc.day.year}",
            "position": position,
        }
        for position, doc in enumerate(docs, start=1)
    ]
    return web.json_response({"searchParameters": {**body, "engine": "google"}, "organic": organic, "credits": 1})


SERPER_FIELDS = {"q", "num", "page", "tbs", "gl", "hl", "location", "autocorrect"}


def tavily(seen: Seen) -> web.Response:
    """Tavily."""
    if (seen.method, seen.path) != ("POST", "/search"):
        return _problem(404, {"detail": "Not Found"})
    if seen.headers.get("Authorization") != f"Bearer {KEY}":
        return _problem(401, {"detail": {"error": "Unauthorized: missing or invalid API key."}})
    body = seen.body
    count = body.get("max_results", 5)
    if not body.get("query") or type(count) is not int or not 0 <= count <= 20 or body.keys() - TAVILY_FIELDS:
        return _problem(422, {"detail": [{"loc": ["body"], "msg": "Input should be valid"}]})
    year = None
    if "start_date" in body:
        year = date.fromisoformat(body["start_date"]).year
        assert body["start_date"] == f"{year}-01-01"
        assert body["end_date"] == f"{year}-12-31"
    results = [
        {"url": doc.url, "title": doc.title, "content": f"About {body['query']}", "score": 0.9, "raw_content": None}
        for doc in of_year(year)[:count]
    ]
    if body.get("topic") == "news":
        for result, doc in zip(results, of_year(year), strict=False):
            result["published_date"] = f"{doc.day:%a, %d %b %Y} 10:00:00 GMT"
    answer = {"query": body["query"], "answer": None, "images": [], "results": results, "response_time": 0.9}
    return web.json_response(answer)


TAVILY_FIELDS = {
    *("query", "max_results", "start_date", "end_date", "topic", "search_depth", "include_domains", "include_answer"),
    "chunks_per_source",
}


def brave(seen: Seen) -> web.Response:
    """Brave Search."""
    if (seen.method, seen.path) != ("GET", "/res/v1/web/search"):
        return _problem(404, {"type": "ErrorResponse", "error": {"code": "RESOURCE_NOT_FOUND", "detail": "Not found"}})
    if seen.headers.get("X-Subscription-Token") != KEY:
        detail = "The provided subscription token is invalid."
        error = {"id": "1", "status": 422, "code": "SUBSCRIPTION_TOKEN_INVALID", "detail": detail, "meta": {}}
        return _problem(422, {"type": "ErrorResponse", "error": error, "time": 1754364294})
    query = seen.query
    count, offset = int(query.get("count", "20")), int(query.get("offset", "0"))
    q = query.get("q", "")
    if not 1 <= count <= 20 or not 0 <= offset <= 9 or not 1 <= len(q) <= 400 or query.keys() - BRAVE_FIELDS:
        detail = "Unable to validate request parameter(s)"
        error = {"id": "2", "status": 422, "code": "VALIDATION", "detail": detail, "meta": {}}
        return _problem(422, {"type": "ErrorResponse", "error": error, "time": 1754364294})
    year = None
    if freshness := query.get("freshness"):
        year = int(freshness[:4])
        assert freshness == f"{year}-01-01to{year}-12-31"
    docs = of_year(year)[offset * count : (offset + 1) * count]
    answer: dict[str, Any] = {
        "type": "search",
        "query": {"original": q, "more_results_available": len(docs) == count},
        "mixed": {"type": "mixed", "main": []},
    }
    results = [
        {
            "type": "search_result",
            "title": f"{escape(doc.title)} &amp; more",
            "url": doc.url,
            "description": f"About <strong>{escape(q)}</strong>",
            "page_age": f"{doc.day.isoformat()}T10:00:00",
            "age": f"{doc.day:%B} {doc.day.day}, {doc.day.year}",
        }
        for doc in docs
    ]
    if results:
        answer["web"] = {"type": "search", "results": results, "family_friendly": True}
    return web.json_response(answer)


BRAVE_FIELDS = {"q", "count", "offset", "freshness", "text_decorations", "result_filter", "country", "search_lang"}


def searxng(seen: Seen) -> web.Response:
    """A SearXNG instance with JSON enabled: ten results a page, every other one dated."""
    if (seen.method, seen.path) != ("GET", "/search") or seen.query.get("format") != "json":
        return web.Response(status=404, body=b"<!doctype html><title>404 Not Found</title>", content_type="text/html")
    page = int(seen.query.get("pageno", "1"))
    q = seen.query["q"]
    results = [
        {
            "url": doc.url,
            "title": doc.title,
            "content": f"About {q}",
            "engine": "bing",
            "engines": ["bing"],
            "score": 1.0,
            "category": "general",
            "publishedDate": f"{doc.day.isoformat()}T00:00:00" if doc.number % 2 == 0 else None,
        }
        for doc in DOCS[(page - 1) * 10 : page * 10]
    ]
    answer = {"query": q, "number_of_results": 0, "results": results, "answers": [], "corrections": [], "infoboxes": []}
    return web.json_response({**answer, "suggestions": [], "unresponsive_engines": []})


def duckduckgo(seen: Seen) -> web.Response:
    """html.duckduckgo.com: ten results on the first page, fifteen on each further one."""
    form = seen.form
    start = int(form.get("s", "0"))
    year = None
    if limit := form.get("df"):
        year = int(limit[:4])
        assert limit == f"{year}-01-01..{year}-12-31"
    docs = of_year(year)[start : start + (15 if start else 10)]
    return web.Response(text=duckduckgo_page(docs, form["q"]), headers={"Content-Type": HTML})


def duckduckgo_page(docs: Sequence[Doc], query: str) -> str:
    """A page of results as the HTML version lays it out, with an advertisement on top."""
    advertisement = "https://duckduckgo.com/y.js?ad_domain=shop.example"
    items = [(advertisement, "Buy it"), *((doc.url, doc.title) for doc in docs)]
    results = "".join(
        '<div class="result results_links results_links_deep web-result"><div class="links_main links_deep result__body">'
        f'<h2 class="result__title"><a rel="nofollow" class="result__a" href="{escape(url)}">{title}</a></h2>'
        f'<a class="result__snippet" href="{escape(url)}">About <b>{escape(query)}</b></a>'
        '<div class="clear"></div></div></div>'
        for url, title in items
    )
    return f'<!DOCTYPE html><html><head><title>DuckDuckGo</title></head><body><div id="links">{results}</div></body></html>'


SPEAKERS: dict[str, Answer] = {
    "serper": serper,
    "tavily": tavily,
    "brave": brave,
    "searxng": searxng,
    "duckduckgo": duckduckgo,
}
