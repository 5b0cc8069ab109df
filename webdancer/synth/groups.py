"""Page groups from seeded walks over a snapshot's link graph (paper, section 2: CRAWLQA).

A question that needs several pages is written from pages that hang together. Which shape they should have follows from
the kind of question:

    multi_hop     a chain:            start → page → page → …
    count         a chain to a list:  … → page → the page that holds the list
    intersection  a fork:             A lists M, B lists M, and a further page leads to A or B
    easy_to_hard  one page, for the simple question

The walks know nothing of what the pages are about. They use three signs: links (navigation is left out, because it
leads from everywhere to the same pages), whether the target's title is mentioned in the main text (a link that is not
comes from a menu or a box beside it), and list items. The paper says only that links are followed as a person would.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol
from urllib.parse import urlsplit

from webdancer.records import Page, QAKind
from webdancer.synth.checks import base_title, tokens
from webdancer.synth.seeds import derive_rng

MIN_TEXT_CHARS = 150
"""Shorter pages state too little to ask about."""
MAX_TEXT_CHARS = 20_000
"""Longer pages would have to be cut for the writer, and a list that is cut is counted wrongly."""
MAX_LINK_SHARE = 0.2
"""A page that so many of its host's pages link to, or that links to so many, is a hub (navigation, index)."""
MIN_HUB_LINKS = 60
"""Fewer links make no hub, however small the host is."""
MIN_LIST_ITEMS = 3
_MAX_PAIRS_PER_PAGE = 12
_TRIES = 4


class PageSource(Protocol):
    """The part of a snapshot that is needed here."""

    def urls(self) -> list[str]: ...

    def page(self, url: str) -> Page | None: ...


@dataclass(frozen=True, slots=True)
class PageGroup:
    """Pages that one request to the writer is about, in the order of the walk."""

    id: str
    kind: QAKind
    urls: tuple[str, ...]


@dataclass(slots=True)
class LinkGraph:
    """Which pages of a snapshot lead to which, hubs left out. All sequences are sorted."""

    urls: list[str] = field(default_factory=list)
    """Pages that questions can be asked about."""
    forward: dict[str, list[str]] = field(default_factory=dict)
    backward: dict[str, list[str]] = field(default_factory=dict)
    listed_by: dict[str, list[str]] = field(default_factory=dict)
    """Page → the pages that have it in a list."""
    num_listed: dict[str, int] = field(default_factory=dict)
    """Page → how many pages its lists hold."""
    hubs: list[str] = field(default_factory=list)

    def leads(self, url: str) -> list[str]:
        """Pages that lead to a page and make a question about it need both.

        The best tell of it in their text, not in a list, and are not led back to: what they say of it is then not told
        by its own page as well. Failing those, pages that tell of it in their text, then all that lead to it.
        """
        listed, forward = set(self.listed_by[url]), set(self.forward[url])
        told = [source for source in self.backward[url] if source not in listed]
        return [source for source in told if source not in forward] or told or self.backward[url]


def build_graph(snapshot: PageSource) -> LinkGraph:
    """Read every page once."""
    features: dict[str, _PageFeatures] = {}
    pages_per_host: dict[str, int] = defaultdict(int)
    for url in sorted(snapshot.urls()):
        page = snapshot.page(url)
        if page is not None:
            features[url] = _PageFeatures.of(page)
            pages_per_host[urlsplit(url).netloc] += 1
    limits = {host: max(MIN_HUB_LINKS, MAX_LINK_SHARE * num) for host, num in pages_per_host.items()}
    hubs = _find_hubs(features, limits)
    usable = {u for u, f in features.items() if MIN_TEXT_CHARS <= f.num_chars <= MAX_TEXT_CHARS and u not in hubs}
    graph = LinkGraph(urls=sorted(usable), hubs=sorted(hubs))
    graph.forward = {url: [] for url in graph.urls}
    graph.backward = {url: [] for url in graph.urls}
    graph.listed_by = {url: [] for url in graph.urls}
    for url in graph.urls:
        listed = 0
        for target in sorted(features[url].links & usable):
            title = features[target].title
            if target == url or not features[url].mentions(title):
                continue
            graph.forward[url].append(target)
            graph.backward[target].append(url)
            if features[url].lists(title):
                graph.listed_by[target].append(url)
                listed += 1
        graph.num_listed[url] = listed
    return graph


@dataclass(frozen=True, slots=True)
class _PageFeatures:
    """What the graph needs of one page."""

    title: str
    """Its title's tokens, with a space at either end."""
    text: str
    list_text: str
    num_chars: int
    links: frozenset[str]

    @classmethod
    def of(cls, page: Page) -> "_PageFeatures":
        title = " ".join(tokens(base_title(page.title)))
        text = f" {' '.join(tokens(page.text))} "
        listed = f" {' '.join(tokens(' '.join(list_lines(page.text))))} "
        return cls(f" {title} ", text, listed, len(page.text), frozenset(page.links))

    def mentions(self, title: str) -> bool:
        return bool(title.strip()) and title in self.text

    def lists(self, title: str) -> bool:
        return bool(title.strip()) and title in self.list_text


