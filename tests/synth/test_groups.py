"""Page groups from walks over the link graph."""

from collections import Counter
from itertools import islice

from small_web import SmallWeb, build_web, page_of, url_of

from webdancer.records import QAKind
from webdancer.synth.groups import LinkGraph, _by_list_length, build_graph, list_lines, walk_groups


def groups(web, kind, num, **kwargs):
    options = {"size": 4, "seed": 3, **kwargs}
    return list(islice(walk_groups(build_graph(web), kind, **options), num))


def test_navigation_and_index_pages_are_hubs_and_in_no_group():
    web = build_web()
    graph = build_graph(web)
    assert graph.hubs == [url_of("Main Page")]
    assert url_of("Main Page") not in graph.urls
    assert all(url_of("Main Page") not in targets for targets in (*graph.told.values(), *graph.listed.values()))


def graph_of(*pages):
    return build_graph(SmallWeb({page.url: page for page in pages}))


def test_links_whose_target_is_not_mentioned_are_not_followed():
    others = [page_of(title, "It stands alone.", []) for title in ("Ada Lunt", "Beta Bridge")]
    one = page_of("Alpha Bridge", "It was designed by Ada Lunt.", ["Ada Lunt", "Beta Bridge"])
    graph = graph_of(one, *others)
    assert graph.told[one.url] == [url_of("Ada Lunt")]
    assert graph.told_by[url_of("Ada Lunt")] == [one.url]
    assert graph.listed[one.url] == []


def test_a_page_tells_of_what_its_sentences_name_and_lists_what_its_lists_hold():
    works = ["Alpha Bridge", "Beta Bridge", "Gamma Bridge"]
    lunt = page_of("Ada Lunt", "She taught Mira Solt.\n## Works\n- " + "\n- ".join(works), ["Mira Solt", *works])
    bridges = [page_of(work, "It was designed by Ada Lunt.", ["Ada Lunt"]) for work in works]
    solt = page_of("Mira Solt", "She was named after the Alpha Bridge.", ["Alpha Bridge"])
    graph = graph_of(lunt, *bridges, solt)
    alpha, ada, mira = url_of("Alpha Bridge"), url_of("Ada Lunt"), url_of("Mira Solt")
    assert graph.told[ada] == [mira]
    assert graph.listed[ada] == [url_of(work) for work in works]
    assert graph.listed_by[alpha] == [ada]
    assert graph.told_by[ada] == [url_of(work) for work in works]
    # Ada's page lists the bridges that lead to her, so only what leads to one of them makes a question need two pages.
    assert graph.told_apart(ada) == []
    assert graph.told_apart(alpha) == [mira]
    assert graph.leads[alpha] == [mira]
    assert graph.leads[ada] == [url_of(work) for work in works]
    assert graph.num_steps[url_of("Beta Bridge")] == 0
    assert graph.num_steps[ada] == 8  # round and round: Ada, Mira, Alpha Bridge


def test_leads_to_a_list_are_joined_by_pages_that_a_third_page_leads_to():
    alpha = page_of("Alpha Bridge", "It was designed by Ada Lunt.", ["Ada Lunt"])
    beta = page_of("Beta Bridge", "It was designed by Ada Lunt.", ["Ada Lunt"])
    lunt = page_of("Ada Lunt", "## Works\n- Alpha Bridge\n- Beta Bridge\n- Dam", ["Alpha Bridge", "Beta Bridge"])
    river = page_of("Tane", "Over it stands the Beta Bridge.", ["Beta Bridge"])
    wife = page_of("Mira Solt", "She is married to Ada Lunt.", ["Ada Lunt"])
    assert graph_of(alpha, beta, lunt, river, wife).leads[lunt.url] == [wife.url, beta.url]


