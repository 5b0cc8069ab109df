"""Papers, repositories, changing values and the news of one region."""

from collections.abc import Set

from webdancer.world.build import NOW, Builder, active
from webdancer.world.facts_people import SCIENTISTS
from webdancer.world.graph import Article, Entity, Fact
from webdancer.world.lexicon import FIELDS, LICENCES, PROGRAMMING_LANGUAGES

_FIRST_PAPER, _FIRST_NEWS = 1998, 1998


def add_papers(b: Builder) -> None:
    """Papers whose authors come from circles, so that pairs of people share several; each cites earlier ones."""
    scientists = [p for p in b.of("person") if p.role in SCIENTISTS and p.until.year > _FIRST_PAPER + 4] or b.of(
        "person"
    )
    circles = [scientists[start : start + 9] for start in range(0, len(scientists), 6)]
    days = sorted(b.day(b.year(_FIRST_PAPER, NOW)) for _ in range(b.plan.counts["paper"]))
    for place, day in enumerate(days):
        paper = b.entity("paper", place)
        paper.since = day
        for author in _authors(b, circles, scientists, day.year):
            b.link(paper, "authors", author)
        b.value(paper, "submitted", day)
        b.value(paper, "field", b.rng.choice(FIELDS))
        earlier = b.of("paper")[:-1]
        wanted = min(len(earlier), b.rng.randint(2, 20))
        for cited in sorted(b.rng.sample(earlier, wanted), key=lambda p: p.number):
            b.link(paper, "references", cited)
        b.link(paper, "funded_by", b.pick([c for c in b.of("company") if c.since.year < day.year]))
        b.value(paper, "num_samples", b.rng.randint(120, 98_000))


def _authors(b: Builder, circles: list[list[Entity]], scientists: list[Entity], year: int) -> list[Entity]:
    circle = [p for p in b.rng.choice(circles) if active(p, year, age=23)]
    circle = circle or [p for p in scientists if active(p, year, age=23)] or scientists
    return b.rng.sample(circle, min(len(circle), b.rng.randint(1, 6)))


def add_repositories(b: Builder) -> None:
    """Repositories that need earlier ones; some hold the code of a paper."""
    roles = {"computer scientist", "engineer", "physicist", "economist"}
    people = [p for p in b.of("person") if p.role in roles and p.since.year > 1955 and p.until.year > NOW] or b.of(
        "person"
    )
    count = b.plan.counts["repository"]
    maintainers = b.holders(people, count, 1, 7)
    implemented = dict(zip(range(0, count, 3), b.of("paper")[::-4], strict=False))
    days = sorted(b.day(b.year(2004, NOW - 1)) for _ in range(count))
    repositories = [b.entity("repository", place) for place in range(count)]
    for place, repository in enumerate(repositories):
        repository.since = days[place]
        paper = implemented.get(place)
        if paper is not None and paper.since < repository.since:
            b.link(repository, "implements", paper)
            b.link(paper, "code", repository)
        b.link(repository, "maintainer", maintainers[place])
        b.value(repository, "programming_language", b.rng.choice(PROGRAMMING_LANGUAGES))
        b.value(repository, "licence", b.rng.choice(LICENCES))
        b.value(repository, "first_release", repository.since)
        earlier = repositories[:place]
        for needed in b.rng.sample(earlier, min(len(earlier), b.rng.randint(1, 17))):
            b.link(repository, "dependencies", needed)


