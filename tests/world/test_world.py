"""What the hosts answer: determinism, links, redirects, duplicates, encodings, forbidden and missing pages, PDF."""

import html
import io
import re
from typing import Any
from urllib.parse import urljoin, urlsplit

import pypdf
import pytest
from protego import Protego
from world_reader import get, reach, text_of, visible

from webdancer.world.facts import World
from webdancer.world.graph import MONTHS
from webdancer.world.lexicon import LISTS
from webdancer.world.pages_wiki import ORPHAN_PATH

Rows = list[dict[str, Any]]


def of(rows: Rows, kind: str) -> Rows:
    return [row for row in rows if row["row"] == kind]


def pdf_text(body: bytes) -> str:
    return " ".join(pypdf.PdfReader(io.BytesIO(body)).pages[0].extract_text().split())


def page_text(world: World, url: str) -> str:
    answer = get(world, url)
    assert answer.status == 200, url
    return pdf_text(answer.body) if answer.headers["Content-Type"] == "application/pdf" else visible(text_of(answer))


def forms(value: str) -> set[str]:
    """How a value may be printed."""
    printed = {value}
    if value.isdigit():
        printed.add(f"{int(value):,}")
    day = re.fullmatch(r"(\d+) (\w+) (\d{4})", value)
    if day and day[2] in MONTHS:
        printed.add(f"{day[2]} {day[1]}, {day[3]}")
    return printed


def test_the_same_seed_answers_with_the_same_bytes_in_any_order(rows: Rows, world: World) -> None:
    urls = [row["url"] for row in of(rows, "page")]
    again = World(7, 510)
    assert {url: get(world, url).body for url in urls} == {url: get(again, url).body for url in reversed(urls)}


def test_seeds_share_less_than_one_name_in_a_hundred(rows: Rows) -> None:
    one, other = ({e.name for e in World(seed, 3400).graph.region(0).entities()} for seed in (7, 8))
    assert len(one) > 1300
    assert len(one & other) <= len(one) * 0.01


def test_every_fact_is_stated_and_its_pages_hold_both_sides(rows: Rows, world: World) -> None:
    entities = {row["key"]: row for row in of(rows, "entity")}
    texts: dict[str, str] = {}
    for fact in of(rows, "fact"):
        assert fact["pages"], fact
        for url in fact["pages"]:
            text = texts.setdefault(url, page_text(world, url))
            printed = forms(fact["value"])
            subject = entities[fact["subject"]]
            own_page = url == subject["url"] or url.endswith(subject["url"].rpartition("/")[2])
            if (fact["object"] in entities and url == entities[fact["object"]]["url"]) or "/a/" in url:
                assert subject["name"] in text, (fact, url)
            elif own_page or fact["relation"] != "maintainer":
                assert any(form in text for form in printed), (fact, url)


def test_funders_and_numbers_of_samples_stand_only_in_the_pdf(rows: Rows) -> None:
    for fact in of(rows, "fact"):
        if fact["relation"] in ("funded_by", "num_samples"):
            assert len(fact["pages"]) == 1
            assert "/pdf/" in fact["pages"][0]


def test_older_values_stand_only_in_dated_news(rows: Rows, world: World) -> None:
    old = [fact for fact in of(rows, "fact") if not fact["current"]]
    assert len(old) >= 5
    for fact in old:
        for url in fact["pages"]:
            assert url.startswith("http://news."), url
            assert f'datetime="{fact["year"]}-' in text_of(get(world, url))


def test_a_complete_list_shows_each_member_and_no_other(rows: Rows, world: World) -> None:
    region = world.graph.region(0)
    checked = 0
    for entity in region.entities():
        for kind in LISTS.values():
            side = entity.inverse if kind.inverse else entity.facts
            facts = [fact for relation in kind.relations for fact in side.get(relation, ())]
            if entity.type not in kind.holders or kind.id == "papers" or not facts:
                continue
            markup = text_of(get(world, world.url_of(entity)))
            section = re.search(rf'<h2 id="{kind.id}">.*?</(?:ul|table)>', markup, re.DOTALL)
            assert section is not None, (entity.name, kind.id)
            members = re.findall(r'<a href="[^"]*">([^<]*)</a>', section[0])
            wanted = [(fact.subject if kind.inverse else fact.object) for fact in facts]
            assert sorted(members) == sorted(member.title for member in wanted if member)
            checked += 1
    assert checked > 100


