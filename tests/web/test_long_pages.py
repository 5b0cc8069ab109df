"""A book costs what a page costs: it is read to its end within bounds, and what is handed on has a fixed size."""

import asyncio
import io
import time

import pytest
from local_site import LocalSite
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen import canvas

from webdancer.agent.passages import choose_passages
from webdancer.config import AgentSettings, CrawlSettings
from webdancer.web.live import LiveReader
from webdancer.web.protocol import ToolFailure
from webdancer.web.workers import ExtractPool

NUM_PAGES = 500
FACT = "The keeper of the lighthouse at Varn was called Odessa Quill."


def book() -> bytes:
    buffer = io.BytesIO()
    pdf = canvas.Canvas(buffer, pagesize=A4)
    for number in range(1, NUM_PAGES + 1):
        text = pdf.beginText(50, 800)
        for line in range(20):
            text.textLine(f"Entry {number}.{line} of the harbour book tells of weather, ships and the price of rope.")
        if number == 470:
            text.textLine(FACT)
        pdf.drawText(text)
        pdf.showPage()
    pdf.save()
    return buffer.getvalue()


BOOK = book()


async def test_a_book_of_500_pages_is_read_to_its_end_and_handed_on_as_a_page() -> None:
    """Pages behind the sixtieth were not read."""
    limit = AgentSettings().max_page_chars
    async with LocalSite({"/book.pdf": (200, {"Content-Type": "application/pdf"}, BOOK)}) as site:
        settings = CrawlSettings(resolve={"site.example": site.address}, timeout_s=60.0)
        async with LiveReader(settings, cache_s=600) as reader:
            page = await reader.read("http://site.example/book.pdf")
    assert len(page.text) > 20 * limit
    started = time.process_time()
    shown = choose_passages(page.text, "Who was the keeper of the lighthouse?", max_chars=limit)
    assert time.process_time() - started < 2.0
    assert FACT in shown
    assert len(shown) <= limit


async def test_a_book_that_takes_too_long_is_a_failure_and_its_worker_is_free_again() -> None:
    async with LocalSite({"/book.pdf": (200, {"Content-Type": "application/pdf"}, BOOK)}) as site:
        site.pages["/a"] = (200, {"Content-Type": "text/plain"}, b"short")
        settings = CrawlSettings(resolve={"site.example": site.address})
        reader = LiveReader(settings, cache_s=0)
        reader._pool = ExtractPool(num_workers=1, timeout_s=0.05)
        async with reader, asyncio.timeout(20):
            with pytest.raises(ToolFailure, match=r"its text could not be read \(extract_timeout\)"):
                await reader.read("http://site.example/book.pdf")
            reader._pool._timeout_s = 30.0
            assert (await reader.read("http://site.example/a")).text == "short"
