"""Countries, lakes, rivers, cities, companies, prizes, museums and bridges of one region."""

from datetime import date

from webdancer.world.build import NOW, Builder, active, last_active
from webdancer.world.facts_people import SCIENTISTS, company_role
from webdancer.world.graph import Entity

_PERFORMERS = frozenset({"actor", "film director", "musician", "producer"})
_MAKERS = frozenset({"novelist", "architect", "painter", "engineer"})
_PRIZE_GROUPS: tuple[frozenset[str], ...] = (
    frozenset({"novelist"}),
    _PERFORMERS | _MAKERS,
    SCIENTISTS,
    _PERFORMERS,
    SCIENTISTS | _MAKERS,
    frozenset({"actor", "film director"}),
    _PERFORMERS | SCIENTISTS,
    frozenset({"musician", "producer"}),
    _PERFORMERS | _MAKERS | SCIENTISTS,
)
"""The occupations that a prize goes to, in turn."""


def add_places(b: Builder) -> None:
    """Countries, lakes, rivers and cities."""
    for place in range(b.plan.counts["country"]):
        country = b.entity("country", place)
        word = country.name[:4]
        b.value(country, "currency", (word + ("ar", "in", "on")[place % 3]).lower())
        b.value(country, "language", word + ("ic", "ese", "ish")[place % 3])
    for place in range(b.plan.counts["lake"]):
        lake = b.entity("lake", place)
        b.value(lake, "lake_area", b.rng.randint(12, 2900))
        b.value(lake, "lake_depth", b.rng.randint(9, 380))
        b.link(lake, "lake_country", b.pick(b.of("country")))
    for place in range(b.plan.counts["river"]):
        river = b.entity("river", place)
        b.value(river, "river_length", b.rng.randint(45, 1650))
        b.link(river, "flows_into", b.pick(b.of("lake")))
    _add_cities(b)


def _add_cities(b: Builder) -> None:
    count = b.plan.counts["city"]
    countries = b.holders(b.of("country"), count, 2, 12)
    rivers = b.holders(b.of("river"), count, 2, 9)
    for place in range(count):
        city = b.entity("city", place)
        b.link(city, "in_country", countries[place])
        if rivers:
            b.link(city, "on_river", rivers[place])
        founded = b.year(780, 1770)
        city.since = date(founded, 1, 1)
        b.value(city, "city_founded", founded)
        if b.rng.random() < 0.15:
            total = count * b.plan.num_regions
            city.aliases = (b.names.name("city", total + city.number),)
    cities = list(b.of("city"))
    for country in b.of("country"):
        own = [fact.subject for fact in country.inverse.get("in_country", ())]
        b.link(country, "capital", b.pick(own))
    b.rng.shuffle(cities)
    for one, other in zip(cities[::2], cities[1::2], strict=False):
        b.link(one, "partner_city", other)
        b.link(other, "partner_city", one)


def add_companies(b: Builder) -> None:
    """Companies with founders, seats and takeovers; some are publishers or labels."""
    people = [
        p for p in b.of("person") if p.role in {"entrepreneur", "engineer", "producer", "economist", "politician"}
    ]
    people = people or b.of("person")
    for place in range(b.plan.counts["company"]):
        company = b.entity("company", place, role=company_role(place))
        # Publishers and labels are old, so that any novel and any album can have come out with them.
        old = [p for p in b.of("person") if p.since.year < 1890] if company.role != "company" else []
        founder = b.pick(old or [p for p in people if last_active(p) >= p.since.year + 22])
        assert founder is not None
        latest = min(last_active(founder, oldest=60), 2010 if place > 2 else 1990)
        founded = b.year(founder.since.year + 22, max(latest, founder.since.year + 23))
        company.since = date(founded, 1, 1)
        b.link(company, "headquarters", b.pick(b.of("city")))
        b.value(company, "company_founded", founded)
        b.link(company, "company_founder", founder)
        if b.rng.random() < 0.3:
            company.aliases = (company.name.split()[0],)
    _add_takeovers(b)


