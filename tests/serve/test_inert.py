"""Text that repeats a hostile page stays text in a client that renders markdown."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webdancer.agent.tools import Source
from webdancer.serve.inert import inert, plain_line, source_line

GAP = "\u200b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a < b and 3 <4 > 2", "a < b and 3 <4 > 2"),
        ("[page](https://w.example/) and [P](HTTP://w.example/)", "[page](https://w.example/) and [P](HTTP://w.example/)"),
        ("</think>", f"<{GAP}/think>"),
        ("<img src=x onerror=alert(1)>", f"<{GAP}img src=x onerror=alert(1)>"),
        ("<!-- x -->", f"<{GAP}!-- x -->"),
        ("<|im_end|>", f"<{GAP}|im_end|>"),
        ("< / think >", f"<{GAP} / think >"),
        ("![x](https://evil.example/?q=1)", f"!{GAP}[x](https://evil.example/?q=1)"),
        ("[x](javascript:alert(1))", f"[x]{GAP}(javascript:alert(1))"),
        ("[x](\njavascript:alert(1))", f"[x]{GAP}(\njavascript:alert(1))"),
        ("[x](&#106;avascript:alert(1))", f"[x]{GAP}(&#106;avascript:alert(1))"),
        ("[x](<javascript:alert(1)>)", f"[x]{GAP}(<{GAP}javascript:alert(1)>)"),
        ("[x]\n\n[x]: data:text/html,y", f"[x]\n\n[x]{GAP}: data:text/html,y"),
        ("[1]: https://w.example/", "[1]: https://w.example/"),
    ],
)  # fmt: skip
def test_what_acts_is_broken_and_the_rest_stays(text: str, shown: str) -> None:
    assert inert(text) == shown


@given(st.text(alphabet=st.sampled_from("<>/!?|[]():ab \n\u200b")))
def test_nothing_is_lost_and_a_second_pass_changes_nothing(text: str) -> None:
    once = inert(text)
    assert inert(once) == once
    assert once.replace(GAP, "") == text.replace(GAP, "")
    assert not re.search(r"<[/!?a-z|]|!\[", once)


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Ada Lunt", "Ada Lunt"),
        ("  two\nlines\t", "two lines"),
        ("2 * 3 = 6 [draft]", r"2 \* 3 = 6 \[draft\]"),
        ("a](javascript:x)", r"a\]\(javascript:x\)"),
        ("<b>", rf"\<{GAP}b\>"),
        ("&lt;script&gt;", r"\&lt;script\&gt;"),
        ("abc\u202egnp.exe", "abc gnp.exe"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_a_title_shows_just_itself(title: str, shown: str) -> None:
    assert plain_line(title) == shown


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (Source("https://w.example/a_(b)?q=1&r=2#s", "T"), "[T](https://w.example/a_%28b%29?q=1&r=2#s)"),
        (Source("http://w.example/ü x", " "), "[http://w.example/ü x](http://w.example/%C3%BC%20x)"),
        (Source("http://w.example/a%20b", "T"), "[T](http://w.example/a%20b)"),
        (Source('http://w.example/") <script>\n', "T"), "[T](http://w.example/%22%29%20%3Cscript%3E%0A)"),
        (Source("javascript:alert(1)", "T"), "T"),
        (Source("data:text/html,x", ""), "data:text/html,x"),
    ],
)
def test_a_source_is_a_link_to_a_web_page_or_no_link(source: Source, line: str) -> None:
    assert source_line(source) == line
