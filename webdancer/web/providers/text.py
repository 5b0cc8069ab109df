"""Titles, snippets and dates as providers write them, to plain text and days; settings to JSON. Pure."""

import html
import json
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta

from pydantic import JsonValue

from webdancer.web.layout import clean
from webdancer.web.metadata import parse_date

_HIDDEN = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_BLOCKS = (
    "address|article|aside|blockquote|body|br|dd|div|dl|dt|figcaption|figure|footer|form|h[1-6]|head|header|hr|html|li|main|nav|"
    "ol|p|pre|section|table|tbody|td|tfoot|th|thead|title|tr|ul|!doctype"
)
_INLINES = (
    "a|abbr|b|button|center|cite|code|del|em|font|i|img|input|ins|kbd|label|link|mark|meta|q|s|small|span|strong|sub|sup|svg|"
    "time|tt|u|var|wbr"
)
# Only tags that exist in HTML: `List<String>` in a snippet about programs is text.
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCKS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINES})(?:\s[^<>]*)?/?>", re.IGNORECASE)

_AGO = re.compile(r"\b(\d{1,4}|an?|one)\s*(second|sec|minute|min|hour|hr|day|week)s?\s+ago\b", re.IGNORECASE)
_AGO_CHINESE = re.compile(r"(\d{1,4})\s*个?個?(秒钟|秒鐘|秒|分钟|分鐘|小时|小時|天|日|周|週|星期)[之以]?前")
_DAY_CHINESE = re.compile(r"(\d{4})\s*年\s*(\d{1,2})\s*月\s*(\d{1,2})\s*[日号號]")
_UNITS = {
    **dict.fromkeys(("second", "sec", "秒", "秒钟", "秒鐘"), timedelta(seconds=1)),
    **dict.fromkeys(("minute", "min", "分钟", "分鐘"), timedelta(minutes=1)),
    **dict.fromkeys(("hour", "hr", "小时", "小時"), timedelta(hours=1)),
    **dict.fromkeys(("day", "天", "日"), timedelta(days=1)),
    **dict.fromkeys(("week", "周", "週", "星期"), timedelta(weeks=1)),
}
_NAMED_DAYS = {"today": 0, "yesterday": 1, "今天": 0, "昨天": 1, "前天": 2}
_MAX_DATE_CHARS = 80


def plain_text(text: str) -> str:
    """One line of plain text: tags, comments and scripts dropped, entities resolved, white space folded.

    Half surrogate pairs, which JSON can hold and no file can, become `?`.
    """
    if "<" in text:
        text = _INLINE_TAG.sub("", _BLOCK_TAG.sub(" ", _HIDDEN.sub(" ", text)))
    text = html.unescape(text) if "&" in text else text
    return " ".join(clean(text.encode("utf-8", "replace").decode("utf-8")).split())


def parse_day(text: str, now: datetime) -> date | None:
    """The day that a result's date names: a date in English, Chinese or ISO form, or how long ago it was.

    None for what names no single day: "3 months ago", "2021", "Mar 3".
    """
    text = text.strip()[:_MAX_DATE_CHARS]
    if (days := _NAMED_DAYS.get(text.lower())) is not None:
        return now.date() - timedelta(days=days)
    if match := _AGO.search(text) or _AGO_CHINESE.search(text):
        number = int(match[1]) if match[1].isdigit() else 1
        return (now - number * _UNITS[match[2].lower()]).date()
    if match := _DAY_CHINESE.search(text):
        return parse_date(f"{match[1]}-{match[2]}-{match[3]}")
    return parse_date(text)


def typed_params(params: Mapping[str, str]) -> dict[str, JsonValue]:
    """Settings for a JSON body: `true`, numbers, lists and objects as such, all else as text."""
    return {name: _typed(value) for name, value in params.items()}


def _typed(value: str) -> JsonValue:
    try:
        typed: JsonValue = json.loads(value)
    except ValueError:
        return value
    return typed
