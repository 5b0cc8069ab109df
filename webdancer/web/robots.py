"""robots.txt: nothing of a host is asked for before its rules are known (RFC 9309).

protego decides; the standard library's parser is wrong on wildcards and on the longest match.
"""

import asyncio
import logging
import math
import time
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from protego import Protego

from webdancer.config import CrawlSettings
from webdancer.web.fetch import Fetcher, FetchProblem, FetchResult

log = logging.getLogger(__name__)

_MAX_ROBOTS_BYTES = 512_000
"""RFC 9309, section 2.5: at least 500 KiB are read."""
_RETRY_AFTER_S = (0.5, 2.0)
"""Pauses before robots.txt is asked for again where the server failed."""


class RobotsState(StrEnum):
    """What is known of a host's rules."""

    RULES = "rules"
    ABSENT = "absent"
    """There is no robots.txt (any 4xx): everything is allowed (RFC 9309, section 2.3.1.3)."""
    UNREACHABLE = "unreachable"
    """The server failed or was not reached: nothing is allowed (RFC 9309, section 2.3.1.4)."""
    DELAY_TOO_LONG = "delay_too_long"
    """Its Crawl-delay is above `max_crawl_delay_s`: the host is left alone."""


class HostRules(NamedTuple):
    """One host's rules for us."""

    state: RobotsState
    delay_s: float
    """Least time between two requests that the host asks for; 0 where it asks for none."""
    parser: Protego | None
    agent: str
    problem: FetchProblem | None = None
    """What robots.txt met, where it was not had."""
    detail: str = ""

    def allows(self, url: str) -> bool:
        """Whether the page may be fetched."""
        if self.state is RobotsState.ABSENT:
            return True
        if self.parser is None or self.state is not RobotsState.RULES:
            return False
        return bool(self.parser.can_fetch(url, self.agent))


class Robots:
    """The rules of all hosts met, each host's fetched when first asked for.

    Args:
        max_age_s: seconds after which they are fetched again (RFC 9309, section 2.4, wants at most a day).
    """

    def __init__(self, fetcher: Fetcher, settings: CrawlSettings, *, max_age_s: float = math.inf) -> None:
        self._fetcher, self._settings, self._max_age_s = fetcher, settings, max_age_s
        self._rules: dict[str, asyncio.Task[HostRules]] = {}
        self._asked_s: dict[str, float] = {}

    async def rules(self, url: str) -> HostRules:
        """The rules that hold for `url`: those of its scheme, host and port."""
        origin = origin_of(url)
        now_s = time.monotonic()
        known = self._rules.get(origin)
        if known is None or (known.done() and now_s - self._asked_s[origin] >= self._max_age_s):
            self._rules[origin] = asyncio.create_task(self._load(origin))
            self._asked_s[origin] = now_s
        return await asyncio.shield(self._rules[origin])

    async def close(self) -> None:
        """Give up what is still being fetched."""
        for task in self._rules.values():
            task.cancel()
        await asyncio.gather(*self._rules.values(), return_exceptions=True)

    async def _load(self, origin: str) -> HostRules:
        if not self._settings.obey_robots:
            return HostRules(RobotsState.ABSENT, 0.0, None, "")
        result = await self._fetch(origin)
        for pause_s in _RETRY_AFTER_S:
            if not _failed(result) or result.problem in _FOR_GOOD:
                break
            await asyncio.sleep(pause_s)
            result = await self._fetch(origin)
        rules = _judge(result, self._settings, agent=self._fetcher.user_agent.partition("/")[0])
        if rules.state in (RobotsState.UNREACHABLE, RobotsState.DELAY_TOO_LONG):
            log.warning("%s is left alone: robots.txt %s (%s)", origin, rules.state, result.detail or rules.delay_s)
        return rules

    async def _fetch(self, origin: str) -> FetchResult:
        return await self._fetcher.fetch(f"{origin}/robots.txt", check_hop=_check_robots_hop, any_type=True)


def origin_of(url: str) -> str:
    """`scheme://host[:port]` of a canonical URL."""
    return url[: url.index("/", 8)]


async def _check_robots_hop(target: str) -> FetchProblem | None:
    """A redirect of robots.txt is followed to another robots.txt only.

    Anything else (a front page, a login) is no rules file, and fetching it could break rules not yet known.
    """
    return None if urlsplit(target).path.endswith("/robots.txt") else FetchProblem.NOT_FOUND


_ABSENT = frozenset({FetchProblem.NOT_FOUND, FetchProblem.CLIENT_ERROR, FetchProblem.BAD_REDIRECT}) | {
    FetchProblem.REDIRECT_LOOP,
    FetchProblem.TOO_MANY_REDIRECTS,
}


_FOR_GOOD = frozenset({FetchProblem.INVALID_URL, FetchProblem.PRIVATE_ADDRESS, FetchProblem.REFUSED_PORT})
"""Asking again brings nothing."""


def _failed(result: FetchResult) -> bool:
    return result.problem is not None and result.problem not in _ABSENT


def _judge(result: FetchResult, settings: CrawlSettings, *, agent: str) -> HostRules:
    """Turn what came of robots.txt into rules."""
    if _failed(result):
        return HostRules(RobotsState.UNREACHABLE, 0.0, None, agent, result.problem, result.detail)
    if result.problem is not None:
        return HostRules(RobotsState.ABSENT, 0.0, None, agent)
    text = result.body[:_MAX_ROBOTS_BYTES].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    parser = Protego.parse(text)
    delay_s = float(parser.crawl_delay(agent) or 0.0)
    rate = parser.request_rate(agent)
    if rate is not None and rate.requests > 0:
        delay_s = max(delay_s, rate.seconds / rate.requests)
    state = RobotsState.RULES if delay_s <= settings.max_crawl_delay_s else RobotsState.DELAY_TOO_LONG
    return HostRules(state, delay_s, parser, agent)
