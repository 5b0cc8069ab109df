"""Titles, snippets and dates as providers write them."""

from datetime import UTC, date, datetime

import pytest

from webdancer.web.providers.hits import HitCollector, RawHit
from webdancer.web.providers.text import parse_day, plain_text, typed_params

NOW = datetime(2025, 3, 1, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("Mar 3, 2021", date(2021, 3, 3)),
        ("March 3, 2021", date(2021, 3, 3)),
        ("3 Mar 2021", date(2021, 3, 3)),
        ("Wed, 03 Mar 2021 10:00:00 GMT", date(2021, 3, 3)),
        ("2021-03-03", date(2021, 3, 3)),
        ("2021-03-03T23:59:00Z", date(2021, 3, 3)),
        ("2021/3/3", date(2021, 3, 3)),
        ("2021年3月3日", date(2021, 3, 3)),
        ("2021 年 12 月 31 日", date(2021, 12, 31)),
        ("发布于2021年3月3号", date(2021, 3, 3)),
        ("2 days ago", date(2025, 2, 27)),
        ("1 day ago", date(2025, 2, 28)),
        ("a day ago", date(2025, 2, 28)),
        ("2 hours ago", date(2025, 2, 28)),
        ("1 hour ago", date(2025, 3, 1)),
        ("an hour ago", date(2025, 3, 1)),
        ("5 mins ago", date(2025, 3, 1)),
        ("3 weeks ago", date(2025, 2, 8)),
        ("Yesterday", date(2025, 2, 28)),
        ("today", date(2025, 3, 1)),
        ("2天前", date(2025, 2, 27)),
        ("2 天前", date(2025, 2, 27)),
        ("3小时前", date(2025, 2, 28)),
        ("3 小時前", date(2025, 2, 28)),
        ("1周前", date(2025, 2, 22)),
        ("2个星期前", date(2025, 2, 15)),
        ("2 个小时之前", date(2025, 2, 28)),
        ("昨天", date(2025, 2, 28)),
        ("前天", date(2025, 2, 27)),
    ],
)
def test_days(text: str, day: date) -> None:
    assert parse_day(text, NOW) == day


@pytest.mark.parametrize(
    "text",
    ["", "  ", "2021", "Mar 2021", "Mar 3", "2021年3月", "3 months ago", "1 year ago", "3个月前", "2年前", "2021-13-45",
     "soon", "2021年13月45日", "9999 weeks", "x" * 10_000, "Foo 3, 2021"],
)  # fmt: skip
def test_what_names_no_day(text: str) -> None:
    assert parse_day(text, NOW) is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a <strong>b</strong>c", "a bc"),
        ("one<br>two<br/>three", "one two three"),
        ("<p class='x'>one</p><p>two</p>", "one two"),
        ("AT&amp;T &quot;x&quot; &#39;y&#39; &nbsp; z", "AT&T \"x\" 'y' z"),
        ("&lt;b&gt;bold&lt;/b&gt; is a tag", "<b>bold</b> is a tag"),
        ("List<String> and a < b > c", "List<String> and a < b > c"),
        ("1 <3 you", "1 <3 you"),
        ("x<script>alert('<b>')</script>y<style>b{}</style>z", "x y z"),
        ("x<!-- <b>hidden</b> -->y", "x y"),
        ("x<script>never closed", "x"),
        ("tabs\tand\r\nlines\u2028here", "tabs and lineshere"),
        ("zero\u200bwidth\x00 and \x1b[31mred", "zerowidth and [31mred"),
        ("half \ud83d pair", "half ? pair"),
        ("韦尔姆 <em>在哪里</em>", "韦尔姆 在哪里"),
        ("", ""),
    ],
)
def test_plain_text(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    "text", ["<" * 100_000, "<!--" * 30_000, "<script" * 20_000, "<a " * 50_000, "<p x=" + "y" * 100_000]
)
def test_hostile_text_takes_no_time(text: str) -> None:
    started = datetime.now(UTC)
    plain_text(text)
    assert (datetime.now(UTC) - started).total_seconds() < 1


def test_settings_of_a_json_body_have_types() -> None:
    params = {"a": "true", "b": "3", "c": '["x"]', "d": "us", "e": "", "f": '"3"', "g": "{broken", "h": "zh-cn"}
    assert typed_params(params) == {
        "a": True, "b": 3, "c": ["x"], "d": "us", "e": "", "f": "3", "g": "{broken", "h": "zh-cn",
    }  # fmt: skip


def test_long_titles_snippets_and_addresses() -> None:
    collector = HitCollector(10, now=NOW)
    collector.add(
        [RawHit("t" * 400, "http://a.example/", "s" * 1500), RawHit("t", "http://a.example/" + "x" * 2000, "")]
    )
    assert len(collector.hits) == 1
    hit = collector.hits[0]
    assert hit.title == "t" * 299 + "…"
    assert hit.snippet == "s" * 999 + "…"


def test_first_date_that_can_be_read_counts() -> None:
    collector = HitCollector(10, now=NOW)
    collector.add([RawHit("t", "http://a.example/", "", ("", "3 months ago", "2 days ago", "2020-01-01"))])
    assert collector.hits[0].published == date(2025, 2, 27)
