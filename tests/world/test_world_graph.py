"""Invariants of the fact graph: functional relations, chronology, spread of list sizes, name sharing."""

from collections import Counter

import pytest

from webdancer.errors import ConfigError
from webdancer.world.fact_graph import FactGraph
from webdancer.world.graph import Entity, Region
from webdancer.world.layout import list_facts
from webdancer.world.lexicon import LISTS, RELATIONS, Cardinality, ObjectKind
from webdancer.world.plan import make_plan

SEEDS = (7, 8)


@pytest.fixture(scope="module", params=SEEDS)
def region(request: pytest.FixtureRequest) -> Region:
    return FactGraph(request.param, 3400).region(0)


def test_every_relation_occurs_with_the_right_types(region: Region) -> None:
    seen = set()
    for fact in region.facts():
        relation = RELATIONS[fact.relation]
        assert fact.subject.type in relation.subjects
        assert (fact.object is None) == (relation.kind is not ObjectKind.ENTITY)
        if fact.object is not None:
            assert fact.object.type in relation.objects
            assert fact.value == fact.object.name
        if relation.kind in (ObjectKind.NUMBER, ObjectKind.YEAR):
            assert fact.value.isdigit()
        seen.add(fact.relation)
    assert seen == set(RELATIONS)


def test_a_functional_relation_has_one_object_and_a_changing_one_has_one_current_object(region: Region) -> None:
    for entity in region.entities():
        for name, facts in entity.facts.items():
            cardinality = RELATIONS[name].cardinality
            if cardinality is Cardinality.LIST:
                members = [fact.object for fact in facts]
                assert len(members) == len(set(members))
            else:
                assert sum(fact.current for fact in facts) == 1
                assert cardinality is Cardinality.VOLATILE or len(facts) == 1
            if cardinality is Cardinality.VOLATILE:
                current = next(fact for fact in facts if fact.current)
                assert all(
                    fact.year < current.year for fact in facts if not fact.current and fact.year and current.year
                )


def test_partners_and_spouses_are_mutual(region: Region) -> None:
    for relation in ("partner_city", "spouse"):
        for fact in region.facts():
            if fact.relation == relation:
                assert fact.object is not None
                assert fact.object.object(relation) is fact.subject


def test_nobody_works_before_birth_or_after_death(region: Region) -> None:
    makers = (
        "director",
        "author",
        "museum_architect",
        "bridge_architect",
        "producer",
        "company_founder",
        "univ_founder",
    )
    for fact in region.facts():
        person = fact.object
        if fact.relation in makers:
            assert person is not None
            assert person.since.year + 16 <= fact.subject.since.year <= person.until.year, (
                fact.relation,
                fact.subject.name,
            )
        if fact.relation in ("cast", "members"):
            assert person is not None
            assert person.since.year + 16 <= fact.subject.since.year < person.until.year
        if fact.relation == "laureates":
            assert person is not None
            assert fact.year is not None
            assert person.since.year + 20 < fact.year < person.until.year
        if fact.relation == "authors":
            assert person is not None
            assert person.since < fact.subject.since < person.until


def test_things_refer_to_earlier_things(region: Region) -> None:
    for fact in region.facts():
        if fact.relation in (
            "references",
            "dependencies",
            "based_on",
            "performer",
            "publisher",
            "implements",
            "funded_by",
        ):
            assert fact.object is not None
            assert fact.object.since <= fact.subject.since, (fact.relation, fact.subject.name)
        if fact.relation == "acquired_by":
            assert fact.object is not None
            assert fact.year is not None
            assert max(fact.object.since.year, fact.subject.since.year) < fact.year
        if fact.relation == "awarded_by":
            assert fact.object is not None
            assert fact.object.since.year <= fact.subject.since.year


def test_a_prize_has_one_laureate_a_year_from_its_first_award_on(region: Region) -> None:
    for prize in region.of("prize"):
        years = [fact.year for fact in prize.facts["laureates"]]
        assert len(years) == len(set(years))
        assert 5 <= len(years) <= 40
        assert str(min(year for year in years if year)) == prize.facts["first_awarded"][0].value


def sizes(region: Region) -> Counter[int]:
    counts: Counter[int] = Counter()
    for kind in LISTS.values():
        for entity in region.entities():
            if entity.type in kind.holders:
                counts[len(list_facts(entity, kind))] += 1
    del counts[0]
    return counts


def test_list_sizes_are_spread(region: Region) -> None:
    counts = sizes(region)
    common = [size for size, number in counts.items() if number >= 10]
    assert len(common) >= 18
    assert all(counts[size] >= 20 for size in range(2, 12))
    assert max(counts) <= 45


def test_about_six_percent_share_a_name_with_one_of_another_occupation(region: Region) -> None:
    people = region.of("person")
    names = Counter(person.name for person in people)
    sharing = [person for person in people if names[person.name] > 1]
    assert max(names.values()) == 2
    assert 0.04 <= len(sharing) / len(people) <= 0.08
    for first, second in region.ambiguous.values():
        assert first.name == second.name
        assert first.role != second.role
        assert first.title == f"{first.name} ({first.role})"
    assert len({person.title for person in people}) == len(people)


def test_pairs_of_lists_with_exactly_one_common_member_are_plentiful(region: Region) -> None:
    def pairs(groups: list[set[Entity]]) -> int:
        return sum(len(a & b) == 1 for i, a in enumerate(groups) for b in groups[:i])

    def members(kind: str) -> list[set[Entity]]:
        holders = [e for e in region.entities() if e.type in LISTS[kind].holders and list_facts(e, LISTS[kind])]
        if LISTS[kind].inverse:
            return [{fact.subject for fact in list_facts(e, LISTS[kind])} for e in holders]
        return [{fact.object for fact in list_facts(e, LISTS[kind]) if fact.object} for e in holders]

    for kind in ("cast", "film_appearances", "laureates", "papers", "dependencies", "references"):
        assert pairs(members(kind)) >= 25, kind


def test_sizes_grow_with_the_plan() -> None:
    assert make_plan(1_000_000).num_regions == 294
    assert make_plan(340).num_regions == 1
    assert min(make_plan(227).counts.values()) >= 1
    with pytest.raises(ConfigError, match="at least 20"):
        make_plan(19)


@pytest.mark.parametrize("num_pages", [20, 37, 68, 102, 170, 227])
def test_small_webs_can_be_made(num_pages: int) -> None:
    for seed in range(12):
        region = FactGraph(seed, num_pages).region(0)
        assert region.of("person")
        assert region.of("film")[0].object("director") is not None


def test_former_names_of_cities_lead_to_their_region() -> None:
    graph = FactGraph(7, 10_200)
    for number in range(3):
        for city in graph.region(number).of("city"):
            for alias in city.aliases:
                assert graph.regions_named(alias) == [number]
