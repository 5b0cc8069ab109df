"""Search engines of the live web behind one protocol, with fallbacks: what `[web]` names, opened and closed.

The paper's agents search with Google; which engine answers here is a setting.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from webdancer.config import ProviderSettings, WebSettings
from webdancer.errors import ConfigError
from webdancer.web.protocol import SearchProvider
from webdancer.web.providers.attempts import ProviderRefused, RefusalReason
from webdancer.web.providers.base import NamedSearch, PagedSearch
from webdancer.web.providers.brave import BraveSearch
from webdancer.web.providers.chain import Link, SearchChain
from webdancer.web.providers.duckduckgo import INSTALL, DuckDuckGoSearch
from webdancer.web.providers.searxng import SearxngSearch
from webdancer.web.providers.serper import SerperSearch
from webdancer.web.providers.tavily import TavilySearch

__all__ = [
    "PROVIDERS",
    "Meter",
    "NamedSearch",
    "Provider",
    "ProviderRefused",
    "RefusalReason",
    "open_search",
]

Meter = Callable[[NamedSearch, ProviderSettings], SearchProvider]
"""Wraps a provider before it goes into a chain, so that its calls are counted as its own."""


class Provider(NamedTuple):
    """A search engine of the live web."""

    name: str
    """As `web.search` names it; its section is `[web.NAME]`."""
    open: Callable[[ProviderSettings], PagedSearch]
    """Makes it, to be used as an async context manager. Raises ConfigError where key, address or library is missing."""
    key_env: str | None
    """The environment variable that usually holds its key; None: it needs none."""
    sign_up: str
    """Where its key is had, or how it is set up."""


PROVIDERS: dict[str, Provider] = {
    **{
        kind.api.name: Provider(kind.api.name, kind, kind.api.key_env, kind.api.sign_up)
        for kind in (SerperSearch, TavilySearch, BraveSearch, SearxngSearch)
    },
    "duckduckgo": Provider("duckduckgo", DuckDuckGoSearch, None, INSTALL),
}


@asynccontextmanager
async def open_search(
    settings: WebSettings, *, snapshot: SearchProvider | None, meter: Meter | None = None
) -> AsyncIterator[SearchProvider]:
    """The search engines that `settings.search` names: the one, or a chain in that order.

    Args:
        snapshot: stands for `snapshot` where that is named; it is not metered.
        meter: applied to each provider of the live web.

    Raises:
        ConfigError: none is named, one twice, one lacks its key, address or library, or `snapshot` is named and there is
            none.
    """
    names = settings.search
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"web.search: got {list(names)}, expected one or more search engines, none of them twice")
    async with AsyncExitStack() as opened:
        links = []
        for name in names:
            if name == "snapshot":
                if snapshot is None:
                    raise ConfigError(
                        "web.search names the snapshot, but there is none here; name another search engine"
                    )
                links.append(Link(name, snapshot))
                continue
            section: ProviderSettings = getattr(settings, name)
            provider = await opened.enter_async_context(PROVIDERS[name].open(section))
            links.append(Link(name, provider if meter is None else meter(provider, section)))
        yield links[0].search if len(links) == 1 else SearchChain(links)