def test_all_pages_are_reached_over_allowed_links_and_no_other(rows: Rows, world: World) -> None:
    found = reach(world)
    pages = of(rows, "page")
    wanted = {row["url"] for row in pages if row["allowed"] and row["reachable"] and "same_as" not in row}
    assert wanted <= found
    known = wanted | {row["url"] for row in pages if "same_as" in row}
    strangers = {url for url in found - known if not url.endswith(("robots.txt", "sitemap.xml"))}
    assert strangers == set()
    forbidden = [row for row in pages if not row["allowed"]]
    assert {urlsplit(row["url"]).netloc for row in forbidden} == set(world.hosts())


def test_duplicates_serve_the_very_bytes_of_their_page(rows: Rows, world: World) -> None:
    duplicates = [row for row in of(rows, "page") if "same_as" in row]
    assert {urlsplit(row["url"]).netloc.partition(".")[0] for row in duplicates} == {
        "wiki",
        "archive",
        "code",
        "news",
        "talk",
    }
    for row in duplicates:
        assert get(world, row["url"]).body == get(world, row["same_as"]).body
        assert row["url"] != row["same_as"]


def test_forbidden_pages_exist_and_are_linked_to(world: World) -> None:
    wiki, archive, code, news, talk = world.hosts()
    for host, page, target in (
        (wiki, "/wiki/Main_Page", "/wiki/Special:Recent_changes"),
        (archive, "/", "/search?query=all"),
        (code, "/", "/login?return_to=/"),
        (news, "/", "/internal/desk"),
        (talk, "/", "/login"),
    ):
        assert f'href="{target}"' in text_of(world.respond(host, page, {}))
        assert world.respond(host, target, {}).status == 200
        rules = Protego.parse(world.respond(host, "/robots.txt", {}).body.decode())
        assert not rules.can_fetch(f"http://{host}{target}", "webdancer")
        assert rules.can_fetch(f"http://{host}{page}", "webdancer")
    assert f'href="{ORPHAN_PATH}"' in text_of(world.respond(wiki, "/wiki/Special:Recent_changes", {}))
    assert world.respond(wiki, ORPHAN_PATH, {}).status == 200
    rules = Protego.parse(world.respond(archive, "/robots.txt", {}).body.decode())
    assert rules.can_fetch(f"http://{archive}/private/notice", "webdancer")
    assert not rules.can_fetch(f"http://{archive}/private/queue", "webdancer")


def test_crawl_delay_is_asked_for_only_where_wished() -> None:
    quiet, slow = World(7, 68), World(7, 68, crawl_delay_s=0.05)
    for host in quiet.hosts():
        assert Protego.parse(quiet.respond(host, "/robots.txt", {}).body.decode()).crawl_delay("x") is None
    delays = [
        Protego.parse(slow.respond(host, "/robots.txt", {}).body.decode()).crawl_delay("x") for host in slow.hosts()
    ]
    assert delays == [None, 0.05, 0.05, 0.05, 0.05]


def test_redirects(world: World) -> None:
    wiki, archive, code, news, talk = world.hosts()
    root = world.respond(wiki, "/", {})
    assert (root.status, root.headers["Location"]) == (302, "/wiki/Main_Page")
    region = world.graph.region(0)
    company = next(company for company in region.of("company") if company.aliases)
    moved = world.respond(wiki, f"/wiki/{company.aliases[0]}", {})
    assert (moved.status, moved.headers["Location"]) == (301, "/wiki/" + company.name.replace(" ", "_"))
    paper = urlsplit(world.url_of(region.of("paper")[2])).path
    assert world.respond(archive, paper + "v1", {}).headers["Location"] == paper
    repository = urlsplit(world.url_of(region.of("repository")[0])).path
    assert world.respond(code, repository + "/", {}).headers["Location"] == repository
    assert world.respond(talk, "/list/1/1/", {}).headers["Location"] == "/list/1/1"
    assert world.respond(news, "/old/imprint", {}).headers["Location"] == "/imprint"
    assert world.respond(news, "/ring/a", {}).headers["Location"] == "/ring/b"
    assert world.respond(news, "/ring/b", {}).headers["Location"] == "/ring/a"


def test_the_calendar_never_ends(world: World) -> None:
    news = world.hosts()[3]
    path, bodies = "/calendar/2024/11", set()
    for _ in range(30):
        answer = world.respond(news, path, {})
        assert answer.status == 200
        bodies.add(answer.body)
        path = re.findall(r'href="([^"]+)">Later', text_of(answer))[0]
    assert path == "/calendar/2027/05"
    assert len(bodies) == 30


def test_missing_pages_are_linked_to_and_answer_404(rows: Rows, world: World) -> None:
    missing = set()
    for row in of(rows, "page"):
        if row["allowed"] and "/pdf/" not in row["url"] and "wiki" in row["url"]:
            missing |= set(re.findall(r'href="(/wiki/Missing_article[^"]*)"', text_of(get(world, row["url"]))))
    assert len(missing) >= 3
    for path in missing:
        assert world.respond(world.hosts()[0], path, {}).status == 404
    assert world.respond("elsewhere.example", "/", {}).status == 421