def add_changing(b: Builder) -> None:
    """Current values of what changes, each with its year; older ones come with the news."""
    officials = [
        p for p in b.of("person") if p.until.year > NOW and 1945 < p.since.year < 1985 and p.role in _OFFICIALS
    ]
    officials = officials or [p for p in b.of("person") if p.until.year > NOW] or b.of("person")
    mayors = list(officials)
    b.rng.shuffle(mayors)
    for place, city in enumerate(b.of("city")):
        b.value(city, "population", b.rng.randint(8_000, 990_000), year=b.year(2019, NOW))
        b.link(city, "mayor", mayors[place % len(mayors)], year=b.year(2015, NOW))
    for company in b.of("company"):
        b.value(company, "employees", b.rng.randint(40, 42_000), year=b.year(2019, NOW))
        b.link(company, "ceo", b.pick(officials), year=b.year(max(2013, company.since.year + 1), NOW))
    for repository in b.of("repository"):
        b.value(repository, "stars", b.rng.randint(60, 39_000), year=b.year(max(2020, repository.since.year), NOW))


_OFFICIALS = frozenset({"politician", "entrepreneur", "engineer", "economist", "architect", "producer", "painter"})


def add_news(b: Builder) -> None:
    """Dated articles: values that have changed since, awards, takeovers."""
    total = b.plan.counts["news"]
    first = b.plan.first("news", b.region.number)
    facts = _old_values(b, max(1, round(total * 0.55)))
    facts += _events(b, "prize", "laureates", round(total * 0.24))
    facts += _events(b, "company", "acquired_by", total - len(facts))
    if len(facts) < total:
        facts += _events(b, "prize", "laureates", total, skip=set(facts))[: total - len(facts)]
    dated = sorted(
        ((b.day(fact.year or NOW), place, fact) for place, fact in enumerate(facts[:total])), key=lambda item: item[:2]
    )
    for place, (day, _, fact) in enumerate(dated):
        b.region.articles.append(Article(first + place, day, (fact,), _background(b, fact)))


def _events(b: Builder, kind: str, relation: str, wanted: int, *, skip: Set[Fact] = frozenset()) -> list[Fact]:
    recent = [
        fact
        for entity in b.of(kind)
        for fact in entity.facts.get(relation, ())
        if fact.year is not None and fact.year >= _FIRST_NEWS and fact not in skip
    ]
    return b.rng.sample(recent, min(len(recent), max(0, wanted)))


def _old_values(b: Builder, wanted: int) -> list[Fact]:
    """Older values of some subjects, stated nowhere but in the news; now and then a current one for good measure."""
    subjects = [
        (entity, relation)
        for kind, relations in (
            ("city", ("population", "mayor")),
            ("company", ("employees", "ceo")),
            ("repository", ("stars",)),
        )
        for entity in b.of(kind)
        for relation in relations
    ]
    chosen = b.rng.sample(subjects, min(len(subjects), wanted))
    facts = []
    for entity, relation in chosen:
        current = entity.one(relation)
        assert current is not None
        assert current.year is not None
        earliest = max(_FIRST_NEWS, entity.since.year + 1, current.year - 12)
        if earliest >= current.year or b.rng.random() < 0.12:
            facts.append(current)
            continue
        _add_old(b, current, b.year(earliest, current.year - 1))
        facts.append(entity.facts[relation][-1])
    return facts


def _add_old(b: Builder, current: Fact, year: int) -> None:
    if current.object is not None:
        successor = current.object
        pool = [p for p in b.of("person") if p.name != successor.name and active(p, year, age=30, oldest=75)]
        b.link(current.subject, current.relation, b.pick(pool) or successor, year=year, current=False)
        return
    number = int(current.value)
    factor = b.rng.uniform(0.25, 0.9) if current.relation == "stars" else b.rng.uniform(0.62, 0.97)
    b.value(current.subject, current.relation, max(1, int(number * factor)), year=year, current=False)


def _background(b: Builder, fact: Fact) -> tuple[Fact, ...]:
    """Sometimes one more thing about the subject that has always been so."""
    if b.rng.random() > 0.35:
        return ()
    settled = [
        other
        for relation in (
            "headquarters",
            "in_country",
            "awarded_by",
            "programming_language",
            "company_founder",
            "on_river",
        )
        for other in fact.subject.facts.get(relation, ())
    ]
    return (b.rng.choice(settled),) if settled else ()
