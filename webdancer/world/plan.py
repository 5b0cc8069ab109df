"""How many entities of each type a web of a given size holds, and how it is cut into regions."""

from dataclasses import dataclass

from webdancer.errors import ConfigError

REGION_PAGES = 3400
_THREADED = 1.7
"""A web with its talk host has so many times the pages that it would have without."""

BASE: dict[str, int] = {
    "country": 14, "lake": 10, "river": 24, "city": 100, "university": 36, "company": 85, "prize": 36, "museum": 48,
    "bridge": 58, "novel": 142, "film": 124, "band": 46, "album": 122, "paper": 176, "repository": 106, "person": 450,
    "news": 210,
}  # fmt: skip
"""Entities (and articles) for about 2,000 pages, or 3,400 with a thread about each entity."""

TYPES = tuple(kind for kind in BASE if kind != "news")
"""Of entities. The order is part of the addresses of threads."""

_EXTRA_PAGES = 176 + 90 + 45
"""PDFs, author pages and owner pages that come with them. Threads are not counted here."""

ROLE_SHARES: dict[str, float] = {
    "novelist": 0.12, "actor": 0.19, "film director": 0.07, "musician": 0.15, "computer scientist": 0.07, "architect": 0.06,
    "physicist": 0.06, "producer": 0.04, "chemist": 0.05, "entrepreneur": 0.05, "engineer": 0.04, "politician": 0.04,
    "biologist": 0.03, "economist": 0.02, "painter": 0.01,
}  # fmt: skip

MINIATURE_PAGES = 130
"""Below this size, threads left aside, a web need not hold every type."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of a web. All regions have the same."""

    num_regions: int
    counts: dict[str, int]
    region_pages: int

    def first(self, kind: str, region: int) -> int:
        """Number of the region's first entity of the type."""
        return region * self.counts[kind]

    def region_of(self, kind: str, number: int) -> int | None:
        """The region that holds an entity, or None where the web has no such number."""
        count = self.counts.get(kind, 0)
        if count == 0 or not 0 <= number < count * self.num_regions:
            return None
        return number // count


def make_plan(num_pages: int) -> Plan:
    """Cut a web of about `num_pages` pages into regions of about 3,400.

    Raises:
        ConfigError: fewer than 20 pages.
    """
    if num_pages < 20:
        raise ConfigError(f"number of pages: got {num_pages}, expected at least 20")
    num_regions = max(1, round(num_pages / REGION_PAGES))
    pages = num_pages / num_regions / _THREADED
    indexes = 5 if pages < MINIATURE_PAGES else min(120, 25 + pages / 25)
    scale = (pages - indexes) / (sum(BASE.values()) + _EXTRA_PAGES)
    least = 0 if pages < MINIATURE_PAGES else 1
    counts = {kind: max(least, round(count * scale)) for kind, count in BASE.items()}
    for kind, floor in (
        ("country", 1),
        ("city", 2),
        ("person", 4),
        ("film", 1),
        ("novel", 1),
        ("news", 1),
        ("paper", 1),
    ):
        counts[kind] = max(counts[kind], floor)
    return Plan(num_regions, counts, round(num_pages / num_regions))
