"""Several search engines that stand in for each other, in the order in which they are asked.

The next one is asked where one fails, and also where one finds nothing: engines have different indexes, a snapshot holds a
few sites only, and some engines that hold us for a machine show an empty page. So the next one may always know more, and it is
asked only in the rare case. What one found is never mixed with what another found.

One that refuses us (key, quota, rate, set-up) is left out for a while: asking it again costs seconds each time.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from webdancer.web.protocol import SearchHit, SearchProvider, ToolFailure
from webdancer.web.providers.attempts import ProviderRefused, RefusalReason

_log = logging.getLogger(__name__)
_REFUSED_S = 600.0
"""How long one is left out that refused us, where it does not say itself."""
_RATE_S = 60.0
"""The same, where it was asked too often."""
_MAX_REFUSED_S = 3600.0


class Link(NamedTuple):
    """One engine of a chain."""

    name: str
    search: SearchProvider


class _Refused(NamedTuple):
    until: float
    why: str


class SearchChain:
    """A `SearchProvider` over several.

    Args:
        links: at least one, first asked first.
        clock: seconds that only grow; for tests.
    """

    def __init__(self, links: Sequence[Link], *, clock: Callable[[], float] = time.monotonic) -> None:
        if not links:
            raise ValueError("a chain needs at least one search engine")
        self._links, self._clock = tuple(links), clock
        self._refused: dict[str, _Refused] = {}

    @property
    def name(self) -> str:
        """The names of all, in order."""
        return ", ".join(link.name for link in self._links)

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        """What the first engine finds that finds something; nothing where one answered and none found anything.

        Raises:
            ProviderRefused: all of them refuse us.
            ToolFailure: none of them answered; the message names each with its reason.
        """
        failures: list[str] = []
        num_refused = 0
        for link in self._links:
            refused = self._refused.get(link.name)
            if refused is not None and self._clock() < refused.until:
                failures.append(f"{refused.why} [not asked again for {refused.until - self._clock():.0f} s]")
                num_refused += 1
                continue
            try:
                hits = await link.search.search(query, num_results=num_results, year=year)
            except ToolFailure as failure:
                failures.append(_named(link.name, failure))
                if isinstance(failure, ProviderRefused):
                    self._leave_out(link.name, failure)
                    num_refused += 1
                _log.warning("search engine %s failed: %s", link.name, failure)
                continue
            if hits:
                return hits
        if len(failures) < len(self._links):
            return []
        message = "no search engine answered: " + " | ".join(failures)
        raise ProviderRefused(message) if num_refused == len(self._links) else ToolFailure(message)

    def _leave_out(self, name: str, refusal: ProviderRefused) -> None:
        usual_s = _RATE_S if refusal.reason is RefusalReason.RATE else _REFUSED_S
        wait_s = min(refusal.retry_after_s if refusal.retry_after_s is not None else usual_s, _MAX_REFUSED_S)
        self._refused[name] = _Refused(self._clock() + wait_s, _named(name, refusal))


def _named(name: str, failure: ToolFailure) -> str:
    text = str(failure)
    return text if text.startswith(name) else f"{name}: {text}"
