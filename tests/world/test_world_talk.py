"""The talk host: what threads claim, how often they are right, and that no claim counts as a fact."""

import re
from collections import Counter
from itertools import combinations
from typing import Any
from urllib.parse import urlsplit

import pytest
from world_reader import get, text_of, visible

from webdancer.scribe.reader import read_page
from webdancer.web.extract import extract
from webdancer.world.facts import World
from webdancer.world.graph import Entity, Region
from webdancer.world.lexicon import RELATIONS, Cardinality
from webdancer.world.lexicon_talk import HEDGES, NOUNS
from webdancer.world.pages_talk import MAX_POSTS, Claim, claimable, claims_about, has_thread
from webdancer.world.site import thread_place

Rows = list[dict[str, Any]]
POST = re.compile(rf"(?:{'|'.join(map(re.escape, HEDGES))}) the ({'|'.join(NOUNS.values())}) of (.+) is (.+)\.")


@pytest.fixture(scope="module")
def large() -> World:
    return World(7, 3400)


@pytest.fixture(scope="module")
def region(large: World) -> Region:
    return large.graph.region(0)


@pytest.fixture(scope="module")
def claims(large: World, region: Region) -> dict[Entity, list[Claim]]:
    return {
        thing: claims_about(large.site, thing, region) for thing in region.entities() if has_thread(large.site, thing)
    }


def test_every_thing_with_something_to_claim_has_a_thread(region: Region, claims: dict[Entity, list[Claim]]) -> None:
    things = [thing for thing in region.entities() if claimable(thing)]
    assert len(things) == len(list(region.entities()))
    assert len(claims) == len(things)
    assert set(region.by_type) == {thing.type for thing in claims}


def test_the_share_of_right_claims_can_be_set(claims: dict[Entity, list[Claim]]) -> None:
    kind_web = World(7, 3400, right_share=0.75)
    region = kind_web.graph.region(0)
    by_name = {thing.name: group for thing, group in claims.items()}
    kinder = {
        thing.name: claims_about(kind_web.site, thing, region) for thing in region.entities() if thing.name in by_name
    }
    rights = [claim.right for group in kinder.values() for claim in group]
    assert 0.72 <= sum(rights) / len(rights) <= 0.78
    for name, group in kinder.items():  # what was right before is right still, with the same words
        for before, now in zip(by_name[name], group, strict=True):
            assert now.right or (not before.right and now.value == before.value)


def test_half_of_the_claims_are_right(claims: dict[Entity, list[Claim]]) -> None:
    all_claims = [claim for group in claims.values() for claim in group]
    by_relation: dict[str, list[bool]] = {}
    for claim in all_claims:
        by_relation.setdefault(claim.fact.relation, []).append(claim.right)
    assert len(all_claims) > 3500
    assert 0.45 <= sum(claim.right for claim in all_claims) / len(all_claims) <= 0.55
    for rights in by_relation.values():
        if len(rights) >= 100:
            assert 0.35 <= sum(rights) / len(rights) <= 0.65


def test_one_claim_of_a_thread_does_not_tell_whether_another_is_right(claims: dict[Entity, list[Claim]]) -> None:
    agreements: dict[tuple[str, str], list[bool]] = {}
    for group in claims.values():
        for one, other in combinations(group, 2):
            agreements.setdefault((one.fact.relation, other.fact.relation), []).append(one.right == other.right)
    common = [agreed for agreed in agreements.values() if len(agreed) >= 60]
    assert len(common) >= 10
    assert all(0.25 <= sum(agreed) / len(agreed) <= 0.75 for agreed in common)


def test_a_wrong_value_is_never_the_true_one_and_is_of_its_kind(
    region: Region, claims: dict[Entity, list[Claim]]
) -> None:
    names = {kind: {thing.name for thing in region.of(kind)} for kind in region.by_type}
    for claim in (claim for group in claims.values() for claim in group):
        true = claim.fact.object
        if claim.right:
            assert claim.value.replace(",", "") == claim.fact.value.replace(",", "")
        elif true is not None:
            assert claim.value in names[true.type]
            assert claim.value not in {true.name, *true.aliases, claim.fact.subject.name}
        else:
            assert claim.value.replace(",", "") != claim.fact.value
            if RELATIONS[claim.fact.relation].kind == "text":
                assert claim.value in {fact.value for fact in region.facts() if fact.relation == claim.fact.relation}


def test_years_dates_and_numbers_are_only_a_bit_off(claims: dict[Entity, list[Claim]]) -> None:
    wrong = [claim for group in claims.values() for claim in group if not claim.right and claim.fact.object is None]
    kinds: Counter[str] = Counter()
    for claim in wrong:
        kind, true = RELATIONS[claim.fact.relation].kind, claim.fact.value
        kinds[kind] += 1
        if kind == "year":
            assert 1 <= abs(int(claim.value) - int(true)) <= 9
            assert int(claim.value) <= 2024
        elif kind == "date":
            assert abs(int(claim.value[-4:]) - int(true[-4:])) <= 3
            assert int(claim.value[-4:]) <= 2024
        elif kind == "number":
            assert 0.7 <= int(claim.value.replace(",", "")) / int(true) <= 1.3
    assert min(kinds[kind] for kind in ("year", "date", "number", "text")) >= 10


