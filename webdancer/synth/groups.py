"""Page groups from seeded walks over a snapshot's link graph (paper, section 2: CRAWLQA).

A question that needs several pages is written from pages that hang together. Which shape they should have follows from
the kind of question:

    multi_hop     a chain:            start → page → page → …
    count         a chain to a list:  … → page → the page that holds the list
    intersection  a fork:             A lists M, B lists M, and a further page leads to A or B
    easy_to_hard  one page, for the simple question

The walks know nothing of what the pages are about. They use three signs: links (navigation is left out, because it leads
from everywhere to the same pages), whether the target's title is mentioned in the main text (a link that is not comes from
a menu or a box beside it), and whether it is so in a sentence or in a list: a page that tells of another in a sentence
mostly states a fact that leads to that one thing. The paper says only that links are followed as a person would.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol
from urllib.parse import urlsplit

from webdancer.records import Page, QAKind
from webdancer.synth.checks import base_title, text_size, tokens
from webdancer.synth.seeds import derive_rng

MIN_TEXT_CHARS = 150
"""Shorter pages state too little to ask about. A Chinese character counts as three."""
MAX_LINK_SHARE = 0.2
"""A page that so many of its host's pages link to, or that links to so many, is a hub (navigation, index)."""
MIN_HUB_LINKS = 60
"""Fewer links make no hub, however small the host is."""
MIN_LIST_ITEMS = 3
MAX_FORKS = 24
"""Forks that one page takes part in, so that the longest lists do not bring most of the questions."""
MAX_STEPS = 8
MAX_TURNS = 8
"""How often walks begin from the same page."""
MAX_LIST_VISITS = 16
"""How often one turn comes back to the same list."""
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
    told: dict[str, list[str]] = field(default_factory=dict)
    """Page → the pages that it tells of: links whose target is mentioned outside lists. One thing leads to the other."""
    told_by: dict[str, list[str]] = field(default_factory=dict)
    listed: dict[str, list[str]] = field(default_factory=dict)
    """Page → the pages that its lists hold."""
    listed_by: dict[str, list[str]] = field(default_factory=dict)
    leads: dict[str, list[str]] = field(default_factory=dict)
    """Page → the pages that make a question about it need both: `told_apart`, or else all that tell of it or list it."""
    num_steps: dict[str, int] = field(default_factory=dict)
    """Page → how many pages in a row lead to it, each telling of the next, up to MAX_STEPS."""
    namesakes: dict[str, list[str]] = field(default_factory=dict)
    """Page → the other pages of its title."""
    hubs: list[str] = field(default_factory=list)

    def told_apart(self, url: str) -> list[str]:
        """The pages that tell of a page and that it does not lead back to: what they say is not on its own page as well.

        Pages of the same title are left out: a name in the question would mean both.
        """
        back = {*self.told[url], *self.listed[url], *self.namesakes[url]}
        return [source for source in self.told_by[url] if source not in back]


def build_graph(snapshot: PageSource, *, max_page_chars: int = 20_000) -> LinkGraph:
    """Read every page once. Longer pages than `max_page_chars` are left out."""
    features: dict[str, _PageFeatures] = {}
    for url in sorted(snapshot.urls()):
        page = snapshot.page(url)
        if page is not None:
            features[url] = _PageFeatures.of(page)
    hubs = _find_hubs(features)
    usable = {u for u, f in features.items() if MIN_TEXT_CHARS <= f.num_chars <= max_page_chars and u not in hubs}
    graph = LinkGraph(urls=sorted(usable), hubs=sorted(hubs))
    for links in (graph.told, graph.told_by, graph.listed, graph.listed_by):
        links |= {url: [] for url in graph.urls}
    for url in graph.urls:
        for target in sorted(features[url].links & usable - {url}):
            title = features[target].title
            if title in features[url].prose:
                graph.told[url].append(target)
                graph.told_by[target].append(url)
            if title in features[url].lists:
                graph.listed[url].append(target)
                graph.listed_by[target].append(url)
    by_title: dict[str, list[str]] = defaultdict(list)
    for url in graph.urls:
        by_title[features[url].title].append(url)
    for url in graph.urls:
        graph.namesakes[url] = [other for other in by_title[features[url].title] if other != url]
        graph.leads[url] = graph.told_apart(url) or graph.told_by[url] or graph.listed_by[url]
    apart = {url for url in graph.urls if graph.told_apart(url)}
    for url in graph.urls:
        # A page that it does lead back to makes a question need both as well if a third page leads to that one.
        graph.leads[url] += [
            source for source in graph.told_by[url] if source in apart and source not in graph.leads[url]
        ]
    graph.num_steps = _count_steps(graph)
    return graph


