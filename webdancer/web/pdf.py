"""Text of PDF files, within limits of size, pages and time."""

import io
import logging
import re
import time
from datetime import date
from typing import NamedTuple

import pypdf

from webdancer.web.layout import clean
from webdancer.web.metadata import parse_date

log = logging.getLogger(__name__)
logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it reports every flaw of a damaged file

_MAX_BYTES = 20_000_000
_MAX_PAGES = 2000
_MAX_SECONDS = 10.0
"""Looked at between two pages."""
_MAX_CHARS = 2_000_000
_FULL_LINE_SHARE = 0.7
"""A line with less than this share of the longest line's length ends its paragraph."""
_SHORT_LINE_SHARE = 0.4
_MIN_FULL_LINE = 40
_SENTENCE_END = re.compile(r"[.!?:;。！？][\"')\]”]*$")
_HYPHEN = re.compile(r"[a-z]-$")


class PdfText(NamedTuple):
    """What was read of a PDF file."""

    title: str
    text: str
    uris: tuple[str, ...]
    published: date | None


def extract_pdf(body: bytes) -> PdfText:
    """Title, text, links and creation date of a PDF file. Never raises: of a damaged file, what could be read."""
    if len(body) > _MAX_BYTES:
        log.info("a PDF of %d bytes is not read: the limit is %d", len(body), _MAX_BYTES)
        return PdfText("", "", (), None)
    title, published = "", None
    paragraphs: list[str] = []
    uris: dict[str, None] = {}
    try:
        reader = pypdf.PdfReader(io.BytesIO(body), strict=False)
        if reader.metadata is not None:
            title = clean(" ".join(str(reader.metadata.title or "").split()))
            published = parse_date(str(reader.metadata.get("/CreationDate") or "").removeprefix("D:"))
        _read_pages(reader, paragraphs, uris)
    except Exception as error:  # pypdf raises a dozen kinds on damaged files; the item ends here with what was read
        log.info("a PDF could be read only in part: %s: %s", type(error).__name__, error)
    text = "\n".join(paragraphs)
    if not title or title.lower() in ("untitled", "anonymous"):
        title = paragraphs[0][:200] if paragraphs else ""
    return PdfText(title, text, tuple(uris), published)


def _read_pages(reader: pypdf.PdfReader, paragraphs: list[str], uris: dict[str, None]) -> None:
    """Append what the pages hold, until a limit is reached."""
    deadline = time.monotonic() + _MAX_SECONDS
    num_chars = 0
    for number, page in enumerate(reader.pages):
        if number >= _MAX_PAGES or num_chars > _MAX_CHARS or time.monotonic() > deadline:
            log.info("a PDF is read up to page %d only", number)
            return
        for paragraph in reflow(clean(page.extract_text()).split("\n")):
            paragraphs.append(paragraph)
            num_chars += len(paragraph)
        for annotation in page.annotations or ():
            action = annotation.get_object().get("/A")
            uri = action.get_object().get("/URI") if action is not None else None
            if uri is not None:
                uris[str(uri)] = None


def reflow(lines: list[str]) -> list[str]:
    """Join the lines of a printed page to paragraphs, so that no sentence is cut in two.

    A line goes on where it is nearly as long as the longest, unless it ends a sentence and the next one is short (a heading,
    as a rule); or where the next one opens in lower case. A word cut by a hyphen is joined.
    """
    lines = [" ".join(line.split()) for line in lines]
    longest = max(map(len, lines), default=0)
    paragraphs: list[str] = []
    before = ""
    for line in lines:
        if line and before and _goes_on(before, line, longest):
            last = paragraphs[-1]
            paragraphs[-1] = last[:-1] + line if _HYPHEN.search(last) and line[0].islower() else f"{last} {line}"
        elif line:
            paragraphs.append(line)
        before = line
    return paragraphs


def _goes_on(line: str, following: str, longest: int) -> bool:
    if following[0].islower():
        return True
    if longest < _MIN_FULL_LINE or len(line) < _FULL_LINE_SHARE * longest:
        return False
    return _SENTENCE_END.search(line) is None or len(following) >= _SHORT_LINE_SHARE * longest
