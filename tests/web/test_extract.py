"""Extraction: text layout, title, date, links, charsets, PDF; hostile and broken input; real pages of python3-doc."""

import io
import pickle
import time
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Paragraph, SimpleDocTemplate

from webdancer.web.extract import EMPTY, Extracted, extract
from webdancer.web.layout import html_to_text
from webdancer.web.metadata import parse_date
from webdancer.web.pdf import reflow

URL = "http://w.example/wiki/Ana"
PYTHON_DOC = next((path.parents[1] for path in Path("/usr/share/doc").glob("python3*/html/library/bisect.html")), None)

WIKI = """<!DOCTYPE html><html><head><title>Ana Velk (architect) - Wiki</title><meta charset=utf-8>
<script>var x = "<h1>no</h1>";</script></head>
<body class="has-sidebar cookie-page"><a class="skip-link" href="#c">Skip to content</a>
<div id="cookie-banner" class="cookie-consent"><p>We use cookies. <button>Accept</button></p></div>
<header class="site-header"><a href="/">Wiki</a><nav><ul><li><a href="/wiki/Main">Main page</a></li></ul></nav></header>
<div class="breadcrumbs"><a href="/x">Home</a> &gt; People</div>
<main id="content"><article><header><h1>Ana Velk <small>(architect)</small></h1></header>
<table class="infobox"><tr><th>Born</th><td>3 March 1954<br>Kesten</td></tr>
<tr><th>Works</th><td><ul><li>Old Bridge</li><li>New Bridge</li></ul></td></tr><tr><th></th><td></td></tr></table>
<p>Ana <b>Velk</b> is an <a href="Architect#top">architect</a><sup class="reference"><a href="#c1">[1]</a></sup>
 from <a href='../city/K%C3%A9sten'>Késten</a>.&nbsp;She
 designed &lt;bridges&gt; &amp; more.</p><div style="display: none">hidden words</div><p hidden>hidden too</p>
<h2>Works<span class="mw-editsection">[edit]</span></h2>
<ul><li>Old Bridge (1987)<ul><li>nested</li></ul></li><li><p>New Bridge</p></li></ul>
<table><thead><tr><th>Year<th>Title</thead><tbody><tr><td>1987<td><a href="/wiki/B">Old</a><tr><td>1990<td></table>
<dl><dt>Height</dt><dd>30 m</dd><dt>Bridges</dt><dd><p>Several.</p></dd></dl>
<pre># comment
- item</pre>
<div class="related-links"><h3>Related</h3><ul><li><a rel="nofollow" href="/spam">spam</a></li>
<li><a href="/wiki/C">C</a></li></ul></div></article></main>
<aside>Ad</aside><footer>Footer <time datetime="2020-02-02">2 Feb</time> <a href="Architect">again</a></footer></body></html>"""


PIECES = (
    *(
        "<p>",
        "<table>",
        "<tr>",
        "<td>",
        "</table>",
        "<li>",
        "<h1>",
        "</h1>",
        "<br>",
        "<pre>",
        "<!--",
        "-->",
        "<a href=",
    ),
    *("x", " ", "é", "&lt;", "<script>", "</script>", "<title>", "<main>", "<svg>", "<template>", "<select>", "\0"),
    *("<body>", "<html>", "<frameset>", "<nav>", "</nav>", "<dt>", "<dd>", "<base href=//[>", "<time datetime=1>"),
)


def html(source: str | bytes, content_type: str | None = "text/html; charset=utf-8", url: str = URL) -> Extracted:
    return extract(source.encode() if isinstance(source, str) else source, url=url, content_type=content_type)


def test_the_text_of_an_encyclopaedia_page() -> None:
    assert html(WIKI).text.split("\n") == [
        "# Ana Velk (architect)",
        "Born | 3 March 1954, Kesten",
        "Works | Old Bridge, New Bridge",
        "Ana Velk is an architect from Késten. She designed <bridges> & more.",
        "## Works",
        "- Old Bridge (1987)",
        "- nested",
        "- New Bridge",
        "Year | Title",
        "1987 | Old",
        "1990",
        "Height | 30 m",
        "Bridges",
        "Several.",
        "    # comment",
        "    - item",
    ]


def test_links_of_the_whole_page_in_order_without_nofollow() -> None:
    assert html(WIKI).links == (
        "http://w.example/",
        "http://w.example/wiki/Main",
        "http://w.example/x",
        "http://w.example/wiki/Architect",
        "http://w.example/city/K%C3%A9sten",
        "http://w.example/wiki/B",
        "http://w.example/wiki/C",
    )


