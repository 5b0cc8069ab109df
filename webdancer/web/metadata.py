"""A page's title, and the date on which it was published."""

import calendar
import re
from datetime import date

from selectolax.lexbor import LexborHTMLParser, LexborNode

from webdancer.web.layout import clean, html_to_text

_MAX_TITLE_CHARS = 300
_SEPARATOR = re.compile(r"\s+(?:[|–—·»:]|::|-)\s+")
_DATE_METAS = (
    *("article:published_time", "og:published_time", "og:article:published_time", "citation_publication_date"),
    *("citation_date", "citation_online_date", "datepublished", "pubdate", "publishdate", "publish-date"),
    *("publish_date", "publication_date", "date", "dc.date", "dc.date.issued", "dcterms.date", "dcterms.created"),
    *("dcterms.issued", "parsely-pub-date", "sailthru.date"),
)
"""Names of meta elements that give the date, best first."""
_DATE_RANK = {name: rank for rank, name in enumerate(_DATE_METAS)}
_TIME_SELECTORS = ("[itemprop=datePublished]", "time[pubdate]", "time[datetime]")
_JSON_LD_DATE = re.compile(r'"datePublished"\s*:\s*"([^"]{8,40})"')
_ISO = re.compile(r"\s*(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_COMPACT = re.compile(r"\s*(\d{4})(\d{2})(\d{2})(?!\d)")
_DAY_MONTH = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?\s+([A-Za-z]{3,9})\.?,?\s+(\d{4})")
_MONTH_DAY = re.compile(r"([A-Za-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})")
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_YEARS = range(1900, 2101)


def page_title(parser: LexborHTMLParser) -> str:
    """The page's own title: its first heading, else `og:title`, else `<title>`, without the name of the site."""
    declared = _text(parser, "head title") or _text(parser, "title")
    parts = _SEPARATOR.split(declared)
    site = _meta(parser, "og:site_name").casefold()
    heading = _text(parser, "h1")
    if heading and len(parser.css("h1")) > 1:
        heading = _text(parser, "main h1") or _text(parser, "article h1") or heading
    # Some sites put their own name into the first heading of every page.
    is_site_name = len(parts) > 1 and heading.casefold() in (parts[-1].casefold(), site)
    if heading and not is_site_name:
        return heading
    shared = _meta(parser, "og:title")
    if shared and shared.casefold() != site:
        return shared
    return declared[: -len(parts[-1])].rstrip(" |–—·»:-") if len(parts) > 1 else declared


def _text(parser: LexborHTMLParser, selector: str) -> str:
    node = parser.css_first(selector)
    if node is None:
        return ""
    # A heading reads as it does in the page's text.
    text = clean(node.text()) if node.tag == "title" else html_to_text(node.html or "")
    return " ".join(text.split())[:_MAX_TITLE_CHARS].strip("¶# ").replace("¶", "")


def _meta(parser: LexborHTMLParser, name: str) -> str:
    node = parser.css_first(f'meta[property="{name}"],meta[name="{name}"]')
    content = node.attributes.get("content") if node is not None else None
    return " ".join((content or "").split())[:_MAX_TITLE_CHARS]


def declared_date(parser: LexborHTMLParser, html: str) -> date | None:
    """The date of publication that the page's metadata gives."""
    found: list[tuple[int, date]] = []
    for node in (parser.head or parser).css("meta[content]"):
        attributes = node.attributes
        name = (attributes.get("property") or attributes.get("name") or attributes.get("itemprop") or "").lower()
        if name in _DATE_RANK and (day := parse_date(attributes.get("content") or "")):
            found.append((_DATE_RANK[name], day))
    if found:
        return min(found)[1]
    if "datePublished" in html and (match := _JSON_LD_DATE.search(html)):
        return parse_date(match[1])
    return None


def shown_date(main: LexborNode) -> date | None:
    """The date of publication that the main element shows: one that is marked as such, else its first `<time>`."""
    for selector in _TIME_SELECTORS:
        for node in main.css(selector)[:3]:
            attributes = node.attributes
            if day := parse_date(attributes.get("datetime") or attributes.get("content") or node.text()):
                return day
    return None


def parse_date(text: str) -> date | None:
    """The day that opens or stands in a short text: ISO (with `-`, `/`, `.` or nothing between) or English words."""
    text = text[:80]
    if match := _ISO.match(text) or _COMPACT.match(text):
        return _day(int(match[1]), int(match[2]), int(match[3]))
    if match := _DAY_MONTH.search(text):
        return _day(int(match[3]), _MONTHS.get(match[2][:3].lower(), 0), int(match[1]))
    if match := _MONTH_DAY.search(text):
        return _day(int(match[3]), _MONTHS.get(match[1][:3].lower(), 0), int(match[2]))
    return None


def _day(year: int, month: int, day: int) -> date | None:
    if year not in _YEARS:
        return None
    try:
        return date(year, month, day)
    except ValueError:
        return None