def _add_takeovers(b: Builder) -> None:
    companies = b.of("company")
    if len(companies) < 4:
        return
    plain = [c for c in companies[3:] if c.role == "company"]
    buyers = plain[:: max(4, len(plain) // 7)]
    bought = [c for c in plain if c not in buyers]
    bought = bought[: int(0.75 * len(bought))]
    for company, buyer in zip(bought, b.holders(buyers, len(bought), 2, 14), strict=False):
        first = max(company.since.year, buyer.since.year) + 2
        if first <= NOW:
            year = b.year(max(first, 1996 if b.rng.random() < 0.5 else first), NOW)
            b.link(company, "acquired_by", buyer, year=year)


def add_prizes(b: Builder) -> None:
    """Prizes with namesakes, awarding bodies and one laureate a year."""
    elders = [p for p in b.of("person") if p.since.year < 1890] or b.of("person")
    bodies = b.of("university") + [c for c in b.of("company") if c.role == "company"]
    for place in range(b.plan.counts["prize"]):
        prize = b.entity("prize", place)
        group = _PRIZE_GROUPS[place % len(_PRIZE_GROUPS)]
        target = b.rng.randint(5, 40)
        years = sorted(b.rng.sample(range(NOW - max(22, target + b.rng.randint(0, 20)), NOW + 1), target))
        winners = _laureates(b, group, years)
        if not winners:
            group = frozenset(p.role for p in b.of("person"))
            winners = _laureates(b, group, years[:5])
        first = winners[0][0] if winners else 1980
        prize.since = date(first, 1, 1)
        b.link(prize, "named_after", b.pick([p for p in elders if p.until.year < first] or elders))
        b.link(prize, "awarded_by", b.pick([o for o in bodies if o.since.year <= first]))
        b.value(prize, "first_awarded", first)
        for year, person in winners:
            b.link(prize, "laureates", person, year=year)


def _laureates(b: Builder, group: frozenset[str], years: list[int]) -> list[tuple[int, Entity]]:
    """A new laureate for each year in which somebody of the group can be found."""
    pool = [p for p in b.of("person") if p.role in group]
    winners: list[tuple[int, Entity]] = []
    taken: set[Entity] = set()
    for year in years:
        person = b.pick([p for p in pool if p not in taken and active(p, year, age=27, oldest=88)])
        if person is not None:
            taken.add(person)
            winners.append((year, person))
    return winners


def add_buildings(b: Builder) -> None:
    """Museums and bridges, with architects who have a few or many works."""
    counts = b.plan.counts
    architects = [p for p in b.of("person") if p.role == "architect"] or b.of("person")[:1]
    designers = b.holders(architects, counts["museum"] + counts["bridge"], 2, 11)
    for place in range(counts["museum"]):
        museum, architect = b.entity("museum", place), designers[place]
        year = b.year(architect.since.year + 27, last_active(architect))
        museum.since = date(year, 1, 1)
        b.link(museum, "museum_city", b.pick(b.of("city")))
        b.value(museum, "museum_opened", year)
        b.link(museum, "museum_architect", architect)
    spans = b.holders([r for r in b.of("river") if "on_river" in r.inverse], counts["bridge"], 1, 8)
    for place in range(counts["bridge"]):
        bridge, architect = b.entity("bridge", place), designers[counts["museum"] + place]
        year = b.year(architect.since.year + 27, last_active(architect))
        bridge.since = date(year, 1, 1)
        river = spans[place] if spans else None
        b.link(bridge, "crosses", river)
        banks = [fact.subject for fact in river.inverse.get("on_river", ())] if river else []
        b.link(bridge, "bridge_city", b.pick(banks) or b.pick(b.of("city")))
        b.link(bridge, "bridge_architect", architect)
        b.value(bridge, "bridge_length", b.rng.randint(38, 1900))
        b.value(bridge, "bridge_opened", year)