def test_some_pages_are_latin_1_by_header_alone(rows: Rows, world: World) -> None:
    latin = [row["url"] for row in of(rows, "page") if "8859-1" in get(world, row["url"]).headers["Content-Type"]]
    assert len(latin) >= 10
    for url in latin:
        body = get(world, url).body
        assert b"charset" not in body
        with pytest.raises(UnicodeDecodeError):
            body.decode("utf-8")
    assert any("é" in text_of(get(world, url)) or "ö" in text_of(get(world, url)) for url in latin)


def test_gzip_only_where_accepted(rows: Rows, world: World) -> None:
    zipped = 0
    for row in of(rows, "page"):
        plain, accepted = get(world, row["url"]), get(world, row["url"], **{"Accept-Encoding": "gzip, deflate"})
        assert "Content-Encoding" not in plain.headers
        if accepted.headers.get("Content-Encoding") == "gzip":
            zipped += 1
            if "html" in plain.headers["Content-Type"]:
                assert text_of(accepted) == text_of(plain)
    assert zipped >= 50


def test_a_page_without_text_unless_javascript_runs(world: World) -> None:
    body = text_of(world.respond(world.hosts()[3], "/live", {}))
    assert '<div id="app"></div>' in body
    assert "Nothing has happened" not in visible(re.sub(r"<script>.*?</script>", "", body))


def test_sitemaps_list_allowed_pages(rows: Rows, world: World) -> None:
    pages = {row["url"]: row for row in of(rows, "page")}
    for host in world.hosts():
        listed = re.findall(r"<loc>([^<]+)</loc>", world.respond(host, "/sitemap.xml", {}).body.decode())
        assert len(listed) >= 15
        assert all(pages[url]["allowed"] for url in listed)
    assert b"<sitemapindex" in World(7, 6800).respond(world.hosts()[0], "/sitemap.xml", {}).body


def test_prose_uses_pronouns_after_the_first_sentence(world: World) -> None:
    texts = [visible(text_of(get(world, world.url_of(p)))) for p in world.graph.region(0).of("person")]
    with_pronoun = sum(bool(re.search(r"\b(He|She|His|Her|he|she)\b", text)) for text in texts)
    assert with_pronoun >= len(texts) * 0.3


def test_aliases_are_link_text_in_the_text_of_some_articles(world: World) -> None:
    region = world.graph.region(0)
    by_alias = {alias: entity for entity in region.entities() for alias in entity.aliases}
    found = 0
    for entity in region.of("person") + region.of("city") + region.of("company"):
        main = text_of(get(world, world.url_of(entity))).partition("<main")[2].partition("</main>")[0]
        for href, text in re.findall(r'<p>See also <a href="([^"]+)">([^<]+)</a>\.</p>', main):
            other = by_alias[text]
            assert other is not entity
            assert text not in (other.name, other.title)
            assert get(world, urljoin(world.url_of(entity), html.unescape(href))) == get(world, world.url_of(other))
            found += 1
    assert found >= 10


def test_people_who_share_a_name_have_a_disambiguation_page_and_are_told_apart_in_prose(world: World) -> None:
    wiki = world.hosts()[0]
    name, people = next(iter(world.graph.region(0).ambiguous.items()))
    body = text_of(world.respond(wiki, "/wiki/" + name.replace(" ", "_"), {}))
    assert all(person.title in body for person in people)
    region = World(7, 3400).graph.region(0)
    shared = [
        fact
        for fact in region.facts()
        if fact.relation == "director" and fact.object and fact.object.title != fact.object.name
    ]
    big = World(7, 3400)
    mentions = [visible(text_of(get(big, big.url_of(fact.subject)))) for fact in shared]
    assert any(f"the film director {fact.value}" in text for fact, text in zip(shared, mentions, strict=True))


def test_the_number_of_pages_is_about_what_was_asked_for() -> None:
    for num_pages in (340, 3400):
        world = World(5, num_pages)
        rows = list(world.page_rows(list(world.docs(world.graph.region(0)))))
        assert abs(sum(row.same_as is None for row in rows) - num_pages) <= num_pages * 0.1


@pytest.mark.slow
def test_all_pages_of_a_web_of_several_regions_are_reached() -> None:
    world = World(7, 6800)
    assert world.graph.plan.num_regions == 2
    found = reach(world)
    for number in range(2):
        rows = list(world.page_rows(list(world.docs(world.graph.region(number)))))
        assert {row.url for row in rows if row.allowed and row.reachable and row.same_as is None} <= found
