"""Search and visit as the agent of a run uses them: over a snapshot, or over the live web."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from webdancer.agent.dense import DenseRanker
from webdancer.agent.tools import Toolbox
from webdancer.calls.outside import Outside
from webdancer.config import Config, ProviderSettings
from webdancer.errors import ConfigError, ReplayError
from webdancer.llm.protocol import ChatModel
from webdancer.records import Page
from webdancer.web.jina import JinaReader
from webdancer.web.live import LiveReader
from webdancer.web.protocol import PageReader, SearchHit, SearchProvider
from webdancer.web.providers import NamedSearch, open_search
from webdancer.web.search import SnapshotReader, SnapshotSearch
from webdancer.web.snapshot import Snapshot


@asynccontextmanager
async def open_toolbox(
    config: Config, summariser: ChatModel, outside: Outside, *, snapshot: Snapshot | None
) -> AsyncIterator[Toolbox]:
    """The tools as `[web]` has them; pages are read by the summariser role. Connections are closed at the end.

    Args:
        snapshot: the run's own web; None where there is none.

    Raises:
        ConfigError: the settings want a snapshot and there is none, a key is missing, or the extra `dense` is.
    """
    async with (
        open_engines(config, outside, snapshot=snapshot) as search,
        open_reader(config, outside, snapshot=snapshot) as reader,
    ):
        ranker = DenseRanker() if config.agent.passages == "dense" else None
        yield Toolbox(search, reader, summariser, config.agent, ranker=ranker)


def needs_snapshot(config: Config) -> bool:
    """Whether search or visit answer from a snapshot."""
    return "snapshot" in config.web.search or config.web.reader == "snapshot"


@asynccontextmanager
async def open_engines(config: Config, outside: Outside, *, snapshot: Snapshot | None) -> AsyncIterator[SearchProvider]:
    """The search engines of `web.search`, as one.

    Raises:
        ConfigError: the settings want a snapshot and there is none, or a key is missing.
    """
    if outside.is_replay:
        yield outside.taped_search(_Nothing())
        return
    own = None if snapshot is None else outside.metered_search(SnapshotSearch(snapshot), name="snapshot")

    def meter(search: NamedSearch, settings: ProviderSettings) -> SearchProvider:
        return outside.metered_search(search, name=search.name, price=settings.price_per_call)

    async with open_search(config.web, snapshot=own, meter=meter) as search:
        yield outside.taped_search(search)


@asynccontextmanager
async def open_reader(config: Config, outside: Outside, *, snapshot: Snapshot | None) -> AsyncIterator[PageReader]:
    """The reader of `web.reader`.

    Raises:
        ConfigError: the settings want a snapshot and there is none, or a key is missing.
    """
    kind = config.web.reader
    if outside.is_replay:
        yield outside.reader(_Nothing(), name=kind)
    elif kind == "live":
        async with LiveReader(config.crawl, cache_s=config.web.page_cache_s, on_page=outside.keep_live_page) as live:
            yield outside.reader(live, name=kind)
    elif kind == "jina":
        async with JinaReader(config.web.jina, cache_s=config.web.page_cache_s) as jina:
            yield outside.reader(jina, name=kind, price=config.web.jina.price_per_call)
    elif snapshot is None:
        raise ConfigError("web.reader = 'snapshot', but there is no snapshot here; set web.reader = 'live' or 'jina'")
    else:
        yield outside.reader(SnapshotReader(snapshot), name=kind)


class _Nothing:
    """Stands for a search engine and a reader whose answers all come from a recording."""

    async def search(self, query: str, *, num_results: int = 10, year: int | None = None) -> list[SearchHit]:
        raise ReplayError("search is replayed and cannot be asked")

    async def read(self, url: str) -> Page:
        raise ReplayError("the web is replayed and cannot be read")
