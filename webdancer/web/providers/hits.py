"""What a provider found, made into search hits: plain text, canonical addresses, days; no page twice."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator

from webdancer.web.protocol import SearchHit
from webdancer.web.providers.text import parse_day, plain_text
from webdancer.web.urls import canonical_url

_MAX_TITLE_CHARS = 300
_MAX_SNIPPET_CHARS = 1000
_MAX_URL_CHARS = 2000

Text = Annotated[str, BeforeValidator(lambda value: value if isinstance(value, str) else "")]
"""A field of one result: what is no text counts as missing, so that one odd result does not cost the others."""


class RawHit(NamedTuple):
    """One result as the provider wrote it."""

    title: str
    url: str
    snippet: str
    dates: tuple[str, ...] = ()
    """In every form that the provider gives, best first."""


class HitCollector:
    """The first `num_results` usable hits of what is added, each address once.

    With `year`, hits that are dated outside of it are dropped. Those without a date stay: the provider was asked for
    that year, and says so of no page that it leaves undated.
    """

    def __init__(self, num_results: int, *, year: int | None = None, now: datetime | None = None) -> None:
        self._num_results, self._year = num_results, year
        self._now = now or datetime.now(UTC)
        self._hits: dict[str, SearchHit] = {}
        self.num_usable = 0
        """Results with an address, whether or not they were wanted."""

    @property
    def hits(self) -> list[SearchHit]:
        """What was collected, in the order in which it came."""
        return list(self._hits.values())[: self._num_results]

    @property
    def is_full(self) -> bool:
        """Whether no more is wanted."""
        return len(self._hits) >= self._num_results

    def add(self, results: Sequence[RawHit]) -> None:
        """Take over what is usable and wanted of a provider's results."""
        for result in results:
            url = canonical_url(result.url)
            if url is None or len(url) > _MAX_URL_CHARS:
                continue
            self.num_usable += 1
            days = (parse_day(text, self._now) for text in result.dates)
            published = next((day for day in days if day is not None), None)
            if url in self._hits or (self._year is not None and published is not None and published.year != self._year):
                continue
            title = _cut(plain_text(result.title), _MAX_TITLE_CHARS) or url
            self._hits[url] = SearchHit(title, url, published, _cut(plain_text(result.snippet), _MAX_SNIPPET_CHARS))


def _cut(text: str, num_chars: int) -> str:
    return text if len(text) <= num_chars else text[: num_chars - 1].rstrip() + "…"