@dataclass(frozen=True, slots=True)
class _PageFeatures:
    """What the graph needs of one page: tokens joined by spaces, with a space at either end."""

    title: str
    prose: str
    lists: str
    num_chars: int
    """`text_size` of the page's text"""
    links: frozenset[str]

    @classmethod
    def of(cls, page: Page) -> "_PageFeatures":
        entries = list_lines(page.text)
        listed = set(entries)
        prose = "\n".join(line for line in page.text.splitlines() if line not in listed)
        title = _joined(base_title(page.title)) if tokens(page.title) else "\0"  # a page without title is not mentioned
        return cls(title, _joined(prose), _joined("\n".join(entries)), text_size(page.text), frozenset(page.links))


def _joined(text: str) -> str:
    return f" {' '.join(tokens(text))} "


def list_lines(text: str) -> list[str]:
    """The entries of a page's lists and tables of at least three rows; rows above the first section are an infobox."""
    entries: list[str] = []
    for number, section in enumerate(re.split(r"(?m)^#+ .*$", text)):
        rows = [line for line in section.splitlines() if line.startswith("- ") or (number > 1 and " | " in line)]
        if len(rows) >= MIN_LIST_ITEMS:
            entries += rows
    return entries


def _find_hubs(features: dict[str, _PageFeatures]) -> set[str]:
    """Pages with more links to or from them than a page of their host should have."""
    pages_per_host = Counter(urlsplit(url).netloc for url in features)
    limits = {host: max(MIN_HUB_LINKS, MAX_LINK_SHARE * num) for host, num in pages_per_host.items()}
    num_inbound = Counter(target for url, page in features.items() for target in page.links if target != url)
    hubs = {url for url in features if num_inbound[url] > limits[urlsplit(url).netloc]}
    for url, page in features.items():
        if sum(1 for target in page.links if target in features and target not in hubs) > limits[urlsplit(url).netloc]:
            hubs.add(url)
    return hubs


def _count_steps(graph: LinkGraph) -> dict[str, int]:
    """For every page the length of the longest way that leads to it (ways may pass a page twice)."""
    num_steps = dict.fromkeys(graph.urls, 0)
    for length in range(1, MAX_STEPS + 1):
        for url in [u for u in graph.urls if any(num_steps[other] >= length - 1 for other in graph.told_by[u])]:
            num_steps[url] = length
    return num_steps


def walk_groups(graph: LinkGraph, kind: QAKind, *, size: int, seed: int, prefix: str = "") -> Iterator[PageGroup]:
    """Groups of two to `size` pages, each set of pages once, until there are no new ones.

    For easy_to_hard they have one page each, which comes back up to MAX_TURNS times, for other questions. The sequence is a
    function of the graph, the kind, `size` and `seed`; a group's place in it is its id.
    """
    seen: set[tuple[int, frozenset[str]]] = set()
    is_single = kind is QAKind.EASY_TO_HARD
    tiers = _origins(graph, kind, derive_rng(seed, kind, "order"))
    walks = ((t, turn, n) for t, tier in enumerate(tiers) for turn in range(MAX_TURNS) for n in range(len(tier)))
    index = 0
    for tier, turn, number in walks:
        for attempt in range(_TRIES):
            rng = derive_rng(seed, kind, tier, turn, number, attempt)
            urls = _grow(graph, kind, tiers[tier][number], size, rng)
            key = (turn if is_single else 0, frozenset(urls))
            if key not in seen and (is_single or len(urls) > 1):
                seen.add(key)
                yield PageGroup(f"{prefix}{kind}-{index:05d}", kind, urls)
                index += 1
                break


