"""Requests as a host wants them: under its robots.txt, at its pace, with a second try where a problem may pass.

Crawls and visits share this. One `PoliteFetcher` per process keeps the pace over everything that is under way at once.
"""

import asyncio
import math
from types import TracebackType
from typing import NamedTuple

from webdancer.config import CrawlSettings
from webdancer.web.fetch import TRANSIENT, Fetcher, FetchResult
from webdancer.web.robots import HostRules, Robots, RobotsState, origin_of

_RETRY_AFTER_S = (0.5, 2.0)
"""Pauses before a request that met a transient problem is made again."""


class PoliteAnswer(NamedTuple):
    """What came of one request."""

    rules: HostRules
    result: FetchResult | None
    """None: the host's rules forbid the request, and it was not made."""

    @property
    def blocked(self) -> str | None:
        """Why the host's rules forbid the request; None where they allow it."""
        if self.result is not None:
            return None
        return "robots" if self.rules.state is RobotsState.RULES else f"robots_{self.rules.state}"


class PoliteFetcher:
    """Fetches, each host at its own pace.

    Args:
        max_rules_age_s: seconds after which a host's robots.txt is asked for again.
    """

    def __init__(self, fetcher: Fetcher, settings: CrawlSettings, *, max_rules_age_s: float = math.inf) -> None:
        self._fetcher, self._settings = fetcher, settings
        self._robots = Robots(fetcher, settings, max_age_s=max_rules_age_s)
        self._gates: dict[str, _Gate] = {}

    async def fetch_one(self, url: str) -> PoliteAnswer:
        """One request, once the host's robots.txt is known and allows it. A redirect is not followed."""
        rules = await self._robots.rules(url)
        if not rules.allows(url):
            return PoliteAnswer(rules, None)
        return PoliteAnswer(rules, await self._fetch(url, rules))

    async def close(self) -> None:
        """Give up requests for robots.txt that are still under way."""
        await self._robots.close()

    async def _fetch(self, url: str, rules: HostRules) -> FetchResult:
        origin = origin_of(url)
        delay_s = max(self._settings.delay_s, rules.delay_s)
        if origin not in self._gates:
            self._gates[origin] = _Gate(self._settings.max_per_host, delay_s)
        gate = self._gates[origin]
        gate.delay_s = delay_s
        for pause_s in (*_RETRY_AFTER_S, None):
            async with gate:
                result = await self._fetcher.fetch_one(url)
            if result.problem not in TRANSIENT or pause_s is None:
                break
            await asyncio.sleep(self._pause(result, pause_s))
        return result

    def _pause(self, result: FetchResult, pause_s: float) -> float:
        """Seconds before the next try: Retry-After, where it is a number, within reason."""
        asked = result.headers.get("Retry-After", "")
        return min(max(pause_s, float(asked)), self._settings.max_crawl_delay_s) if asked.isdecimal() else pause_s


class _Gate:
    """Lets requests to one host pass: so many at once, so far apart. The first counts from robots.txt."""

    def __init__(self, max_at_once: int, delay_s: float) -> None:
        self._free = asyncio.Semaphore(max_at_once)
        self.delay_s = delay_s
        self._next_s = asyncio.get_running_loop().time() + delay_s

    async def __aenter__(self) -> None:
        await self._free.acquire()
        if self.delay_s > 0:
            now_s = asyncio.get_running_loop().time()
            start_s = max(now_s, self._next_s)
            self._next_s = start_s + self.delay_s
            try:
                await asyncio.sleep(start_s - now_s)
            except asyncio.CancelledError:
                self._free.release()
                raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._free.release()