def test_pages_of_one_title_do_not_lead_to_each_other():
    paper = page_of("Soft Gels", "Soft Gels is a paper.", [])
    file = page_of("Soft Gels", "Soft Gels in full.", []).model_copy(
        update={"url": "http://wiki.example/soft.pdf", "links": (paper.url,)}
    )
    graph = graph_of(paper, file)
    assert graph.told_by[paper.url] == [file.url]
    assert graph.told_apart(paper.url) == []


def test_list_lines_are_lists_and_tables_but_no_infobox():
    text = (
        "# T\nBorn | 1950\nCity | Velm\nWorks | 3\nProse.\n## Films\n1987 | A\n1990 | B\n1991 | C\n## Short\n- x\n- y"
    )
    assert list_lines(text) == ["1987 | A", "1990 | B", "1991 | C"]


def test_a_chain_follows_links_from_sentence_to_sentence():
    web = build_web()
    graph = build_graph(web)
    for group in groups(web, QAKind.MULTI_HOP, 50):
        assert 2 <= len(group.urls) <= 4
        assert all(b in graph.told[a] for a, b in zip(group.urls, group.urls[1:], strict=False))


def test_a_count_chain_ends_at_a_list():
    web = build_web()
    graph = build_graph(web)
    for group in groups(web, QAKind.COUNT, 50):
        assert len(graph.listed[group.urls[-1]]) >= 3
        assert all(a in graph.leads[b] for a, b in zip(group.urls, group.urls[1:], strict=False))


def test_lists_of_rare_lengths_come_as_often_as_those_of_common_ones():
    graph = LinkGraph()
    lengths = [3] * 20 + [4] * 4 + [30]
    for number, length in enumerate(lengths):
        graph.listed[f"u{number}"] = ["m"] * length
        graph.leads[f"u{number}"] = ["lead"]
    order = _by_list_length(graph, [(f"u{number}",) for number in range(25)])
    found = [len(graph.listed[url]) for (url,) in order]
    assert Counter(found) == {3: 20, 4: 20, 30: 16}
    assert found[:6] == [3, 4, 30] * 2


def test_a_fork_has_one_page_that_two_lists_share():
    web = build_web()
    for group in groups(web, QAKind.INTERSECTION, 30):
        first, second, middle = group.urls[-3:]
        lists = [set(web.page(url).links) - {url_of("Main Page")} for url in (first, second)]
        assert lists[0] & lists[1] == {middle}
        assert len(group.urls) < 4 or {first, second} & set(web.page(group.urls[0]).links)


def test_single_pages_come_back_in_turns_the_promising_first():
    told = page_of("Ada Lunt", "She is an architect.", [])
    lone = page_of("Orsk", "It is a town.", [])
    telling = page_of("Alpha Bridge", "It was designed by Ada Lunt.", ["Ada Lunt"])
    found = groups(SmallWeb({page.url: page for page in (told, lone, telling)}), QAKind.EASY_TO_HARD, 100)
    assert [group.urls for group in found[:8]] == [(told.url,)] * 8
    assert Counter(group.urls for group in found[8:]) == {(lone.url,): 8, (telling.url,): 8}
    assert len({group.id for group in found}) == 24


def test_the_sequence_depends_on_the_seed_alone_and_never_repeats_a_set_of_pages():
    web = build_web()
    reordered = SmallWeb(dict(reversed(web.pages.items())))
    for kind in QAKind:
        first = groups(web, kind, 200)
        assert groups(reordered, kind, 200) == first
        assert groups(web, kind, 200, seed=4) != first
        assert kind is QAKind.EASY_TO_HARD or len({frozenset(group.urls) for group in first}) == len(first)
        assert [group.id for group in first[:2]] == [f"{kind}-00000", f"{kind}-00001"]


def test_a_web_without_links_has_no_groups_of_several_pages():
    web = SmallWeb({page.url: page for page in [page_of("Alpha", "x", []), page_of("Beta", "y", [])]})
    assert groups(web, QAKind.MULTI_HOP, 5) == []
    assert groups(web, QAKind.COUNT, 5) == []
    assert groups(web, QAKind.INTERSECTION, 5) == []