def test_links_against_a_base_element() -> None:
    page = (
        '<base href="http://b.example/x/"><a href="y">y</a><a href="mailto:a@b">m</a><a href="javascript:x()">j</a>'
        '<a href="#f">f</a><a href="//h.example/z">z</a><a>n</a><map><area href="q?b=2&amp;a=1"></map>'
    )
    assert html(page).links == ("http://b.example/x/y", "http://h.example/z", "http://b.example/x/q?a=1&b=2")


def test_the_footers_date_is_not_the_pages() -> None:
    assert html(WIKI).published is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('<meta property="article:published_time" content="2021-03-04T23:00:00-05:00">', date(2021, 3, 4)),
        ('<meta name="citation_date" content="2017/06/12"><p><time datetime="2019-01-01">x</time>', date(2017, 6, 12)),
        ('<meta name="DC.Date" content="12 June 2017">', date(2017, 6, 12)),
        ('<script type="application/ld+json">{"datePublished": "2020-02-29"}</script>', date(2020, 2, 29)),
        ('<article><p>By A <time datetime="2018-07-06T10:00">6 July</time></p></article>', date(2018, 7, 6)),
        ('<p><time datetime="soon">x</time><span itemprop="datePublished">May 6, 2011</span>', date(2011, 5, 6)),
        ('<meta name="date" content="2021-02-30">', None),
        ('<meta name="date" content="1066-10-14">', None),
        ('<meta name="viewport" content="2021-02-03">', None),
        ("<p>Published on 3 March 2020.", None),
    ],
)
def test_published(source: str, expected: date | None) -> None:
    assert html(f"<html><head><title>t</title>{source}").published == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20240506", date(2024, 5, 6)),
        ("2024.5.6", date(2024, 5, 6)),
        ("Posted 1st Sept. 2003", date(2003, 9, 1)),
        ("September 1, 2003", date(2003, 9, 1)),
        ("2024-05", None),
        ("1 Foo 2003", None),
        ("", None),
    ],
)
def test_parse_date(text: str, expected: date | None) -> None:
    assert parse_date(text) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<title>Old Bridge | Wiki</title><h1>The Old Bridge</h1>", "The Old Bridge"),
        ("<title>Story of the day – The Herald</title><h1>The Herald</h1>", "Story of the day"),
        ("<title>A - B - Site</title>", "A - B"),
        ("<title>Plain</title>", "Plain"),
        (
            "<h1>Utilities for <code>with</code>-statements<a class=headerlink href=#x>¶</a></h1>",
            "Utilities for with-statements",
        ),
        ("<h1>Two<br>lines &amp; <i>more</i></h1>", "Two lines & more"),
        ('<title>x | y</title><meta property="og:title" content="Shared  title">', "Shared title"),
        ("<h1>Logo</h1><main><h1>Real</h1></main>", "Real"),
        ("<title>Deep-sea</title>", "Deep-sea"),
        ("<p>none", ""),
    ],
)
def test_title(source: str, expected: str) -> None:
    assert html(source).title == expected


def test_the_title_opens_a_text_that_lacks_it() -> None:
    assert html("<title>T</title><main><p>One.</p></main>").text == "# T\nOne."
    assert html("<h1>T</h1><main><p>" + "One. " * 40 + "</p></main>").text.startswith("# T\nOne. One.")


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        ("<p>Grüße aus Köln".encode("latin-1"), "text/html; charset=ISO-8859-1", "Grüße aus Köln"),
        ("<meta charset=latin1><p>Grüße – “x”".encode("cp1252"), "text/html", "Grüße – “x”"),
        ("<p>Grüße aus Köln und Zürich".encode("latin-1"), None, "Grüße aus Köln und Zürich"),
        ("<p>北京大学在北京市".encode("gbk"), "text/html; charset=gb2312", "北京大学在北京市"),
        (
            "<p>東京タワーは東京都港区にある電波塔である".encode("shift_jis"),
            "text/html; charset=Shift_JIS",
            "東京タワー",
        ),
        ("<p>déjà".encode("utf-16"), "text/html; charset=latin-1", "déjà"),
        ("\ufeff<p>déjà".encode(), "text/html; charset=latin-1", "déjà"),
        ("<p>déjà".encode(), "text/html; charset=no-such-charset", "déjà"),
        (b"<meta charset=utf-7><p>+ADw-b+AD4-", "text/html", "+ADw-b+AD4-"),
        (b"<p>bad \xff byte", "text/html; charset=utf-8", "bad \ufffd byte"),
    ],
)
def test_charsets(body: bytes, content_type: str | None, words: str) -> None:
    assert words in extract(body, url=URL, content_type=content_type).text


