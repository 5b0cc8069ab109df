"""Page groups from walks over the link graph."""

from itertools import islice

from small_web import SmallWeb, build_web, page_of, url_of

from webdancer.records import QAKind
from webdancer.synth.groups import build_graph, list_lines, walk_groups


def groups(web, kind, num, **kwargs):
    options = {"size": 4, "seed": 3, **kwargs}
    return list(islice(walk_groups(build_graph(web), kind, **options), num))


def test_navigation_and_index_pages_are_hubs_and_in_no_group():
    web = build_web()
    graph = build_graph(web)
    assert graph.hubs == [url_of("Main Page")]
    assert url_of("Main Page") not in graph.urls
    assert all(url_of("Main Page") not in targets for targets in graph.forward.values())


def test_links_whose_target_is_not_mentioned_are_not_followed():
    one = page_of("Alpha Bridge", "It was designed by Ada Lunt.", ["Ada Lunt", "Beta Bridge"])
    others = [page_of(title, "It stands alone.", []) for title in ("Ada Lunt", "Beta Bridge")]
    graph = build_graph(SmallWeb({page.url: page for page in [one, *others]}))
    assert graph.forward[one.url] == [url_of("Ada Lunt")]
    assert graph.backward[url_of("Ada Lunt")] == [one.url]


def test_list_lines_are_lists_and_tables_but_no_infobox():
    text = (
        "# T\nBorn | 1950\nCity | Velm\nWorks | 3\nProse.\n## Films\n1987 | A\n1990 | B\n1991 | C\n## Short\n- x\n- y"
    )
    assert list_lines(text) == ["1987 | A", "1990 | B", "1991 | C"]


def test_a_chain_follows_links():
    web = build_web()
    graph = build_graph(web)
    for group in groups(web, QAKind.MULTI_HOP, 50):
        assert 2 <= len(group.urls) <= 4
        assert all(b in graph.forward[a] for a, b in zip(group.urls, group.urls[1:], strict=False))


def test_a_count_chain_ends_at_a_list():
    web = build_web()
    graph = build_graph(web)
    for group in groups(web, QAKind.COUNT, 50):
        assert graph.num_listed[group.urls[-1]] >= 3
        assert all(b in graph.forward[a] for a, b in zip(group.urls, group.urls[1:], strict=False))


def test_a_fork_has_one_page_that_two_lists_share():
    web = build_web()
    for group in groups(web, QAKind.INTERSECTION, 30):
        first, second, middle = group.urls[-3:]
        lists = [set(web.page(url).links) - {url_of("Main Page")} for url in (first, second)]
        assert lists[0] & lists[1] == {middle}
        assert len(group.urls) < 4 or {first, second} & set(web.page(group.urls[0]).links)


def test_single_pages_come_once_each():
    web = build_web()
    found = groups(web, QAKind.EASY_TO_HARD, 10_000)
    assert sorted(group.urls[0] for group in found) == [url for url in web.urls() if url != url_of("Main Page")]


def test_the_sequence_depends_on_the_seed_alone_and_never_repeats_a_set_of_pages():
    web = build_web()
    reordered = SmallWeb(dict(reversed(web.pages.items())))
    for kind in QAKind:
        first = groups(web, kind, 200)
        assert groups(reordered, kind, 200) == first
        assert groups(web, kind, 200, seed=4) != first
        assert len({frozenset(group.urls) for group in first}) == len(first)
        assert [group.id for group in first[:2]] == [f"{kind}-00000", f"{kind}-00001"]


def test_a_web_without_links_has_no_groups_of_several_pages():
    web = SmallWeb({page.url: page for page in [page_of("Alpha", "x", []), page_of("Beta", "y", [])]})
    assert groups(web, QAKind.MULTI_HOP, 5) == []
    assert groups(web, QAKind.COUNT, 5) == []
    assert groups(web, QAKind.INTERSECTION, 5) == []