def _origins(graph: LinkGraph, kind: QAKind, rng: random.Random) -> list[list[tuple[str, ...]]]:
    """The pages that walks of this kind begin from, in the order of the walks: the promising ones, then the others."""
    tiers: list[list[tuple[str, ...]]]
    if kind is QAKind.MULTI_HOP:
        tiers = [[(url,) for url in graph.urls if graph.told[url]]]
    elif kind is QAKind.INTERSECTION:
        tiers = _fork_origins(graph)
    else:
        # What nothing leads to cannot be described through anything else.
        apart = {url for url in graph.urls if graph.told_apart(url)}
        tiers = [[(url,) for url in graph.urls if (url in apart) is promising] for promising in (True, False)]
    for tier in tiers:
        rng.shuffle(tier)
    return [_by_list_length(graph, tier) for tier in tiers] if kind is QAKind.COUNT else tiers


def _by_list_length(graph: LinkGraph, origins: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The origins that hold lists and are led to, lists of all lengths in turn: rare ones are not drowned by common ones.

    A page whose length is rare comes up again, up to MAX_LIST_VISITS times, before all of a common length have come once.
    """
    by_length: dict[int, list[tuple[str, ...]]] = defaultdict(list)
    for origin in origins:
        if len(graph.listed[origin[0]]) >= MIN_LIST_ITEMS and graph.leads[origin[0]]:
            by_length[len(graph.listed[origin[0]])].append(origin)
    order: list[tuple[str, ...]] = []
    for number in range(max(map(len, by_length.values()), default=0)):
        for length in sorted(by_length):
            same = by_length[length]
            if number < MAX_LIST_VISITS * len(same):
                order.append(same[number % len(same)])
    return order


def _fork_origins(graph: LinkGraph) -> list[list[tuple[str, ...]]]:
    """(M, A, B) where A and B list M and, as far as links show, no other page; then those that share others too."""
    unique: list[tuple[str, ...]] = []
    shared: list[tuple[str, ...]] = []
    num_forks: Counter[str] = Counter()
    for middle, holders in graph.listed_by.items():
        pairs = list(combinations(holders, 2))
        derive_rng("pairs", middle).shuffle(pairs)
        for first, second in pairs:
            both = set(graph.listed[first]) & set(graph.listed[second])
            if len(graph.listed[first]) < 2 or len(graph.listed[second]) < 2:
                continue
            if max(num_forks[first], num_forks[second], num_forks[middle]) >= MAX_FORKS:
                continue
            num_forks.update((first, second, middle))
            (unique if len(both) == 1 else shared).append((middle, first, second))
    return [unique, shared]


def _grow(graph: LinkGraph, kind: QAKind, origin: Sequence[str], size: int, rng: random.Random) -> tuple[str, ...]:
    """A group from its origin: forwards from page to page, backwards from a list's holder, or around a fork."""
    match kind:
        case QAKind.EASY_TO_HARD:
            return tuple(origin)
        case QAKind.MULTI_HOP:
            return _chain(graph.told, origin[0], size, rng)
        case QAKind.COUNT:
            return _chain(graph.leads, origin[0], size, rng)[::-1]
        case QAKind.INTERSECTION:
            middle, first, second = origin
            group = [first, second, middle]
            leads = [url for side in (first, second) for url in graph.leads[side] if url not in group]
            if size > len(group) and leads:
                group.insert(0, rng.choice(leads))
            return tuple(group)


def _chain(links: dict[str, list[str]], start: str, size: int, rng: random.Random) -> tuple[str, ...]:
    """Up to `size` pages, each linked with the one before, none twice."""
    chain = [start]
    while len(chain) < size:
        onward = [url for url in links[chain[-1]] if url not in chain]
        if not onward:
            break
        chain.append(rng.choice(onward))
    return tuple(chain)
