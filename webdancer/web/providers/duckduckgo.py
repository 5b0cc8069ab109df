"""DuckDuckGo's HTML pages, without a key, through the ddgs library (the extra `live`).

Interface: https://github.com/deedy5/ddgs (README; ddgs/base.py and ddgs/engines/duckduckgo.py of 9.16). The library's engine
builds the request, sends it as a browser would and reads the page; `request` is overridden because the library's own takes
every status other than 200 for an empty result. DuckDuckGo answers 202, or a page with a challenge, to those whom it takes
for machines (github.com/deedy5/ddgs/issues/304): that is a refusal and is not tried again at once. The library blocks, so it
runs in threads.

Not run against DuckDuckGo itself, which tests cannot reach: they send the library's real requests to a local server, whose
pages have the shape that the library reads.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from aiolimiter import AsyncLimiter

from webdancer.config import ProviderSettings
from webdancer.errors import ConfigError
from webdancer.web.providers.attempts import AttemptFailed, RefusalReason, shortened, with_attempts
from webdancer.web.providers.base import PagedSearch, PageRequest
from webdancer.web.providers.hits import RawHit

if TYPE_CHECKING:
    from ddgs.base import BaseSearchEngine
    from ddgs.results import TextResult

_log = logging.getLogger(__name__)
_WHERE = "duckduckgo (https://html.duckduckgo.com)"
_CHALLENGES = ("challenge-form", "anomaly-modal")
"""Marks of a page that asks whether we are human."""
_PARAMS = frozenset({"region", "safesearch", "proxy", "verify"})
INSTALL = "pip install 'webdancer[live]'"


class DuckDuckGoSearch(PagedSearch):
    """A `SearchProvider` over DuckDuckGo.

    Of `params`, `region` (`us-en`, `cn-zh`; default: all) and `safesearch` go to the search, `proxy` (a URL) and `verify`
    (`false`, or a file with certificates) to the library's HTTP client.

    Raises:
        ConfigError: ddgs is not installed, or a setting has no meaning here.
    """

    page_size: ClassVar[int] = 10
    max_pages: ClassVar[int] = 5

    def __init__(self, settings: ProviderSettings) -> None:
        if settings.base_url is not None:
            raise ConfigError("web.duckduckgo: base_url has no meaning here; remove it, or set params.proxy")
        if unknown := sorted(settings.params.keys() - _PARAMS):
            raise ConfigError(f"web.duckduckgo: got params {unknown}, expected some of {sorted(_PARAMS)}")
        self._settings = settings
        self._engine = _engine(settings)
        self._num_answered = 0

    @property
    def name(self) -> str:
        return "duckduckgo"

    @property
    def num_answered(self) -> int:
        return self._num_answered

    async def __aenter__(self) -> Self:
        settings = self._settings
        per_minute = settings.requests_per_minute
        self._rate = AsyncLimiter(1, 60.0 / per_minute) if per_minute else None
        self._threads = ThreadPoolExecutor(settings.max_concurrent, thread_name_prefix="duckduckgo")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        # A request that is under way cannot be stopped; its own time-out ends it.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def page(self, request: PageRequest) -> list[RawHit]:
        year = request.year
        ask = partial(
            self._engine.search,
            request.query,
            region=self._settings.params.get("region", "wt-wt"),
            safesearch=self._settings.params.get("safesearch", "moderate"),
            timelimit=None if year is None else f"{year}-01-01..{year}-12-31",
            page=request.page + 1,
        )
        found = await with_attempts(_WHERE, self._settings, lambda: self._attempt(ask))
        self._num_answered += 1
        return [RawHit(hit.title, hit.href, hit.body) for hit in found]

    async def _attempt(self, ask: Callable[[], "list[TextResult] | None"]) -> "list[TextResult]":
        """One request in a thread."""
        from ddgs.exceptions import DDGSException, TimeoutException

        if self._rate is not None:
            await self._rate.acquire()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask) or []
        except TimeoutException as error:
            raise AttemptFailed(
                f"no answer within timeout_s = {self._settings.timeout_s:g} s",
                advice="try again later, or raise web.duckduckgo.timeout_s",
                passing=True,
            ) from error
        except DDGSException as error:
            # What the library says of a failed connection is a nest of Rust errors, which may name the proxy.
            _log.info("%s: %s", _WHERE, error.__cause__)
            raise AttemptFailed(
                f"connection failed: {type(error.__cause__ or error).__name__}",
                advice="check the network and params.proxy",
                passing=True,
            ) from error


def _engine(settings: ProviderSettings) -> "BaseSearchEngine[TextResult]":
    """The library's engine for DuckDuckGo, with statuses that are told apart."""
    try:
        from ddgs.engines.duckduckgo import Duckduckgo
    except ImportError as error:
        raise ConfigError(f"web.search names duckduckgo, which needs the ddgs library ({error}): {INSTALL}") from None

    class Engine(Duckduckgo):
        """Raises for whatever is no page of results."""

        def request(self, *args: Any, **kwargs: Any) -> str:
            response = self.http_client.request(*args, **kwargs)
            text: str = response.text
            _check(response.status_code, text)
            return text

    verify = settings.params.get("verify", "true")
    return Engine(
        proxy=settings.params.get("proxy"),
        timeout=settings.timeout_s,  # type: ignore[arg-type]  # fractions of a second are taken too
        verify={"true": True, "false": False}.get(verify, verify),
    )


def _check(status: int, text: str) -> None:
    """Raise for an answer that is no page of results."""
    if status == 200 and not any(mark in text for mark in _CHALLENGES):
        return
    if status in (200, 202, 403, 429):
        raise AttemptFailed(
            f"status {status}: takes us for a machine, or gets too many requests",
            advice="set web.duckduckgo.requests_per_minute, try again later, or use a search engine with a key",
            refusal=RefusalReason.RATE,
        )
    raise AttemptFailed(
        f"status {status}: {shortened(text) or '(empty answer)'}",
        advice="try again later, or use another search engine",
        passing=status == 408 or status >= 500,
    )
