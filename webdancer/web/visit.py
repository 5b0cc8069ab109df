"""One URL's visit: the host's rules, its pace, the request with a second try, the extraction."""

import asyncio
import hashlib
from collections.abc import Container
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple

from webdancer.config import CrawlSettings
from webdancer.web.extract import Extracted
from webdancer.web.fetch import TRANSIENT, Fetcher, FetchResult
from webdancer.web.frontier import Entry
from webdancer.web.robots import HostRules, Robots, RobotsState, origin_of
from webdancer.web.workers import ExtractPool, ExtractProblem, Job

_RETRY_AFTER_S = (0.5, 2.0)
"""Pauses before a request that met a transient problem is made again."""


class Visit(NamedTuple):
    """What came of one URL. Exactly one of `blocked` and `result` is given."""

    blocked: str | None = None
    """Why robots.txt forbids it."""
    result: FetchResult | None = None
    extracted: Extracted | ExtractProblem | None = None
    """None where there is no page, or its body is already known."""
    content_hash: str = ""
    fetched_at: datetime | None = None


class Visitor:
    """Visits URLs, each host at its own pace.

    Args:
        known_hashes: hashes of bodies that are stored already and need no extraction.
    """

    def __init__(
        self, fetcher: Fetcher, pool: ExtractPool, settings: CrawlSettings, *, known_hashes: Container[str]
    ) -> None:
        self._fetcher, self._pool, self._settings = fetcher, pool, settings
        self._known_hashes = known_hashes
        self._robots = Robots(fetcher, settings)
        self._gates: dict[str, _Gate] = {}

    async def visit(self, entry: Entry) -> Visit:
        """Fetch and extract one page, once the host's robots.txt is known and allows it."""
        rules = await self._robots.rules(entry.url)
        if not rules.allows(entry.url):
            return Visit(blocked=_why(rules))
        result = await self._fetch(entry.url, rules)
        if result.problem is not None or result.location is not None:
            return Visit(result=result)
        fetched_at = datetime.now(UTC)
        content_hash = hashlib.sha256(result.body).hexdigest()
        extracted = None
        if content_hash not in self._known_hashes:
            extracted = await self._pool.extract(Job(result.body, result.url, result.headers.get("Content-Type")))
        return Visit(None, result, extracted, content_hash, fetched_at)

    async def close(self) -> None:
        """Give up requests for robots.txt that are still under way."""
        await self._robots.close()

    async def _fetch(self, url: str, rules: HostRules) -> FetchResult:
        origin = origin_of(url)
        if origin not in self._gates:
            self._gates[origin] = _Gate(self._settings.max_per_host, max(self._settings.delay_s, rules.delay_s))
        for pause_s in (*_RETRY_AFTER_S, None):
            async with self._gates[origin]:
                result = await self._fetcher.fetch_one(url)
            if result.problem not in TRANSIENT or pause_s is None:
                break
            await asyncio.sleep(self._pause(result, pause_s))
        return result

    def _pause(self, result: FetchResult, pause_s: float) -> float:
        """Seconds before the next try: Retry-After, where it is a number, within reason."""
        asked = result.headers.get("Retry-After", "")
        return min(max(pause_s, float(asked)), self._settings.max_crawl_delay_s) if asked.isdecimal() else pause_s


def _why(rules: HostRules) -> str:
    return "robots" if rules.state is RobotsState.RULES else f"robots_{rules.state}"


class _Gate:
    """Lets requests to one host pass: so many at once, so far apart. The first counts from robots.txt."""

    def __init__(self, max_at_once: int, delay_s: float) -> None:
        self._free = asyncio.Semaphore(max_at_once)
        self._delay_s = delay_s
        self._next_s = asyncio.get_running_loop().time() + delay_s

    async def __aenter__(self) -> None:
        await self._free.acquire()
        if self._delay_s > 0:
            now_s = asyncio.get_running_loop().time()
            start_s = max(now_s, self._next_s)
            self._next_s = start_s + self._delay_s
            try:
                await asyncio.sleep(start_s - now_s)
            except asyncio.CancelledError:
                self._free.release()
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._free.release()
