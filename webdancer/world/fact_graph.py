"""The seeded fact graph of the embedded web, made region by region.

A region of about 3,400 pages is made from (seed, region number) alone, so that a web of a million pages needs memory only for the
regions that are being read. Regions know of each other no more than names that follow from a number: some people work
for the first companies of the next region.
"""

from functools import lru_cache

from webdancer.world.build import Builder
from webdancer.world.facts_people import add_employment, add_people, add_universities
from webdancer.world.facts_places import add_buildings, add_companies, add_places, add_prizes
from webdancer.world.facts_tech import add_changing, add_news, add_papers, add_repositories
from webdancer.world.facts_works import add_films, add_music, add_novels
from webdancer.world.graph import Entity, Region
from webdancer.world.names import Names
from webdancer.world.plan import make_plan

_STEPS = (
    add_places, add_people, add_universities, add_companies, add_employment, add_prizes, add_buildings, add_novels,
    add_films, add_music, add_papers, add_repositories, add_changing, add_news,
)  # fmt: skip


class FactGraph:
    """All entities and facts of one web.

    Args:
        seed: two seeds share next to no name.
        num_pages: size of the web, at least 20.
        cached_regions: how many regions are kept in memory.
    """

    def __init__(self, seed: int, num_pages: int, *, cached_regions: int = 16) -> None:
        self.seed = seed
        self.plan = make_plan(num_pages)
        self.names = Names(seed)
        self.region = lru_cache(maxsize=cached_regions)(self._build)

    def _build(self, number: int) -> Region:
        builder = Builder(self.names, self.plan, number)
        for step in _STEPS:
            step(builder)
        region = builder.region
        for entity in region.entities():
            region.by_title[entity.title] = entity
        return region

    def find(self, kind: str, number: int) -> Entity | None:
        """An entity by its number."""
        region = self.plan.region_of(kind, number)
        return None if region is None else self.region(region).by_key[f"{kind}:{number}"]

    def regions_named(self, text: str) -> list[int]:
        """The regions whose entities the invented words in `text` may name (former names of cities included)."""
        found = []
        for kind, number in self.names.candidates(text):
            total = self.plan.counts[kind] * self.plan.num_regions
            region = self.plan.region_of(kind, number - total if kind == "city" and number >= total else number)
            if region is not None and region not in found:
                found.append(region)
        return found
