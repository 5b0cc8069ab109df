"""Canonical URLs and URL patterns."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webdancer.web.urls import canonical_url, max_segment_repeats, url_pattern


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.COM:80", "http://example.com/"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("http://example.com:8080/a", "http://example.com:8080/a"),
        ("http://example.com/a/../b/./c/", "http://example.com/b/c/"),
        ("http://example.com/%7euser/%c3%a9", "http://example.com/~user/%C3%A9"),
        ("http://example.com/é", "http://example.com/%C3%A9"),
        ("http://exämple.com/", "http://xn--exmple-cua.com/"),
        ("http://example.com./a", "http://example.com/a"),
        ("http://example.com/a?b=2&a=1#part", "http://example.com/a?a=1&b=2"),
        ("http://example.com/a?utm_source=x&id=7&fbclid=q&GCLID=z", "http://example.com/a?id=7"),
        ("http://example.com/a?PHPSESSID=1", "http://example.com/a"),
        ("http://example.com/a;jsessionid=0F3?sid=4", "http://example.com/a"),
        ("  http://example.com/a\tb\n", "http://example.com/ab"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("http://example.com/a%2Fb", "http://example.com/a%2Fb"),
        ("http://example.com/zh/东京", "http://example.com/zh/%E4%B8%9C%E4%BA%AC"),
    ],
)
def test_canonical(url: str, expected: str) -> None:
    assert canonical_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/a",
        "example.com",
        "mailto:a@example.com",
        "javascript:void(0)",
        "ftp://example.com/",
        "data:text/html,x",
        "http://",
        "http:///a",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://[::1/",
        "http://user:password@example.com/",
        "http://user@example.com/",
    ],
)
def test_not_a_page(url: str) -> None:
    assert canonical_url(url) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("c.html", "http://h.example/a/c.html"),
        ("../c", "http://h.example/c"),
        ("../../../c", "http://h.example/c"),
        ("/c", "http://h.example/c"),
        ("?page=2", "http://h.example/a/b?page=2"),
        ("#top", "http://h.example/a/b?q=1"),
        ("", "http://h.example/a/b?q=1"),
        ("//other.example/x", "http://other.example/x"),
        ("https://other.example", "https://other.example/"),
        ("mailto:x@y", None),
        ("//[bad/x", None),
    ],
)
def test_relative(url: str, expected: str | None) -> None:
    assert canonical_url(url, "http://h.example/a/b?q=1#f") == expected


def test_relative_to_a_host_without_a_path() -> None:
    assert canonical_url("c", "http://h.example") == "http://h.example/c"


def test_slash_in_the_query_of_the_base_is_no_folder() -> None:
    assert canonical_url("c", "http://h.example/a/b?next=/x/y") == "http://h.example/a/c"


_FRAGMENTS = (
    "a Z % %2f %2F %zz %41 %25 + é %E9 / // .. . ? & = ; # : @ \\ [ ] utm_x=1 sid=2 %00 ¹ ß İ ;jsessionid=1 \x00 \ud800"
)
_PIECES = st.lists(st.sampled_from([*_FRAGMENTS.split(" "), " "]), max_size=12).map("".join)


@given(st.one_of(st.text(), _PIECES.map("http://h.example/".__add__), _PIECES.map("http://".__add__), _PIECES))
@example("http://h.example/%%34%31")
@example("http://h.example/?a=1&sid=2&=&")
def test_idempotent_and_never_raises(url: str) -> None:
    once = canonical_url(url)
    if once is not None:
        assert canonical_url(once) == once
        assert once.isascii()
        assert "#" not in once
    resolved = canonical_url(url, "http://h.example/a/b")
    if resolved is not None:
        assert canonical_url(resolved) == resolved


@given(st.text(), st.text())
def test_any_base_is_survived(url: str, base: str) -> None:
    resolved = canonical_url(url, base)
    assert resolved is None or canonical_url(resolved) == resolved


@pytest.mark.parametrize("path", ["a/b", "a//b", "x?y=1&z", "wiki/%28x%29", "é?ß=ü"])
def test_ordinary_pages_are_kept(path: str) -> None:
    assert canonical_url("http://h.example/" + path) is not None


def test_pattern_folds_digits_and_query_values() -> None:
    assert url_pattern("http://h7.example:81/calendar/2024/11") == "http://h7.example:81/calendar/0/0"
    assert url_pattern("http://h.example/list?page=3&sort=up") == "http://h.example/list?page&sort"
    assert url_pattern("http://h.example/wiki/Ana_Velk") == "http://h.example/wiki/Ana_Velk"


def test_segment_repeats() -> None:
    assert max_segment_repeats("http://h.example/") == 0
    assert max_segment_repeats("http://h.example/a/b/a/b/a?x=/a/a") == 3
    assert max_segment_repeats("http://a/a") == 1
