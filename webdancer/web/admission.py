"""Which links of a page join the queue, and the crawl's memory against traps.

Three limits of different width stop an endless web. A URL that repeats itself is refused by its shape (`web.scope`). Of
one URL pattern (digits folded, query values dropped) at most `max_per_pattern` are taken: wide, because archives number
their pages. And a *family* of URLs that feeds only itself is closed early: a page is **barren** where it

1. was found on a page of its own family,
2. offers no new URL outside that family, and
3. has the very words, in order, that another page of the family had (digits do not count as words);

after `max_barren_per_pattern` such pages the family is closed. The twelve months of a calendar bring their names in the
first year; from then on each page is barren. A numbered archive is not cut, because its pages differ in their words. The
default is generous, since a small honest site can look the same ("Page 1", "Page 2" …), and `max_depth` ends most traps.
A URL without digits and query is a family of its own, so `/wiki/NAME` is never counted together.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from webdancer.config import CrawlSettings
from webdancer.web.frontier import Entry, Row, UrlState
from webdancer.web.scope import Scope
from webdancer.web.urls import url_pattern

_WORD = re.compile(r"[^\W\d_]+")
_MAX_CHARS = 20_000
"""Text beyond this is not looked at for its words."""
_NUMBER_SEGMENTS = re.compile(r"(?:/0)+(?=[/?]|$)")
BARREN = "-"
"""Stands in front of the digest of a barren page's words."""


class Decision(NamedTuple):
    """What to do with one new URL."""

    url: str
    own_pattern: bool
    state: UrlState
    """`PENDING`: it joins the queue."""
    reason: str


@dataclass(slots=True)
class _Family:
    words: set[str] = field(default_factory=set)
    num_barren: int = 0


class Admission:
    """Judges links. What it remembers follows from the frontier's rows, so that a resumed crawl decides alike."""

    def __init__(self, settings: CrawlSettings, scope: Scope, rows: Iterable[Row]) -> None:
        self._settings, self._scope = settings, scope
        self._known: set[str] = set()
        self._per_pattern: Counter[str] = Counter()
        self._families: defaultdict[str, _Family] = defaultdict(_Family)
        for row in rows:
            self._known.add(row.url)
            if row.settled.state not in (UrlState.TRAPPED, UrlState.OVER_LIMIT):
                self._count(row.url)
            if (words := row.settled.words) is not None:
                self._remember(url_family(row.url), words.removeprefix(BARREN), barren=words.startswith(BARREN))

    def roots(self) -> list[Decision]:
        """The crawl's roots. They are fetched even where path prefixes or patterns would leave them out."""
        self._known.update(self._scope.roots)
        return [Decision(url, False, UrlState.PENDING, "") for url in self._scope.roots if self._count(url)]

    def links(self, entry: Entry, links: Sequence[str]) -> list[Decision]:
        """Decide on the links of a page that were not met before; those outside the crawl's scope give nothing."""
        fresh = [link for link in links if link not in self._known]
        if not fresh:
            return []
        family, depth = url_family(entry.url), entry.depth + 1
        decisions = []
        for link in fresh:
            self._known.add(link)
            if self._scope.contains(link):
                state, reason = self._judge(link, depth)
                decisions.append(Decision(link, url_family(link) == family, state, reason))
        return decisions

    def redirect_target(self, entry: Entry, url: str) -> Decision | None:
        """Decide on the target of a redirect; None where it was met before or is out of scope."""
        if url in self._known or not self._scope.contains(url):
            return None
        self._known.add(url)
        state, reason = self._judge(url, entry.depth)
        return Decision(url, entry.own_pattern, state, reason)

    def in_scope(self, url: str) -> bool:
        """Whether the URL belongs to the crawl."""
        return self._scope.contains(url)

    def _judge(self, url: str, depth: int) -> tuple[UrlState, str]:
        if self._scope.looks_like_trap(url):
            return UrlState.TRAPPED, "url_shape"
        if depth > self._settings.max_depth:
            return UrlState.OVER_LIMIT, "max_depth"
        if self.is_closed(url):
            return UrlState.TRAPPED, "barren"
        if not self._count(url):
            return UrlState.TRAPPED, "max_per_pattern"
        return UrlState.PENDING, ""

    def _count(self, url: str) -> bool:
        """Count the URL under its pattern; False, and not counted, where the pattern is full."""
        pattern = url_pattern(url)
        if pattern == url:
            return True
        if self._per_pattern[pattern] >= self._settings.max_per_pattern:
            return False
        self._per_pattern[pattern] += 1
        return True

    def is_closed(self, url: str) -> bool:
        """Whether the URL's family was found to be a trap."""
        family = self._families.get(url_family(url))
        return family is not None and family.num_barren >= self._settings.max_barren_per_pattern

    def note_page(self, entry: Entry, text: str, decisions: Sequence[Decision]) -> str | None:
        """Remember a page against traps.

        Args:
            text: its main text.
            decisions: what was decided on its links.

        Returns:
            What the frontier keeps of it: None for a page that is a family of its own.
        """
        family = url_family(entry.url)
        if family == entry.url:
            return None
        digest = _words_digest(text)
        feeds_itself = entry.own_pattern and all(decision.own_pattern for decision in decisions)
        barren = feeds_itself and digest in self._families[family].words
        self._remember(family, digest, barren=barren)
        return BARREN + digest if barren else digest

    def _remember(self, family: str, digest: str, *, barren: bool) -> None:
        self._families[family].words.add(digest)
        self._families[family].num_barren += barren


def url_family(url: str) -> str:
    """The URL's pattern with neighbouring number segments folded to one: a calendar's months and days are one family."""
    pattern = url_pattern(url)
    return _NUMBER_SEGMENTS.sub("/0", pattern) if "/0/0" in pattern else pattern


def _words_digest(text: str) -> str:
    words = " ".join(_WORD.findall(text[:_MAX_CHARS].lower()))
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
