"""The live web behind the protocol of the agent's reader.

All episodes of a process share one reader: its pace for each host, its connections, its worker processes and its memory of
pages and failures. Whoever asks for a page that is already being fetched waits for that fetch. Each hop of a redirect is a
request of its own, under the robots.txt, the pace and the address rules of the host that it leads to.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from aiohttp.abc import AbstractResolver

from webdancer.config import CrawlSettings
from webdancer.keys import redact
from webdancer.records import Page
from webdancer.web.addresses import is_misspelt
from webdancer.web.extract import Extracted
from webdancer.web.fetch import Fetcher, FetchProblem, FetchResult
from webdancer.web.memory import Outcome, PageMemory
from webdancer.web.polite import PoliteAnswer, PoliteFetcher
from webdancer.web.protocol import PageNotFound, ToolFailure
from webdancer.web.robots import RobotsState
from webdancer.web.urls import canonical_url
from webdancer.web.workers import ExtractPool, ExtractProblem, Job

_LOG = logging.getLogger(__name__)
_MAX_AT_ONCE = 128
"""Pages under way at once, over all hosts: their bodies are in memory."""
_MAX_RULES_AGE_S = 3600.0
_MAX_DETAIL_CHARS = 200

OnPage = Callable[[Page, FetchResult], None]
"""Called for each page that came from the network, with the response that it was read from."""


class LiveReader:
    """A `PageReader` over the live web, under the limits of `[crawl]`. Used as an async context manager.

    Args:
        cache_s: seconds for which a page, or the failure to get it, is remembered; 0: not at all.
        on_page: told of each page that came from the network; what it raises reaches those who asked for the page.
        dns: resolves names; None: the system's resolver.

    Raises:
        ConfigError: the settings hold a header that cannot be sent, or a wrong entry of `allow_private` or `resolve`.
    """

    def __init__(
        self,
        settings: CrawlSettings,
        *,
        cache_s: float,
        on_page: OnPage | None = None,
        dns: AbstractResolver | None = None,
    ) -> None:
        self._settings, self._on_page = settings, on_page
        self._fetcher = Fetcher(settings, dns=dns)
        self._pool = ExtractPool()
        self._memory = PageMemory(cache_s)

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self._fetcher)
        await self._stack.enter_async_context(self._pool)
        self._polite = PoliteFetcher(self._fetcher, self._settings, max_rules_age_s=_MAX_RULES_AGE_S)
        self._places = asyncio.Semaphore(_MAX_AT_ONCE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._memory.close()
        await self._polite.close()
        await self._stack.aclose()

    async def read(self, url: str) -> Page:
        """The page under a URL, after redirects; `Page.url` is the address that answered.

        A caller that gives up does not stop the fetch, which others may wait for and whose outcome is remembered.

        Raises:
            PageNotFound: it is no address of a page, or its server says that there is none.
            ToolFailure: it may not be asked, could not be fetched, or has no text.
        """
        canonical = self._checked(url)
        return await self._memory.read(canonical, lambda: self._read(canonical))

    def _checked(self, url: str) -> str:
        """The canonical spelling of a URL that may be asked, as far as its spelling tells."""
        written = url.strip()
        if (refused := self._fetcher.policy.refusal_of_url(written)) is not None:
            kind = PageNotFound if is_misspelt(refused.reason) else ToolFailure
            raise kind(f"this URL is not read: {refused}")
        canonical = canonical_url(written)
        if canonical is None or len(canonical) > self._settings.max_url_length:
            raise PageNotFound(f"this is not the URL of a web page: {written[:_MAX_DETAIL_CHARS]!r}")
        return canonical

    async def _read(self, url: str) -> Outcome:
        async with self._places:
            outcome = await self._fetch(url)
        if not isinstance(outcome, Page):
            _LOG.info("%s: %s", url, outcome)
        return outcome

    async def _fetch(self, url: str) -> Outcome:
        """Follow redirects to the page."""
        hops: list[tuple[str, str]] = []
        while True:
            answer = await self._polite.fetch_one(url)
            result = answer.result
            if result is None:
                return _forbidden(url, answer)
            if result.problem is not None:
                return _failed(result)
            target = result.location
            if target is None:
                return await self._extract(replace(result, redirects=tuple(hops)))
            hops.append((url, target))
            if any(target == source for source, _ in hops):
                return _failed(replace(result, problem=FetchProblem.REDIRECT_LOOP, detail=target))
            if len(hops) > self._settings.max_redirects:
                return _failed(replace(result, problem=FetchProblem.TOO_MANY_REDIRECTS, detail=target))
            if (known := self._memory.get(target)) is not None:
                return known
            url = target

    async def _extract(self, result: FetchResult) -> Outcome:
        """The page of a response."""
        fetched_at = datetime.now(UTC)
        content_type = result.headers.get("Content-Type")
        extracted = await self._pool.extract(Job(result.body, result.url, content_type))
        if isinstance(extracted, ExtractProblem):
            return ToolFailure(f"the page was fetched, but its text could not be read ({extracted})")
        if not extracted.text.strip():
            return _without_text(extracted, content_type)
        page = _page(result, extracted, fetched_at)
        if self._on_page is not None:
            self._on_page(page, result)
        return page


def _page(result: FetchResult, extracted: Extracted, fetched_at: datetime) -> Page:
    return Page(
        url=result.url,
        title=extracted.title,
        text=extracted.text,
        links=extracted.links,
        published=extracted.published,
        fetched_at=fetched_at,
        content_hash=hashlib.sha256(result.body).hexdigest(),
    )


def _without_text(extracted: Extracted, content_type: str | None) -> ToolFailure:
    if extracted.needs_javascript:
        return ToolFailure("the page shows no text unless its scripts run; try another source")
    kind = (content_type or "no content type").partition(";")[0][:80]
    return ToolFailure(f"the page was fetched, but holds no text that can be read ({kind})")


_TOLD = {
    FetchProblem.DNS: "its host has no address",
    FetchProblem.CONNECTION: "its server cannot be reached",
    FetchProblem.TLS: "its server offers no valid encryption",
    FetchProblem.TIMEOUT: "its server took too long",
    FetchProblem.PROTOCOL: "its server does not speak HTTP correctly",
    FetchProblem.TRUNCATED: "its server broke off in the middle",
    FetchProblem.CLIENT_ERROR: "its server refuses the request",
    FetchProblem.SERVER_ERROR: "its server failed",
    FetchProblem.UNSUPPORTED_TYPE: "it is not a text, an HTML page or a PDF",
    FetchProblem.BAD_ENCODING: "it is compressed in a way that cannot be read",
    FetchProblem.TOO_LARGE: "it is too large",
    FetchProblem.COMPRESSION_BOMB: "it grows without measure when it is unpacked",
    FetchProblem.BAD_REDIRECT: "it redirects to something that is no web page",
    FetchProblem.REDIRECT_LOOP: "it redirects in a circle",
    FetchProblem.TOO_MANY_REDIRECTS: "it redirects too often",
    FetchProblem.PRIVATE_ADDRESS: "it must not be asked for",
    FetchProblem.REFUSED_PORT: "it must not be asked for",
}


def _failed(result: FetchResult) -> ToolFailure:
    """A failure in words for a model: what, and how the server or the network put it."""
    if result.problem is FetchProblem.NOT_FOUND:
        return PageNotFound(f"there is no such page (HTTP {result.status})")
    told = _TOLD.get(result.problem, "it could not be fetched") if result.problem else "it could not be fetched"
    detail = redact(" ".join(result.detail.split()))[:_MAX_DETAIL_CHARS]
    return ToolFailure(f"the page cannot be had: {told}" + (f" ({detail})" if detail else ""))


def _forbidden(url: str, answer: PoliteAnswer) -> ToolFailure:
    """Why a host's rules kept a page from being asked for."""
    rules = answer.rules
    if rules.state is RobotsState.DELAY_TOO_LONG:
        return ToolFailure(f"the page is not asked for: its site wants {rules.delay_s:g} s between requests")
    if rules.state is RobotsState.UNREACHABLE:
        return _failed(FetchResult(url, problem=rules.problem, detail=f"robots.txt: {rules.detail}"))
    return ToolFailure("the page is not asked for: the robots.txt of its site forbids it; try another source")
