"""What the agent's tools need of a web: a search and a reader, live or from a snapshot."""

from dataclasses import dataclass
from datetime import date
from typing import Protocol

from webdancer.errors import WebdancerError
from webdancer.records import Page


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One search result."""

    title: str
    url: str
    published: date | None
    snippet: str
    """Plain text, one line."""


class ToolFailure(WebdancerError):
    """A search or a page could not be had, through no fault of the caller: it is shown to the model and counted."""


class PageNotFound(ToolFailure):
    """There is no page under that URL."""


class SearchProvider(Protocol):
    """A search engine."""

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        """The best `num_results` pages for `query`, best first; with `year`, only pages published in that year.

        Raises:
            ToolFailure: the search engine did not answer.
        """
        ...


class PageReader(Protocol):
    """Gives pages by URL."""

    async def read(self, url: str) -> Page:
        """The page under `url`.

        Raises:
            PageNotFound: there is none.
            ToolFailure: it could not be fetched or read.
        """
        ...
