"""Which URLs belong to a crawl: hosts, path prefixes, patterns, and the shapes that give crawler traps away."""

import re
from urllib.parse import urlsplit

from webdancer.config import CrawlSettings
from webdancer.errors import ConfigError
from webdancer.web.urls import canonical_url, max_segment_repeats


class Scope:
    """The crawl's limits that a URL alone can be judged by.

    Raises:
        ConfigError: a root is not an http(s) URL, or a pattern is not a regular expression.
    """

    def __init__(self, settings: CrawlSettings) -> None:
        self._settings = settings
        roots = [(url, canonical_url(url)) for url in settings.urls]
        if not roots:
            raise ConfigError("crawl.urls is empty: name at least one http(s) URL to start from")
        for given, canonical in roots:
            if canonical is None:
                raise ConfigError(
                    f"crawl.urls: got {given!r}, expected an http(s) URL, as in https://example.com/docs/"
                )
        self.roots = tuple(dict.fromkeys(canonical for _, canonical in roots if canonical is not None))
        self._hosts = frozenset(_site(urlsplit(url).netloc) for url in self.roots)
        self._include = [_compiled(pattern, "include") for pattern in settings.include]
        self._exclude = [_compiled(pattern, "exclude") for pattern in settings.exclude]

    def contains(self, url: str) -> bool:
        """Whether a canonical URL belongs to the crawl. The patterns are searched for anywhere in it."""
        parts = urlsplit(url)
        if self._settings.same_host and _site(parts.netloc) not in self._hosts:
            return False
        if self._settings.path_prefixes and not parts.path.startswith(self._settings.path_prefixes):
            return False
        if self._include and not any(pattern.search(url) for pattern in self._include):
            return False
        return not any(pattern.search(url) for pattern in self._exclude)

    def looks_like_trap(self, url: str) -> bool:
        """Too long, or one path segment over and over, as endless relative links make them."""
        return len(url) > self._settings.max_url_length or max_segment_repeats(url) > self._settings.max_path_repeats


def _site(netloc: str) -> str:
    """Host and port, with and without `www.` the same: roots are often given without it and redirect to it."""
    return netloc.removeprefix("www.")


def _compiled(pattern: str, setting: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"crawl.{setting}: got {pattern!r}, not a regular expression: {error}") from None
