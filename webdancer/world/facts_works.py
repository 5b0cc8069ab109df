"""Novels, films, bands and albums of one region."""

from collections.abc import Sequence
from datetime import date

from webdancer.world.build import NOW, Builder, active, last_active
from webdancer.world.graph import Entity


def _people(b: Builder, *roles: str) -> list[Entity]:
    """People of these occupations; anybody, in a web too small to hold them."""
    return [p for p in b.of("person") if p.role in roles] or b.of("person")[:2]


def _companies(b: Builder, role: str) -> list[Entity]:
    return [c for c in b.of("company") if c.role == role] or b.of("company")


def add_novels(b: Builder) -> None:
    """Novels: some authors wrote one, some twenty."""
    count = b.plan.counts["novel"]
    authors = b.holders(_people(b, "novelist"), count, 1, 14)
    houses = b.holders(_companies(b, "publisher"), count, 8, 34)
    for place in range(count):
        novel, author = b.entity("novel", place), authors[place]
        house = houses[place] if houses else None
        low, high = author.since.year + 23, last_active(author)
        if house is not None and house.since.year > high:
            house = b.pick([c for c in _companies(b, "publisher") if c.since.year <= high])
        year = b.year(max(low, house.since.year if house else low), high)
        novel.since = date(year, 1, 1)
        b.link(novel, "author", author)
        b.value(novel, "novel_year", year)
        b.link(novel, "set_in", b.pick(b.of("city")))
        b.link(novel, "publisher", house)


def add_films(b: Builder) -> None:
    """Films with casts of 3 to 12; actors appear in a few or many."""
    count = b.plan.counts["film"]
    directors = b.holders(_people(b, "film director"), count, 1, 12)
    actors = _people(b, "actor")
    weights = [b.rng.uniform(0.1, 0.8) for _ in actors]
    for place in range(count):
        film, director = b.entity("film", place), directors[place]
        year = b.year(max(1931, director.since.year + 25), last_active(director))
        film.since = date(year, 1, 1)
        b.link(film, "director", director)
        b.value(film, "film_year", year)
        b.value(film, "runtime", b.rng.randint(74, 189))
        b.link(film, "filmed_in", b.pick(b.of("city")))
        if b.rng.random() < 0.35:
            b.link(film, "based_on", b.pick([n for n in b.of("novel") if n.since.year < year]))
        for actor in _cast(b, actors, weights, year):
            b.link(film, "cast", actor)


def _cast(b: Builder, actors: Sequence[Entity], weights: Sequence[float], year: int) -> list[Entity]:
    size = b.rng.randint(3, 12)
    chosen: list[Entity] = []
    for actor in b.rng.choices(actors, weights, k=size * 4):
        if len(chosen) < size and actor not in chosen and active(actor, year, age=17, oldest=85):
            chosen.append(actor)
    if len(chosen) < 2:
        chosen = [p for p in b.of("person") if active(p, year, age=17, oldest=85)][:3]
    return chosen


def add_music(b: Builder) -> None:
    """Bands of 2 to 7 and their albums."""
    musicians, producers = _people(b, "musician"), _people(b, "producer", "musician")
    for place in range(b.plan.counts["band"]):
        band = b.entity("band", place)
        founder = b.pick(musicians)
        assert founder is not None
        year = min(b.year(founder.since.year + 18, founder.since.year + 38), last_active(founder) - 6)
        band.since = date(year, 1, 1)
        b.link(band, "formed_in", b.pick(b.of("city")))
        b.value(band, "formed_year", year)
        size, members = b.rng.randint(2, 7), [founder]
        for person in b.rng.sample(musicians, min(len(musicians), size * 5)):
            if len(members) < size and person not in members and active(person, year, age=16, oldest=60):
                members.append(person)
        for person in members:
            b.link(band, "members", person)
    _add_albums(b, producers)


def _add_albums(b: Builder, producers: Sequence[Entity]) -> None:
    count = b.plan.counts["album"]
    performers = b.holders(b.of("band"), count, 1, 8)
    if not performers:
        return
    labels = b.holders(_companies(b, "label"), count, 8, 34)
    studio = b.holders([p for p in producers if p.role == "producer"] or producers, count, 2, 15)
    for place in range(count):
        album, band = b.entity("album", place), performers[place]
        latest = max(band.since.year + 1, min(NOW, band.since.year + 35))
        label = labels[place] if labels else None
        if label is not None and label.since.year > latest:
            label = b.pick([c for c in _companies(b, "label") if c.since.year <= latest])
        year = b.year(max(band.since.year + 1, label.since.year if label else 0), latest)
        producer: Entity | None = studio[place]
        if not active(studio[place], year):
            producer = b.pick([p for p in producers if active(p, year)])
        album.since = date(year, 1, 1)
        b.link(album, "performer", band)
        b.value(album, "album_year", year)
        b.link(album, "recorded_in", b.pick(b.of("city")))
        b.link(album, "label", label)
        b.link(album, "producer", producer)
