"""Bytes that look like pages and are none: the extractor never raises, takes its time within bounds, and gives clean text."""

import contextlib
import gzip
import io
import random
import time
from collections.abc import Callable

import pytest
from local_site import LocalSite
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen import canvas

from webdancer.config import CrawlSettings
from webdancer.web.extract import extract
from webdancer.web.live import LiveReader
from webdancer.web.protocol import ToolFailure

NUM_HTML = 500
NUM_PDF = 250
HTML = (
    "<!doctype html><html lang=de><head><meta charset=utf-8><title>Fähre &amp; Fluß</title>"
    '<meta property="article:published_time" content="2021-03-04"><base href="/b/"></head><body><nav><a href=x>n</a></nav>'
    "<main><h1>Die Fähre</h1><p>Ein Absatz, der lang genug ist, um für den Text einer Seite gehalten zu werden.</p>"
    "<table><tr><th>Jahr</th><td>1931</td></tr></table><ul><li>eins<li>zwei</ul><pre> code\n# x</pre>"
    '<a href="http://a.example/?q=1&amp;r=%C3%BC#f">l</a><script>var a = "<p>";</script><!-- c --><svg><g/></svg></main>'
).encode()
HTML_BITS = [
    *(
        b"<",
        b">",
        b"</",
        b"<!--",
        b"-->",
        b"<![CDATA[",
        b"&#x110000;",
        b"&#0;",
        b"&#xd800;",
        b"\x00",
        b"\xff\xfe",
        b"\xed\xa0\x80",
    ),
    *(
        b"<table><table>",
        b"<p" * 50,
        b"<div>" * 300,
        b"</body>",
        b"<plaintext>",
        b"<svg><style>",
        b"<template>",
        b"<math><mi>",
    ),
    *(
        b"<select><option>",
        b"<title>",
        b"<textarea>",
        b"<meta charset=utf-16>",
        b"<meta charset=gb18030>",
        b"<base href='http://[/'>",
    ),
    *(
        b"<a href='http://[::1/'>x</a>",
        b"<a href='javascript:0'>",
        b"<time datetime='9999-99-99'>",
        b"<br/>" * 100,
        b"'\"=",
        "　。".encode(),
    ),
]


def pdf_bytes() -> bytes:
    buffer = io.BytesIO()
    page = canvas.Canvas(buffer, pagesize=A4, pageCompression=0)
    page.setTitle("A report")
    for number in range(3):
        page.drawString(50, 800, f"Page {number}: the ferry of Varn was built in 1931.")
        page.linkURL("http://a.example/", (50, 790, 200, 810))
        page.showPage()
    page.save()
    return buffer.getvalue()


PDF = pdf_bytes()
PDF_BITS = [
    *(
        b"/Length 99999999",
        b"/Length -1",
        b"endobj",
        b"obj",
        b"<<",
        b">>",
        b"stream\n",
        b"endstream",
        b"xref",
        b"0000000000",
    ),
    *(
        b"/Filter /FlateDecode",
        b"/Filter [/LZWDecode /ASCII85Decode]",
        b"/Kids [1 0 R]",
        b"/Prev 0",
        b"9999 0 R",
        b"1 0 R",
        b"[" * 200,
    ),
    *(
        b"(" * 200,
        b"/Count 99999999",
        b"startxref\n0",
        b"%%EOF",
        b"\x00" * 20,
        b"/Type /ObjStm",
        b"BT",
        b"Tj",
        b"' ' Tf",
    ),
]


def mutated(rng: random.Random, data: bytes, bits: list[bytes]) -> bytes:
    """A few random edits: bytes flipped, pieces cut, doubled, moved, or put in from a list."""
    page = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 12))):
        at, end = sorted((rng.randrange(len(page) + 1), rng.randrange(len(page) + 1)))
        kind = rng.randrange(6)
        if kind == 0 and at < len(page):
            page[at] = rng.randrange(256)
        elif kind == 1:
            del page[at : min(end, at + 200)]
        elif kind == 2:
            page[at:at] = page[at:end] * rng.choice((1, 3))
        elif kind == 3:
            page[at:at] = rng.choice(bits) * rng.choice((1, 1, 20))
        elif kind == 4:
            page[at:at] = rng.randbytes(rng.randrange(1, 60))
        elif rng.random() < 0.2:
            del page[at:]
        del page[60_000:]
    return bytes(page)


def check(body: bytes, content_type: str | None, number: int) -> str:
    started = time.monotonic()
    found = extract(body, url="http://h.example/a/b", content_type=content_type)
    assert time.monotonic() - started < 15.0, f"case {number} takes too long"
    for text in (found.title, found.text, *found.links):
        text.encode()  # no lone surrogates: they break every file and prompt behind
        assert "\x00" not in text, f"case {number}"
    assert "\n" not in found.title
    assert all(link.startswith(("http://", "https://")) for link in found.links)
    return found.text


TYPES = ("text/html", "text/html; charset=gb18030", "application/xhtml+xml", "text/plain", "application/json", None)


def test_mutated_html_never_breaks_the_reader() -> None:
    rng = random.Random(20250522)
    num_with_text = 0
    for number in range(NUM_HTML):
        num_with_text += bool(check(mutated(rng, HTML, HTML_BITS), rng.choice(TYPES), number))
    assert num_with_text > NUM_HTML / 2  # the edits are small: most pages can still be read


def test_mutated_pdfs_never_break_the_reader() -> None:
    rng = random.Random(7)
    num_with_text = 0
    for number in range(NUM_PDF):
        num_with_text += bool(check(mutated(rng, PDF, PDF_BITS), "application/pdf", number))
    assert num_with_text > NUM_PDF / 3


@pytest.mark.parametrize(
    "make",
    [lambda rng: rng.randbytes(3000), lambda rng: gzip.compress(HTML), lambda rng: b"%PDF-1.7\n" + rng.randbytes(3000)],
)
def test_noise_is_no_page(make: Callable[[random.Random], bytes]) -> None:
    rng = random.Random(3)
    for number in range(20):
        check(make(rng), rng.choice((*TYPES, "application/pdf")), number)


async def test_mutated_pages_through_the_reader_are_pages_or_failures() -> None:
    rng = random.Random(11)
    num_pages = 0
    async with LocalSite() as site:
        for number in range(60):
            data, bits, kind = rng.choice([(HTML, HTML_BITS, "text/html"), (PDF, PDF_BITS, "application/pdf")])
            site.pages[f"/{number}"] = (200, {"Content-Type": kind}, mutated(rng, data, bits))
        settings = CrawlSettings(resolve={"site.example": site.address}, obey_robots=False)
        async with LiveReader(settings, cache_s=0) as reader:
            for number in range(60):
                with contextlib.suppress(ToolFailure):
                    num_pages += bool((await reader.read(f"http://site.example/{number}")).text)
    assert num_pages > 20
    assert len(site.requests) == 60
