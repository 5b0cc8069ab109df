"""Search of a snapshot: any query string, Chinese, accents, years, snippets."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webdancer.records import Page
from webdancer.web.index import SearchIndex, build_index
from webdancer.web.protocol import PageNotFound, PageReader, SearchProvider
from webdancer.web.search import SnapshotReader, SnapshotSearch
from webdancer.web.snapshot import Snapshot, SnapshotWriter
from webdancer.web.snippets import SnippetMaker
from webdancer.web.tokens import prepare, query_terms

PAGES = {
    "bridge": ("Old Bridge", "# Old Bridge\nThe Old Bridge crosses the Sarn. It was designed by Ana Velk.", None),
    "velk": ("Ana Velk (architect)", "# Ana Velk (architect)\nBorn | 1954\nAna Velk was born in Kesten.", None),
    "news21": ("Mayor speaks", "The mayor of Kesten spoke of the bridge.", date(2021, 5, 1)),
    "news22": ("Mayor resigns", "The mayor of Kesten left. The bridge stays.", date(2022, 5, 1)),
    "cafe": ("Café Müller", "Das Café Müller in Zürich serviert Kaffee. Straße 5. Æther.", None),
    "beijing": ("北京大学", "北京大学位于北京市海淀区，是一所著名的综合性大学。它创立于1898年。", None),
    "tokyo": ("東京タワー", "東京タワーは東京都港区にある電波塔である。高さは333メートル。", None),
    "seoul": ("서울", "서울특별시는 대한민국의 수도이다.", None),
    "operators": ("AND OR NOT", 'Use NOT and AND in a query: title:x +must -not "phrase" C++ to be or not to be', None),
}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    path = tmp_path_factory.mktemp("search")
    with SnapshotWriter(path) as writer:
        for name, (title, text, published) in PAGES.items():
            page = Page(
                url=f"http://s.example/{name}",
                title=title,
                text=text,
                published=published,
                fetched_at=datetime(2024, 1, 1, tzinfo=UTC),
                content_hash=hashlib.sha256(text.encode()).hexdigest(),
            )
            writer.add(page, status=200, headers=[], body=text.encode())
    with Snapshot.open(path) as opened:
        yield opened


def found(snapshot: Snapshot, query: str, **options: int) -> list[str]:
    return [hit.url.rpartition("/")[2] for hit in snapshot.search(query, **options)]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("who designed the Old Bridge", "bridge"),
        ("ana velk", "velk"),
        ("cafe muller zurich", "cafe"),
        ("CAFÉ MÜLLER", "cafe"),
        ("cafe\u0301 mu\u0308ller", "cafe"),
        ("ｃａｆｅ", "cafe"),
        ("strasse aether", "cafe"),
        ("海淀区", "beijing"),
        ("综合性大学", "beijing"),
        ("著名", "beijing"),
        ("著", "beijing"),
        ("区", "beijing"),
        ("1898年", "beijing"),
        ("where is 海淀?", "beijing"),
        ("電波塔", "tokyo"),
        ("タワー", "tokyo"),
        ("ﾀﾜｰ", "tokyo"),
        ("メートル", "tokyo"),
        ("대한민국", "seoul"),
        ("to be or not to be", "operators"),
        ("title:x AND +must -phrase", "operators"),
        ('"C++"', "operators"),
    ],
)
def test_the_first_hit(snapshot: Snapshot, query: str, first: str) -> None:
    assert found(snapshot, query)[0] == first


def test_what_is_not_there_is_not_found(snapshot: Snapshot) -> None:
    for query in ("", "   ", "zeppelin", "京北", "!?\"'", "_"):
        assert found(snapshot, query) == []
    assert found(snapshot, "bridge", num_results=0) == []


def test_a_title_counts_more_than_the_text(snapshot: Snapshot) -> None:
    assert found(snapshot, "velk") == ["velk", "bridge"]


def test_the_filter_by_year(snapshot: Snapshot) -> None:
    assert found(snapshot, "mayor of kesten", year=2021) == ["news21"]
    assert found(snapshot, "bridge", year=2022) == ["news22"]
    assert found(snapshot, "bridge", year=1999) == []
    assert sorted(found(snapshot, "bridge")) == ["bridge", "news21", "news22"]
    assert snapshot.search("resigns", year=2022)[0].published == date(2022, 5, 1)


def test_the_number_of_results(snapshot: Snapshot) -> None:
    assert len(found(snapshot, "the")) == 3
    assert found(snapshot, "the", num_results=2) == found(snapshot, "the")[:2]


def test_operators_mean_nothing(snapshot: Snapshot) -> None:
    plain = found(snapshot, "mayor bridge kesten")
    for query in (
        "mayor AND bridge NOT kesten",
        "+mayor -bridge kesten",
        "(mayor) [bridge TO kesten]",
        "mayor^9 bridge~ kesten*",
    ):
        assert set(plain) <= set(found(snapshot, query)), query


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60), st.sampled_from([None, 2021, -5, 10**30]))
@example('"', None)
@example("a:[b TO", None)
@example("İ\u0130ı ẞ", None)
@example("\ud800", None)
@example("京" * 500, None)
@example("x" * 100_000, None)
@example("word " * 1000, 2021)
def test_any_string_is_a_query(snapshot: Snapshot, query: str, year: int | None) -> None:
    for hit in snapshot.search(query, year=year):
        assert len(hit.snippet) <= 210
        assert "\n" not in hit.snippet


def test_threads_share_a_snapshot(snapshot: Snapshot) -> None:
    queries = [name for name in ("bridge", "velk", "海淀", "kesten", "mayor") for _ in range(40)]
    expected = [found(snapshot, query) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: found(snapshot, query), queries)) == expected


async def test_the_tools_of_the_agent(snapshot: Snapshot) -> None:
    search: SearchProvider = SnapshotSearch(snapshot)
    reader: PageReader = SnapshotReader(snapshot)
    hits = await search.search("mayor", num_results=1, year=2021)
    assert [(hit.title, hit.url) for hit in hits] == [("Mayor speaks", "http://s.example/news21")]
    assert (await reader.read("http://s.example/velk#born")).title == "Ana Velk (architect)"
    with pytest.raises(PageNotFound, match=r"http://s\.example/nowhere"):
        await reader.read("http://s.example/nowhere")


def test_cjk_runs_become_pairs() -> None:
    assert prepare("在 北京大学x").split() == ["在", "北京", "京大", "大学", "学", "x"]
    assert prepare("plain") == "plain"
    terms = query_terms("北京大学 café 塔 x_y")
    assert terms.words == ("北京", "京大", "大学", "cafe", "x", "y")
    assert terms.prefixes == ("塔",)


def test_words_of_most_pages_are_left_out_of_the_text_only(tmp_path: Path) -> None:
    rows = [
        (n, "the tower" if n == 3 else f"page {n}", f"the text {'rare' if n > 1996 else ''} {n}", None)
        for n in range(2000)
    ]
    build_index(tmp_path / "index", rows)
    index = SearchIndex(tmp_path / "index")
    assert set(index.search("the rare", num_results=4, year=None).ids) == {3, 1997, 1998, 1999}
    assert len(index.search("the text", num_results=10, year=None).ids) == 10


class TestSnippets:
    def test_the_window_with_the_most_telling_words(self) -> None:
        text = (
            "# Title\n"
            + "The start of it all. " * 30
            + "Ana Velk designed the bridge in 1987. "
            + "The end of it. " * 30
        )
        snippet = SnippetMaker({"the": 0.01, "velk": 1.0, "1987": 1.0}).cut(text)
        assert "Ana Velk designed the bridge in 1987." in snippet
        assert snippet.startswith("… ")
        assert snippet.endswith(" …")
        assert len(snippet) <= 204

    def test_a_short_text_is_shown_whole_on_one_line(self) -> None:
        text = "# Heading\nOne | two\n- item\n## Next\nlast"
        assert SnippetMaker({"item": 1.0}).cut(text) == "Heading One | two item Next last"
        assert SnippetMaker({}).cut("") == ""

    def test_a_window_does_not_open_with_a_word_that_comes_again_in_it(self) -> None:
        text = (
            "# Velda Press: what do you know?\n"
            "I think the home city of Velda Press is Kesten.\n"
            "Pretty sure the chief executive of Velda Press is Tom Orsk.\n"
            "If I recall, the founder of Velda Press is Rosa Maria Lindqvist-Kestenholm of Lodos.\n"
            "I heard the revenue of Velda Press is 1,954 crowns.\n"
        )
        snippet = SnippetMaker({"velda": 1.0, "press": 1.0, "founder": 2.0}).cut(text)
        assert "If I recall, the founder of Velda Press is Rosa Maria Lindqvist-Kestenholm of Lodos." in snippet
        assert snippet.startswith("… ")

    def test_words_have_borders(self) -> None:
        text = "anabasis " * 40 + "and then ana came"
        assert SnippetMaker({"ana": 1.0}).cut(text).endswith("and then ana came")

    def test_accents_and_case_do_not_hide_a_word(self) -> None:
        text = "x " * 300 + "das Café MÜLLER in Zürich" + " y" * 300
        assert "Café MÜLLER" in SnippetMaker({"muller": 1.0}).cut(text)
        assert "İzmir" in SnippetMaker({"izmir": 1.0}).cut("İ " * 300 + "in İzmir" + " y" * 300)

    def test_chinese_needs_no_spaces(self) -> None:
        text = "一" * 300 + "北京大学" + "二" * 300
        snippet = SnippetMaker({"北京大学": 1.0, "大学": 0.1}).cut(text)
        assert "北京大学" in snippet
        assert len(snippet) <= 204