def test_a_layout_table_does_not_swallow_its_blocks() -> None:
    page = "<table><tr><td><a href=/1>n1</a></td><td><h1>Layout</h1><p>One.</p><p>Two.</p></td></tr></table>"
    assert html(page).text == "n1\n# Layout\nOne.\nTwo."


def test_nested_tables() -> None:
    page = "<table><tr><td>outer<table><tr><td>a</td><td>b</td></tr></table>after</td></tr></table>"
    assert html_to_text(page) == "outer\na | b\nafter"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a<br>b<div>c</div>d", "a\nb\nc\nd"),
        ("<h1>two<br>lines</h1>x", "# two lines\nx"),
        ("<ol><li>one<p>more</p></li></ol>", "- one\nmore"),
        ("<p>soft\u00adhyphen zero\u200bwidth\x00</p>", "softhyphen zerowidth"),
        ("<p>&amp;lt;b&amp;gt; &lt;i&gt;</p>", "&lt;b&gt; <i>"),
        ("<table><tr><td></td><td>x</td></tr></table>", " | x"),
        ("<pre>  a\n\n\tb  </pre>", "      a\n    \tb"),
    ],
)
def test_layout(source: str, expected: str) -> None:
    assert html_to_text(source) == expected


def test_lists_of_links_are_content() -> None:
    items = "".join(f'<li><a href="/film/{n}">Film {n}</a> ({1950 + n})</li>' for n in range(12))
    text = html(f"<nav><a href=/>Home</a></nav><h1>Films</h1><ul>{items}</ul><div class=footer>End</div>").text
    assert text.split("\n") == ["# Films", *(f"- Film {n} ({1950 + n})" for n in range(12))]


def test_a_junk_name_on_most_of_the_page_is_not_believed() -> None:
    words = "The bridge was opened in 1987 and has two towers. " * 10
    assert words.strip() in html(f'<div class="page-nav share"><p>{words}</p></div><div class="share">Tweet</div>').text
    assert "Tweet" not in html(f'<div class="page-nav share"><p>{words}</p></div><div class="share">Tweet</div>').text


def test_an_infobox_in_an_aside_stays_and_an_advert_goes() -> None:
    page = "<main><h1>X</h1><aside class=infobox><table><tr><th>Born<td>1950</table></aside><aside>Buy!</aside><p>Text.</p>"
    assert html(page).text == "# X\nBorn | 1950\nText."


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<script src=a.js></script><div id=root></div><noscript>Enable JavaScript</noscript>", True),
        ("<title>App</title><script>run()</script><p>Loading…", True),
        ("<script src=a.js></script><p>" + "words " * 20, False),
        ("<title>t</title><p>short", False),
        ('<script type="application/ld+json">{}</script><p>short', False),
    ],
)
def test_needs_javascript(source: str, expected: bool) -> None:
    assert html(source).needs_javascript is expected


def test_plain_text_and_what_is_not_read() -> None:
    found = extract(b"# Read me\n\nLine  \n- item\n", url=URL, content_type="text/plain")
    assert (found.title, found.text) == ("Read me", "# Read me\nLine\n- item")
    assert extract(b"\x89PNG\r\n", url=URL, content_type="image/png") == EMPTY
    assert extract(b"<a/>", url=URL, content_type="application/xml") == EMPTY
    assert extract(b"a\0b", url=URL, content_type=None) == EMPTY
    assert extract(b"", url=URL, content_type=None) == EMPTY
    assert extract(b"<!doctype html><p>sniffed", url=URL, content_type=None).text == "sniffed"


def _pdf(title: str, *paragraphs: str) -> bytes:
    styles = getSampleStyleSheet()
    out = io.BytesIO()
    story = [Paragraph(text, styles["Title" if not n else "BodyText"]) for n, text in enumerate((title, *paragraphs))]
    SimpleDocTemplate(out, title=title).build(story)
    return out.getvalue()


def test_pdf_sentences_are_whole() -> None:
    first = (
        "The survey of coastal towers was funded by Meridian Works and it uses 4812 samples from nine harbours. " * 3
    )
    body = _pdf(
        "Towers of the Coast", first, 'Code stands at <a href="http://c.example/r">this place</a>. It ends here.'
    )
    for content_type in ("application/pdf", "text/html", None):
        found = extract(body, url=URL, content_type=content_type)
        assert found.title == "Towers of the Coast"
        assert found.text.split("\n") == [
            "Towers of the Coast",
            first.strip(),
            "Code stands at this place. It ends here.",
        ]
        assert found.links == ("http://c.example/r",)


