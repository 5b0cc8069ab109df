"""A response's body to title, main text, links and date: what the crawler stores of a page.

The paper's section 2 collects pages of knowledge sites and hands their text to a question writer; how text is won from
them it does not say. Here: selectolax parses, boilerplate is cut, the rest is laid out as `records.Page.text` tells.
Where that leaves suspiciously little of a page, resiliparse and, on small pages, trafilatura are asked as well.
"""

import json
import logging
import re
from dataclasses import dataclass
from datetime import date

from resiliparse.extract.html2text import extract_plain_text
from selectolax.lexbor import LexborHTMLParser

from webdancer.web.boilerplate import cut_boilerplate, main_element
from webdancer.web.charset import decode
from webdancer.web.layout import clean, html_to_text
from webdancer.web.metadata import declared_date, page_title, shown_date
from webdancer.web.urls import canonical_url

log = logging.getLogger(__name__)

_MAX_HTML_CHARS = 8_000_000
_MAX_LINKS = 5000
_SHORT_CHARS = 250
"""Main text below this is suspicious where the whole page has much more."""
_SUSPICIOUS_RATIO = 4
_MAX_TRAFILATURA_CHARS = 60_000
"""trafilatura needs up to 20 s for a large page, and cannot be interrupted."""
_MAX_TRAFILATURA_TAGS = 1500
_NO_TEXT_CHARS = 40
_MAX_DEPTH = 2000
"""Elements within elements; parsing takes time with the square of it. What stands deeper is cut off."""
_MAX_UNCHECKED_TAGS = 8000
_CHUNK_CHARS = 8192
_MAX_RESILIPARSE_TAGS = 3000
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")
)
_CLOSED_BY_NEXT = frozenset(("dd", "dt", "li", "option", "p", "tbody", "td", "tfoot", "th", "thead", "tr"))
_NOT_NESTING = _VOID | _CLOSED_BY_NEXT
"""Elements without content, and those whose closing tag may be left out."""
_HTML_START = re.compile(
    rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|title|meta|div|p|h1|table|!--|\?xml)", re.I
)
_BINARY_STARTS = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"\x7fELF",
    b"\x28\xb5\x2f\xfd",
)
"""Of gzip, zip, images, programs and zstd, which some servers call text."""
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_TEXT_TYPES = ("text/plain", "text/markdown", "text/x-rst", "text/csv")


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was won from one body."""

    title: str
    text: str
    """Laid out as `records.Page.text`."""
    links: tuple[str, ...]
    """Absolute, canonical URLs in the order of the page, each once, from the whole page; without rel=nofollow."""
    published: date | None
    needs_javascript: bool
    """The page has scripts and, unless they run, no text."""


EMPTY = Extracted(title="", text="", links=(), published=None, needs_javascript=False)


def extract(body: bytes, *, url: str, content_type: str | None) -> Extracted:
    """Title, main text, links and date of a page: HTML, plain text, JSON or PDF. Never raises; other types give `EMPTY`.

    Args:
        body: the body after content decoding.
        url: the page's own address, which relative links are resolved against.
        content_type: the header as received, or None; then the body is looked at.
    """
    kind = _kind(body, content_type)
    if kind == "html":
        return _from_html(_cut_deep(decode(body, content_type)[:_MAX_HTML_CHARS]), url)
    if kind == "pdf":
        from webdancer.web.pdf import (
            extract_pdf,
        )  # pypdf and trafilatura take 0.1 s each to import; few pages need them

        pdf = extract_pdf(body)
        links = dict.fromkeys(link for uri in pdf.uris if (link := canonical_url(uri, url)))
        return Extracted(pdf.title, pdf.text, tuple(links), pdf.published, needs_javascript=False)
    if kind == "json":
        return _from_json(decode(body, content_type)[:_MAX_HTML_CHARS])
    if kind == "text":
        lines = [line.rstrip() for line in clean(decode(body, content_type)).splitlines()]
        lines = [line for line in lines if line]
        title = lines[0].lstrip("# ")[:200] if lines else ""
        return Extracted(title, "\n".join(lines), (), None, needs_javascript=False)
    return EMPTY


def _kind(body: bytes, content_type: str | None) -> str | None:
    """`html`, `pdf`, `json`, `text`, or None: nothing that we read."""
    declared = (content_type or "").partition(";")[0].strip().lower()
    start = body[:1024]
    if start.lstrip().startswith(b"%PDF-"):
        return "pdf"
    if start.startswith(_BINARY_STARTS):
        return None
    if declared in _HTML_TYPES:
        return "html"
    if declared == "application/json" or (declared.startswith("application/") and declared.endswith("+json")):
        return "json"
    if declared in _TEXT_TYPES:
        return "text" if b"\0" not in start else None
    if declared and declared != "application/octet-stream":
        return None
    if _HTML_START.match(start):
        return "html"
    return "text" if start and not declared and b"\0" not in start else None


def _from_json(text: str) -> Extracted:
    """JSON with a member a line, as it is where it cannot be parsed; its title is a member of that name."""
    title = ""
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            named = (value.get(name) for name in ("title", "name", "headline"))
            title = next((" ".join(clean(name).split())[:200] for name in named if isinstance(name, str)), "")
        text = json.dumps(value, ensure_ascii=False, indent=1)
    except (ValueError, RecursionError):
        pass
    lines = [line.rstrip() for line in clean(text.encode("utf-8", "replace").decode()).splitlines()]
    return Extracted(title, "\n".join(line for line in lines if line), (), None, needs_javascript=False)


def _cut_deep(html: str) -> str:
    """HTML up to where its elements nest absurdly deep."""
    if html.count("<") <= _MAX_UNCHECKED_TAGS or _is_shallow(html):
        return html
    depth = 0
    for tag in _TAG.finditer(html):
        closing, name = tag.groups()
        if name.lower() not in _NOT_NESTING:
            depth = max(0, depth - 1) if closing else depth + 1
            if depth > _MAX_DEPTH:
                return html[: tag.start()]
    return html


def _is_shallow(html: str) -> bool:
    """Whether counting tags chunk by chunk, much cheaper than looking at each, already bounds the depth.

    No chunk can bring more depth than it opens elements; tags that never close make the bound larger than the truth.
    """
    depth = 0
    for start in range(0, len(html), _CHUNK_CHARS):
        end = start + _CHUNK_CHARS
        num_closing = html.count("</", start, end)
        num_opening = html.count("<", start, end) - num_closing
        if depth + num_opening > _MAX_DEPTH:
            return False
        depth = max(0, depth + num_opening - num_closing)
    return True


def _from_html(html: str, url: str) -> Extracted:
    parser = LexborHTMLParser(html)
    links = _links(parser, url)
    has_scripts = parser.css_first("script:not([type*=json])") is not None
    published = declared_date(parser, html)
    title = page_title(parser)
    cut_boilerplate(parser, html)
    text = ""
    main = main_element(parser)
    if main is not None:
        text = html_to_text(main.html or "")
        if published is None and ("<time" in html or "datePublished" in html):
            published = shown_date(main)
    if len(text) < _SHORT_CHARS:
        text = _second_opinion(html, text)
    needs_javascript = has_scripts and len(text) < _NO_TEXT_CHARS
    if title and text and not any(line.startswith("# ") for line in text.split("\n", 3)[:3]):
        text = f"# {title}\n{text}"
    return Extracted(title, text, links, published, needs_javascript)


def _links(parser: LexborHTMLParser, url: str) -> tuple[str, ...]:
    base_node = parser.css_first("base[href]")
    base = url
    if base_node is not None:
        base = canonical_url(base_node.attributes.get("href") or "", url) or url
    found: dict[str, None] = {}
    for node in parser.css("a[href],area[href]"):
        attributes = node.attributes
        href = attributes.get("href")
        if not href or href[0] == "#" or "nofollow" in (attributes.get("rel") or "").lower():
            continue
        link = canonical_url(href, base)
        if link is not None:
            found[link] = None
            if len(found) >= _MAX_LINKS:
                break
    return tuple(found)


def _second_opinion(html: str, text: str) -> str:
    """Other extractors' reading of a page of which ours found little, where theirs is much longer."""
    if html.count("<") > _MAX_RESILIPARSE_TAGS:
        return text
    whole = extract_plain_text(html, main_content=True)
    if len(whole) < _SUSPICIOUS_RATIO * max(len(text), 20):
        return text
    if len(html) <= _MAX_TRAFILATURA_CHARS and html.count("<") <= _MAX_TRAFILATURA_TAGS:
        import trafilatura

        read = trafilatura.extract(html, fast=True, include_tables=True)
        if read and len(read) * 2 > len(whole):
            return clean(read)
    return clean("\n".join(line.strip() for line in whole.splitlines() if line.strip()))
