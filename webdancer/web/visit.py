"""One URL's visit by the crawler: the host's rules, its pace, the request with a second try, the extraction."""

import hashlib
from collections.abc import Container
from datetime import UTC, datetime
from typing import NamedTuple

from webdancer.config import CrawlSettings
from webdancer.web.extract import Extracted
from webdancer.web.fetch import Fetcher, FetchResult
from webdancer.web.frontier import Entry
from webdancer.web.polite import PoliteFetcher
from webdancer.web.workers import ExtractPool, ExtractProblem, Job


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
        self._pool = pool
        self._known_hashes = known_hashes
        self._polite = PoliteFetcher(fetcher, settings)

    async def visit(self, entry: Entry) -> Visit:
        """Fetch and extract one page, once the host's robots.txt is known and allows it."""
        answer = await self._polite.fetch_one(entry.url)
        result = answer.result
        if result is None:
            return Visit(blocked=answer.blocked)
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
        await self._polite.close()