def test_only_what_never_changes_and_has_one_value_is_claimed(claims: dict[Entity, list[Claim]]) -> None:
    for thing, group in claims.items():
        assert 2 <= len(group) <= MAX_POSTS
        relations = [claim.fact.relation for claim in group]
        assert len(relations) == len(set(relations))
        for claim in group:
            assert thing.facts[claim.fact.relation] == [claim.fact]
            assert RELATIONS[claim.fact.relation].cardinality is Cardinality.FUNCTIONAL
        about_things = sum(fact.object is not None for fact in claimable(thing))
        assert sum(claim.fact.object is not None for claim in group) == min(about_things, MAX_POSTS)


def test_a_noun_stands_for_one_relation_of_a_thing_and_every_lasting_relation_has_one() -> None:
    for one, other in combinations(NOUNS, 2):
        if NOUNS[one] == NOUNS[other]:
            assert not set(RELATIONS[one].subjects) & set(RELATIONS[other].subjects), (one, other)
            assert RELATIONS[one].kind is RELATIONS[other].kind
    assert set(NOUNS) == {r.id for r in RELATIONS.values() if r.cardinality is Cardinality.FUNCTIONAL}
    shared = Counter(NOUNS.values())
    assert {noun for noun in shared if shared[noun] > 1} == {
        "country", "home city", "founding year", "opening year", "architect", "founder", "release year",
    }  # fmt: skip


def test_a_thread_is_a_few_short_posts_and_a_link_to_its_thing(world: World) -> None:
    region = world.graph.region(0)
    lengths = []
    for thing in region.entities():
        place = thread_place(thing)
        answer = world.respond(world.site.hosts["talk"], place.path, {})
        assert answer.status == (200 if has_thread(world.site, thing) else 404)
        if answer.status == 404:
            continue
        page = extract(answer.body, url=world.site.url(place), content_type=answer.headers["Content-Type"])
        assert page.title == f"{thing.title}: what do you know?"
        assert world.url_of(thing) in page.links
        posts = page.text.splitlines()[1:]
        said = [match.groups() for match in map(POST.fullmatch, posts) if match]
        assert sorted(said) == sorted(
            (NOUNS[claim.fact.relation], thing.name, claim.value) for claim in claims_about(world.site, thing, region)
        )
        assert len(said) == len(posts)
        lengths.append(len(page.text.split()))
    assert len(lengths) > 100
    assert sum(lengths) / len(lengths) < 60


def test_addresses_that_name_no_thread_answer_404(world: World) -> None:
    host = world.site.hosts["talk"]
    thing = next(thing for thing in world.graph.region(0).entities() if has_thread(world.site, thing))
    path = thread_place(thing).path
    for other in (
        path + "0",
        path.replace("/t/", "/t/x"),
        "/t/999999999",
        "/list/1/99",
        "/list/1",
        "/list/2/1",
        "/x",
    ):
        assert world.respond(host, other, {}).status == 404, other


def test_no_claim_is_listed_as_a_fact_and_none_is_read_as_one(world: World, rows: Rows) -> None:
    talk = world.site.hosts["talk"]
    assert not [url for row in rows if row["row"] == "fact" for url in row["pages"] if urlsplit(url).netloc == talk]
    threads = [row["url"] for row in rows if row["row"] == "page" and urlsplit(row["url"]).path.startswith("/t/")]
    assert len(threads) > 100
    for url in threads:
        answer = get(world, url)
        page = extract(answer.body, url=url, content_type=answer.headers["Content-Type"])
        reading = read_page(page.title, page.text)
        assert (reading.facts, reading.lists, reading.alias_lines, reading.namesakes) == ((), (), (), ()), url


def test_threads_of_a_web_of_several_regions_are_listed_by_region() -> None:
    world = World(7, 6800)
    host = world.site.hosts["talk"]
    assert re.findall(r'<a href="(/list/[^"]+)"', text_of(world.respond(host, "/", {}))) == ["/list/1", "/list/2"]
    thing = next(thing for thing in world.graph.region(1).entities() if has_thread(world.site, thing))
    answer = world.respond(host, thread_place(thing).path, {})
    assert visible(text_of(answer)).startswith(f"{thing.title}: what do you know?")
    parts = re.findall(r'<a href="(/list/2/[^"]+)"', text_of(world.respond(host, "/list/2", {})))
    listed = [
        text
        for part in parts
        for text in re.findall(r"<li><a[^>]*>([^<]+)</a>", text_of(world.respond(host, part, {})))
    ]
    assert thing.title in listed
    assert len(listed) > 1300
