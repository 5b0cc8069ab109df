"""PDF files of papers: title, authors, a few sentences; the only place that names the funder and the number of samples."""

import io

from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import simpleSplit
from reportlab.pdfgen.canvas import Canvas

_MARGIN, _WIDTH = 50, A4[0] - 100
_FONT, _SIZE, _LEADING = "Helvetica", 9, 12.5


def write_pdf(title: str, author_line: str, paragraphs: list[str]) -> bytes:
    """One page of A4, the same bytes for the same text.

    Args:
        paragraphs: plain text; one that opens with `# ` is a heading.
    """
    target = io.BytesIO()
    canvas = Canvas(target, pagesize=A4, invariant=1)
    canvas.setTitle(title)
    canvas.setAuthor(author_line)
    y = A4[1] - 70.0
    for text, size, font in [(title, 14, "Helvetica-Bold"), (author_line, 10, _FONT), *map(_style, paragraphs)]:
        for line in simpleSplit(text, font, size, _WIDTH):
            canvas.setFont(font, size)
            canvas.drawString(_MARGIN, y, line)
            y -= _LEADING * size / _SIZE
        y -= 8
    canvas.showPage()
    canvas.save()
    return target.getvalue()


def _style(text: str) -> tuple[str, int, str]:
    if text.startswith("# "):
        return text[2:], 11, "Helvetica-Bold"
    return text, _SIZE, _FONT
