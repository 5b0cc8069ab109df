"""People, and the places where they are born, study and work, region by region."""

from datetime import date

from webdancer.world.build import NOW, Builder, active
from webdancer.world.graph import Entity
from webdancer.world.plan import ROLE_SHARES

SCIENTISTS = frozenset({"computer scientist", "physicist", "chemist", "biologist", "economist"})
_ELDER_ROLES = ("politician", "architect", "novelist", "physicist", "entrepreneur", "chemist", "painter", "engineer")
_ELDER_EVERY = 12
"""Every so-many-th person lived in the 19th century: founders and namesakes."""
_SHARED_EVERY = 33
"""One of so many people takes the name of another, so that about 6 % share theirs."""


def add_people(b: Builder) -> None:
    """People with birth, death, birthplace and occupation; a few of them share their names."""
    count = b.plan.counts["person"]
    given: dict[str, int] = dict.fromkeys(ROLE_SHARES, 0)
    for place in range(count):
        elder = place % _ELDER_EVERY == _ELDER_EVERY - 1
        if elder:
            role = _ELDER_ROLES[(place // _ELDER_EVERY) % len(_ELDER_ROLES)]
        else:
            role = max(ROLE_SHARES, key=lambda name: ROLE_SHARES[name] * (place + 1) - given[name])
            given[role] += 1
        person = b.entity("person", place, role=role)
        person.female = b.names.is_female(person.number)
        _add_life(b, person, elder=elder)
    _share_names(b)
    cities = b.of("city")
    births = b.holders(cities, count, 1, 12)
    for person, city in zip(b.of("person"), births, strict=True):
        b.link(person, "born_in", city)
        if b.rng.random() < 0.12:
            given_name, surname = person.name.rsplit(" ", 1)
            person.aliases = (f"{given_name[0]}. {surname}",)


def _add_life(b: Builder, person: Entity, *, elder: bool) -> None:
    born = b.year(1790, 1885) if elder else b.year(1908, 1990)
    person.since = b.day(born)
    b.value(person, "birth_date", person.since)
    if elder or (born < 1952 and b.rng.random() < 0.55):
        person.until = b.day(min(born + b.rng.randint(48, 92), NOW - 2 - b.rng.randrange(4)))
        b.value(person, "death_date", person.until)
    b.value(person, "occupation", person.role)


def _share_names(b: Builder) -> None:
    """Give some people the name of another one of another occupation; both titles then carry the occupation."""
    people = b.of("person")
    for place in range(_SHARED_EVERY // 2, len(people), _SHARED_EVERY):
        first = people[place]
        second = next((p for p in people[place + 1 : place + 12] if p.role != first.role and p.title == p.name), None)
        if second is None or first.title != first.name:
            continue
        second.name, second.female = first.name, first.female
        for person in (first, second):
            person.title = f"{person.name} ({person.role})"
        b.region.ambiguous[first.name] = (first, second)


def add_universities(b: Builder) -> None:
    """Universities, and who studied where and under whom."""
    elders = [p for p in b.of("person") if p.since.year < 1890]
    founders = elders or sorted(b.of("person"), key=lambda p: p.since)[:2]
    for place in range(b.plan.counts["university"]):
        university = b.entity("university", place)
        founder = b.pick(founders)
        assert founder is not None
        founded = b.year(founder.since.year + 28, min(founder.until.year - 1, founder.since.year + 70))
        university.since = date(founded, 1, 1)
        b.link(university, "univ_city", b.pick(b.of("city")))
        b.value(university, "univ_founded", founded)
        b.link(university, "univ_founder", founder)
    _add_studies(b)


def _add_studies(b: Builder) -> None:
    people, universities = b.of("person"), b.of("university")
    seats = b.holders(universities, len(people), 2, 26)
    for person, university in zip(people, seats, strict=False):
        if university.since.year > person.since.year + 18:
            continue
        b.link(person, "studied_at", university)
    scientists = [p for p in people if p.role in SCIENTISTS]
    for person in scientists:
        year = person.since.year + 27
        older = [a for a in scientists if a.since.year + 8 < person.since.year and active(a, year, age=30)]
        b.link(person, "advisor", b.pick(older))


def add_employment(b: Builder) -> None:
    """Who works where (people alive), and who is married to whom."""
    people, companies, universities = b.of("person"), b.of("company"), b.of("university")
    hubs = _hubs(b)
    for person in people:
        if person.until.year <= NOW or person.role in {"novelist", "actor", "painter"}:
            continue
        if person.role in SCIENTISTS and b.rng.random() < 0.7:
            b.link(person, "employer", b.pick(universities))
        elif hubs and b.rng.random() < 0.03:
            b.link(person, "employer", b.rng.choice(hubs))
        elif b.rng.random() < 0.6:
            b.link(person, "employer", b.pick([c for c in companies if c.since.year < NOW - 4]))
    single = [p for p in people if p.until.year > NOW]
    b.rng.shuffle(single)
    single.sort(key=lambda p: p.since.year // 8)
    for one, other in zip(single[::2], single[1::2], strict=False):
        if one.female != other.female and one.name != other.name and b.rng.random() < 0.7:
            b.link(one, "spouse", other)
            b.link(other, "spouse", one)


def _hubs(b: Builder) -> list[Entity]:
    """The first companies of the next region: all that this region knows of another is their names."""
    if b.plan.num_regions == 1:
        return []
    neighbour = (b.region.number + 1) % b.plan.num_regions
    hubs = []
    for place in range(min(3, b.plan.counts["company"])):
        number = b.plan.first("company", neighbour) + place
        name = b.names.name("company", number, company_role(place))
        hubs.append(Entity("company", number, name, name, neighbour))
    return hubs


def company_role(place: int) -> str:
    """Kind of a region's company number `place`: every twelfth a publisher, every twelfth a label, the others of any trade."""
    return {1: "publisher", 2: "label"}.get(place % 12, "company")
