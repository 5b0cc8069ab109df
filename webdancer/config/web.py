"""Settings of the webs: the embedded one, how sites are crawled, and what search and visit answer from."""

from typing import Literal

from pydantic import Field

from webdancer.config.base import Settings


class WorldSettings(Settings):
    """The embedded web. Ignored where `crawl.urls` names real sites."""

    num_pages: int = Field(3400, ge=20)
    num_heldout_pages: int = Field(2720, ge=20)
    seed: int = 7
    heldout_seed: int = 8
    right_share: float = Field(0.5, ge=0, le=1)
    """Share of the posts on the talk host that are right."""


class CrawlSettings(Settings):
    """How sites are crawled."""

    urls: tuple[str, ...] = ()
    """Root URLs. Empty, and no `source`: the embedded web."""
    source: str | None = None
    """In place of `urls`: a folder of documents (HTML, text, Markdown, PDF), or of a finished snapshot."""
    resolve: dict[str, str] = {}
    """Host name → `address:port`, used in place of DNS."""
    allow_private: tuple[str, ...] = ()
    """Hosts and networks (`intranet.example`, `10.1.0.0/16`) that may be asked although they are on this machine or in its
    network. The hosts of `urls` and `resolve` always may."""
    max_pages: int = Field(5000, ge=1)
    max_depth: int = Field(12, ge=0)
    max_pages_per_host: int = Field(5000, ge=1)
    same_host: bool = True
    """Stay on the hosts of the root URLs."""
    path_prefixes: tuple[str, ...] = ()
    """Only URLs whose path starts with one of these; empty: all."""
    include: tuple[str, ...] = ()
    """Regular expressions; a URL must match one of them, if there are any."""
    exclude: tuple[str, ...] = ()
    """Regular expressions; a URL that matches one of them is left out."""
    headers: dict[str, str] = {}
    user_agent: str = "webdancer/0.1"
    obey_robots: bool = True
    max_per_host: int = Field(8, ge=1)
    """Requests to one host under way at once."""
    delay_s: float = Field(0.0, ge=0)
    """Least time between two requests to one host; a longer Crawl-delay in robots.txt wins."""
    max_crawl_delay_s: float = Field(30.0, ge=0)
    timeout_s: float = Field(20.0, gt=0)
    max_bytes: int = Field(20_000_000, ge=1)
    """Largest body, after decompression."""
    max_compression_ratio: int = Field(200, ge=1)
    max_redirects: int = Field(5, ge=0)
    max_url_length: int = Field(2000, ge=10)
    max_path_repeats: int = Field(3, ge=1)
    """How often one path segment may recur in a URL before it counts as a trap."""
    max_per_pattern: int = Field(2000, ge=1)
    """Pages of one URL pattern (digits folded, query values dropped) on one host before the rest counts as a trap."""
    max_barren_per_pattern: int = Field(200, ge=1)
    """Pages of URLs that differ only in digits, that lead only to each other and say nothing new, before the rest counts
    as a trap (an endless calendar)."""

    @property
    def is_embedded(self) -> bool:
        """Whether the embedded web is meant, since neither sites nor documents are named."""
        return not self.urls and self.source is None


class ProviderSettings(Settings):
    """One search engine, or the reader service of Jina."""

    base_url: str | None = None
    """None: the provider's own."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None: the provider's usual one (`SERPER_API_KEY`, say)."""
    api_key_file: str | None = None
    """File that holds the key, in place of the variable."""
    params: dict[str, str] = {}
    """Sent with every request as they are: country, language and what else the provider knows."""
    timeout_s: float = Field(20.0, gt=0)
    max_attempts: int = Field(3, ge=1)
    max_concurrent: int = Field(8, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)
    price_per_call: float = Field(0.0, ge=0)


class WebSettings(Settings):
    """What search and visit answer from when the agent works: in `ask`, sampling, RL and evaluation."""

    search: tuple[Literal["snapshot", "serper", "tavily", "brave", "searxng", "duckduckgo"], ...] = ("snapshot",)
    """Search engines in the order in which they are asked: the next one where one fails."""
    reader: Literal["snapshot", "live", "jina"] = "snapshot"
    """`live` fetches pages itself, under the limits of `[crawl]`."""
    page_cache_s: float = Field(600.0, ge=0)
    """How long a live page, or the failure to get it, is remembered."""
    serper: ProviderSettings = ProviderSettings()
    tavily: ProviderSettings = ProviderSettings()
    brave: ProviderSettings = ProviderSettings()
    searxng: ProviderSettings = ProviderSettings()
    duckduckgo: ProviderSettings = ProviderSettings()
    jina: ProviderSettings = ProviderSettings()