def list_lines(text: str) -> list[str]:
    """The entries of a page's lists and tables of at least three rows; rows above the first section are an infobox."""
    entries: list[str] = []
    for number, section in enumerate(re.split(r"(?m)^#+ .*$", text)):
        rows = [line for line in section.splitlines() if line.startswith("- ") or (number > 1 and " | " in line)]
        if len(rows) >= MIN_LIST_ITEMS:
            entries += rows
    return entries


def _find_hubs(features: dict[str, _PageFeatures], limits: dict[str, float]) -> set[str]:
    """Pages with more links to or from them than a page of their host should have."""
    num_inbound: dict[str, int] = defaultdict(int)
    for url, page in features.items():
        for target in page.links:
            if target in features and target != url:
                num_inbound[target] += 1
    hubs = {url for url, num in num_inbound.items() if num > limits[urlsplit(url).netloc]}
    for url, page in features.items():
        if sum(1 for target in page.links if target in features and target not in hubs) > limits[urlsplit(url).netloc]:
            hubs.add(url)
    return hubs


def walk_groups(graph: LinkGraph, kind: QAKind, *, size: int, seed: int, prefix: str = "") -> Iterator[PageGroup]:
    """Groups of two to `size` pages (one for easy_to_hard), each set of pages once, until there are no new ones.

    The sequence is a function of the graph, the kind, `size` and `seed`; a group's place in it is its id.
    """
    origins = _origins(graph, kind)
    derive_rng(seed, kind, "order").shuffle(origins)
    seen: set[frozenset[str]] = set()
    index, turn, found = 0, 0, True
    while origins and found:
        found = False
        for number, origin in enumerate(origins):
            for attempt in range(_TRIES):
                rng = derive_rng(seed, kind, turn, number, attempt)
                urls = _grow(graph, kind, origin, size, rng)
                if len(urls) >= (1 if kind is QAKind.EASY_TO_HARD else 2) and frozenset(urls) not in seen:
                    seen.add(frozenset(urls))
                    found = True
                    yield PageGroup(f"{prefix}{kind}-{index:05d}", kind, urls)
                    index += 1
                    break
        turn += 1


def _origins(graph: LinkGraph, kind: QAKind) -> list[tuple[str, ...]]:
    """The pages that walks of this kind begin from."""
    match kind:
        case QAKind.EASY_TO_HARD:
            return [(url,) for url in graph.urls]
        case QAKind.MULTI_HOP:
            return [(url,) for url in graph.urls if graph.forward[url]]
        case QAKind.COUNT:
            holders = [u for u in graph.urls if graph.num_listed[u] >= MIN_LIST_ITEMS and graph.backward[u]]
            return [(url,) for url in holders]
        case QAKind.INTERSECTION:
            return _fork_origins(graph)


def _fork_origins(graph: LinkGraph) -> list[tuple[str, ...]]:
    """(M, A, B) where A and B list M and, as far as links show, no other page; failing that, share others too."""
    members: dict[str, set[str]] = defaultdict(set)
    for page, holders in graph.listed_by.items():
        for holder in holders:
            members[holder].add(page)
    unique: list[tuple[str, ...]] = []
    shared: list[tuple[str, ...]] = []
    for middle, holders in graph.listed_by.items():
        pairs = list(combinations(holders, 2))
        derive_rng("pairs", middle).shuffle(pairs)
        forks = [(middle, a, b) for a, b in pairs if len(members[a]) > 1 and len(members[b]) > 1]
        only = [fork for fork in forks if members[fork[1]] & members[fork[2]] == {middle}]
        unique += only[:_MAX_PAIRS_PER_PAGE]
        shared += [fork for fork in forks if fork not in only][: _MAX_PAIRS_PER_PAGE - len(only)]
    return unique or shared


def _grow(graph: LinkGraph, kind: QAKind, origin: Sequence[str], size: int, rng: random.Random) -> tuple[str, ...]:
    """A group from its origin: forwards along links, backwards from a list's holder, or around a fork."""
    match kind:
        case QAKind.EASY_TO_HARD:
            return tuple(origin)
        case QAKind.MULTI_HOP:
            return _chain(graph.forward.__getitem__, origin[0], size, rng)
        case QAKind.COUNT:
            return _chain(graph.leads, origin[0], size, rng)[::-1]
        case QAKind.INTERSECTION:
            middle, first, second = origin
            group = [first, second, middle]
            leads = [url for side in (first, second) for url in graph.leads(side) if url not in group]
            if size > len(group) and leads:
                group.insert(0, rng.choice(leads))
            return tuple(group)


def _chain(links: Callable[[str], list[str]], start: str, size: int, rng: random.Random) -> tuple[str, ...]:
    """Up to `size` pages, each linked with the one before, none twice."""
    chain = [start]
    while len(chain) < size:
        onward = [url for url in links(chain[-1]) if url not in chain]
        if not onward:
            break
        chain.append(rng.choice(onward))
    return tuple(chain)
