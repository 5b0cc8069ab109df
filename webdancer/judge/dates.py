"""Dates in the notations that answers come in, turned into ISO form.

Only what can be read in one way is read: `03/04/1954` stays as it is, for it is a day in March or in April.
"""

import re
from datetime import date

from webdancer.judge.chinese import CJK, DIGITS

_MONTHS = {
    "january": 1,
    "february": 2,
    "march": 3,
    "april": 4,
    "may": 5,
    "june": 6,
    "july": 7,
    "august": 8,
    "september": 9,
    "october": 10,
    "november": 11,
    "december": 12,
}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()} | {"sept": 9}
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\b\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?(?!\d)"
_YEAR = r"(?P<year>\d{4})(?![\d])"
_WEEKDAY = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\.?,?\s+)?"
_BEFORE, _AFTER = rf"(?<![^\W{CJK}])(?<![.,/-])", rf"(?![^\W{CJK}]|[/-]|[.,]\d)"
"""No letter or digit stands beside a date, but for Chinese, which sets no spaces."""
_CN_DIGIT, _CN = "[〇○零一二三四五六七八九]", "[〇○零一二三四五六七八九十]"
_CN_WEEKDAY = r"(?:\s*\(?(?:星期|周|礼拜|禮拜)[一二三四五六日天]\)?)?"

_FULL_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_BEFORE}{_WEEKDAY}(?:the\s+)?{_DAY}\s*[-\s]\s*(?:of\s+)?{_MONTH}\s*[-,\s]\s*(?:of\s+)?{_YEAR}{_AFTER}",
        rf"{_BEFORE}{_WEEKDAY}{_MONTH}\s+(?:the\s+)?{_DAY}\s*(?:,\s*|\s){_YEAR}{_AFTER}",
        rf"{_BEFORE}{_YEAR}[,\s]\s*{_MONTH}\s+{_DAY}{_AFTER}",
        rf"{_BEFORE}{_YEAR}(?P<mark>[-/.])(?P<month>\d{{1,2}})(?P=mark)(?P<day>\d{{1,2}})"
        rf"(?:[t ]00:00(?::00)?(?:\.0+)?(?:z|\+00:00)?)?{_AFTER}",
        rf"{_BEFORE}(?P<day>\d{{1,2}})\.\s?(?P<month>\d{{1,2}})\.\s?{_YEAR}{_AFTER}",
        rf"(?<!\d)(?P<year>\d{{4}})\s*年\s*(?P<month>\d{{1,2}})\s*月\s*(?P<day>\d{{1,2}})\s*[日号號]{_CN_WEEKDAY}",
        rf"(?P<year>{_CN_DIGIT}{{4}})年(?P<month>{_CN}{{1,3}})月(?P<day>{_CN}{{1,3}})[日号號]{_CN_WEEKDAY}",
    )
)
_SLASHED = re.compile(rf"{_BEFORE}(?P<first>\d{{1,2}})(?P<mark>[/-])(?P<second>\d{{1,2}})(?P=mark){_YEAR}{_AFTER}")
_MONTH_OF_YEAR = (
    re.compile(rf"(?:in\s+)?{_MONTH}\s*(?:,\s*|\s+(?:of\s+)?){_YEAR}\.?"),
    re.compile(r"(?P<year>\d{4})\s*年\s*(?P<month>\d{1,2})\s*月"),
    re.compile(rf"(?P<year>{_CN_DIGIT}{{4}})年(?P<month>{_CN}{{1,3}})月"),
)
_DAY_OF_MONTH = (
    re.compile(rf"(?:on\s+)?(?:the\s+)?{_DAY}\s+(?:of\s+)?{_MONTH}\.?"),
    re.compile(rf"(?:on\s+)?{_MONTH}\s+(?:the\s+)?{_DAY}\.?"),
    re.compile(r"(?P<month>\d{1,2})\s*月\s*(?P<day>\d{1,2})\s*[日号號]"),
    re.compile(rf"(?P<month>{_CN}{{1,3}})月(?P<day>{_CN}{{1,3}})[日号號]"),
)


def replace_dates(text: str) -> str:
    """Lower-case `text` with every full date as `YYYY-MM-DD`.

    A month of a year or a day of a month is read only where it is the whole text, as `month 1954-03` and `day 03-03`.
    """
    for pattern in _MONTH_OF_YEAR:
        if (match := pattern.fullmatch(text)) and 1 <= (month := _number(match["month"])) <= 12:
            return f"month {_number(match['year']):04}-{month:02}"
    for pattern in _DAY_OF_MONTH:
        if (match := pattern.fullmatch(text)) and _is_date(
            2000, month := _number(match["month"]), _number(match["day"])
        ):
            return f"day {month:02}-{_number(match['day']):02}"
    for pattern in _FULL_DATES:
        text = pattern.sub(_iso, text)
    text = _SLASHED.sub(_iso_if_unambiguous, text)
    return re.sub(r"^(?:on |[于於在])(?=\d{4}-\d\d-\d\d[.。]?$)", "", text)


def _iso(match: re.Match[str]) -> str:
    year, month, day = _number(match["year"]), _number(match["month"]), _number(match["day"])
    return date(year, month, day).isoformat() if _is_date(year, month, day) else match.group()


def _iso_if_unambiguous(match: re.Match[str]) -> str:
    first, second, year = int(match["first"]), int(match["second"]), int(match["year"])
    readings = {(month, day) for month, day in ((first, second), (second, first)) if _is_date(year, month, day)}
    if len(readings) != 1:
        return match.group()
    return date(year, *readings.pop()).isoformat()


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _number(text: str) -> int:
    """A month's name, digits, or a Chinese numeral below one hundred; a Chinese year is read digit by digit."""
    if text in _MONTHS:
        return _MONTHS[text]
    if text.isdecimal():
        return int(text)
    if "十" in text:
        tens, ones = text.split("十", 1)
        return 10 * (DIGITS.get(tens, 1) if tens else 1) + DIGITS.get(ones, 0)
    return int("".join(str(DIGITS[digit]) for digit in text))