def test_a_damaged_pdf_gives_what_can_be_read() -> None:
    body = _pdf("Towers", "One sentence.")
    assert extract(b"%PDF-1.7\nnothing", url=URL, content_type="application/pdf") == EMPTY
    for cut in range(0, len(body), 97):
        extract(body[:cut], url=URL, content_type="application/pdf")


def test_reflow() -> None:
    width = "x" * 50
    assert reflow([f"{width} exam-", "ple of a", "", "New", "part"]) == [f"{width} example of a", "New part"]
    assert reflow([f"{width}.", "Data", f"Second {width}", "ends. Third one."]) == [
        f"{width}.",
        "Data",
        f"Second {width} ends. Third one.",
    ]
    assert reflow(["Short heading", "Another line."]) == ["Short heading", "Another line."]


@settings(deadline=None, max_examples=150)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(PIECES),
            max_size=40,
        ).map(lambda parts: "".join(parts).encode()),
    ),
    st.sampled_from(
        [None, "text/html", "text/html; charset=utf-16", "text/plain", "application/pdf", "text/html; charset=\x00"]
    ),
)
def test_no_bytes_raise(body: bytes, content_type: str | None) -> None:
    found = extract(body, url="http://w.example/", content_type=content_type)
    assert "\n\n" not in found.text
    found.text.encode()  # no lone surrogates
    found.title.encode()
    assert pickle.loads(pickle.dumps(found)) == found
    assert all(link.startswith(("http://", "https://")) for link in found.links)


@pytest.mark.parametrize(
    "body",
    [
        b"<div>" * 100_000 + b"x",
        b"<div>" * 50_000 + b"x" + b"</div>" * 50_000,
        b"<ul><li>" * 50_000,
        b"<table><tr><td>" * 20_000,
        b"<div " * 300_000,
        b"<!--" * 300_000,
        b'<a class="' * 100_000,
        b"".join(b'<div class="nav-%d">x</div>' % n for n in range(20_000)),
    ],
    ids=["deep", "deep closed", "lists", "tables", "open tags", "comments", "quotes", "names"],
)
def test_hostile_pages_take_little_time(body: bytes) -> None:
    start = time.process_time()
    extract(body, url=URL, content_type="text/html")
    assert time.process_time() - start < 4


@pytest.mark.skipif(PYTHON_DOC is None, reason="needs Debian's python3-doc")
def test_pages_of_python3_doc() -> None:
    assert PYTHON_DOC is not None
    url = "http://docs.example/library/bisect.html"
    found = extract((PYTHON_DOC / "library/bisect.html").read_bytes(), url=url, content_type="text/html")
    lines = found.text.split("\n")
    assert found.title == "bisect — Array bisection algorithm"
    assert lines[:2] == ["# bisect — Array bisection algorithm", "Source code: Lib/bisect.py"]
    assert "## Performance Notes" in lines
    assert "    >>> def grade(score, breakpoints=[60, 70, 80, 90], grades='FDCBA'):" in lines
    for boilerplate in ("Previous topic", "Report a Bug", "Quick search", "¶", "Python Software Foundation"):
        assert boilerplate not in found.text
    assert "http://docs.example/genindex.html" in found.links
    assert found.published is None
    files = sorted(PYTHON_DOC.glob("tutorial/*.html"))
    assert len(files) > 10
    for file in files:
        found = extract(file.read_bytes(), url=f"http://docs.example/tutorial/{file.name}", content_type="text/html")
        assert found.text.startswith(f"# {found.title}\n"), file
        assert not found.needs_javascript
        assert "navigation" not in found.text.lower().split("\n")


def test_json_is_laid_out_a_member_a_line() -> None:
    body = '{"title": "水位 Level", "stations": [{"river": "Oder", "m": 3.2}], "note": "a\\nb"}'.encode()
    found = extract(body, url=URL, content_type="application/json; charset=utf-8")
    assert found.title == "水位 Level"
    assert found.text.split("\n") == [
        "{",
        ' "title": "水位 Level",',
        ' "stations": [',
        "  {",
        '   "river": "Oder",',
        '   "m": 3.2',
        "  }",
        " ],",
        ' "note": "a\\nb"',
        "}",
    ]


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{'a': 1}", b'"\\ud800"', b"\xff\xfe\x00", b"1" * 10_000])
def test_odd_json_is_shown_as_it_is(body: bytes) -> None:
    found = extract(body, url=URL, content_type="application/ld+json")
    found.text.encode()
    assert found.title == ""
