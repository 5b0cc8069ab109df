"""A snapshot behind the protocols of the agent's tools.

A search of a snapshot of 50,000 pages takes about a millisecond, so it runs in the event loop: handing it to a thread would
cost as much again and order nothing better.
"""

from webdancer.records import Page
from webdancer.web.protocol import PageNotFound, SearchHit
from webdancer.web.snapshot import Snapshot


class SnapshotSearch:
    """A `SearchProvider` over an open snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        """The best pages for a query; see `Snapshot.search`."""
        return self._snapshot.search(query, num_results=num_results, year=year)


class SnapshotReader:
    """A `PageReader` over an open snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    async def read(self, url: str) -> Page:
        """The page under a URL, an alias of it, or another spelling of either.

        Raises:
            PageNotFound: there is none.
        """
        page = self._snapshot.page(url)
        if page is None:
            raise PageNotFound(f"no page was found at {url}")
        return page
