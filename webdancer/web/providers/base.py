"""What all search providers share: a search is a few pages of results, cleaned, until there are enough."""

import logging
from abc import ABC, abstractmethod
from math import ceil
from types import TracebackType
from typing import ClassVar, NamedTuple, Protocol, Self

from webdancer.config import ProviderSettings
from webdancer.web.protocol import SearchHit, SearchProvider, ToolFailure
from webdancer.web.providers.hits import HitCollector, RawHit
from webdancer.web.providers.http import ProviderApi, ProviderClient

_log = logging.getLogger(__name__)


class NamedSearch(SearchProvider, Protocol):
    """A search engine that says which one it is."""

    @property
    def name(self) -> str:
        """As `web.search` names it."""
        ...


class PageRequest(NamedTuple):
    """One page of results, asked of a provider."""

    query: str
    page: int
    """From 0."""
    num_results: int
    """Wanted of this page, at most the provider's page size; the same for all pages of a search."""
    year: int | None


class PagedSearch(ABC):
    """A provider whose results come in pages. Used as an async context manager.

    A search asks for no more pages than hold `num_results`, so that its price is known before; where hits are dropped it
    may give fewer. If a later page fails, what the earlier ones brought is returned.
    """

    page_size: ClassVar[int]
    """Results that one request can bring."""
    max_pages: ClassVar[int]

    @property
    @abstractmethod
    def name(self) -> str:
        """As `web.search` names it."""

    @property
    @abstractmethod
    def num_answered(self) -> int:
        """Requests that were answered with success, which is what providers bill: one for each page of results."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    @abstractmethod
    async def page(self, request: PageRequest) -> list[RawHit]:
        """One page of results, as the provider wrote them; empty where there are no more.

        Raises:
            ProviderRefused: the provider refuses us.
            ToolFailure: it did not answer, or not in its format.
        """

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        """The best `num_results` pages for `query`, best first; with `year`, as far as known only pages of that year.

        Raises:
            ProviderRefused: the provider refuses us.
            ToolFailure: it did not answer, or not in its format.
        """
        collector = HitCollector(num_results, year=year)
        num_pages = min(ceil(num_results / self.page_size), self.max_pages)
        for number in range(num_pages):
            request = PageRequest(query, number, min(num_results, self.page_size), year)
            try:
                results = await self.page(request)
            except ToolFailure as failure:
                if not collector.num_usable:
                    raise
                _log.warning("page %d of a search failed, the pages before it count: %s", number + 1, failure)
                break
            collector.add(results)
            if results and not collector.num_usable:
                raise ToolFailure(
                    f"{self.name}: the answer is not in the API's format: none of its {len(results)} results has an "
                    "http(s) address; use another search engine"
                )
            if not results or collector.is_full:
                break
        return collector.hits


class ApiSearch(PagedSearch):
    """A provider with a JSON API."""

    api: ClassVar[ProviderApi]

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._client = ProviderClient(self.api, settings)

    @property
    def name(self) -> str:
        return self.api.name

    @property
    def num_answered(self) -> int:
        return self._client.num_answered

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, tb)
