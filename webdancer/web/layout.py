"""HTML of a page's main content to the text layout of `records.Page.text`.

One pass over the tags of a serialised tree (so every tag is closed and every `<` in text is escaped):

    <h2>Life</h2><ul><li>A</li></ul><table><tr><th>Born</th><td>1950</td></tr></table>

becomes

    ## Life
    - A
    Born | 1950

Inline tags vanish. Rows of a table become lines of cells, unless the table only lays out other blocks. Lines of
preformatted text are indented by four spaces, so that a shell comment does not read as a heading.
"""

import re

_BLOCKS = (
    "address|article|aside|blockquote|body|br|caption|center|dd|details|dir|div|dl|dt|fieldset|figcaption|figure|footer|form|"
    "h[1-6]|header|hr|html|legend|li|main|menu|nav|ol|p|pre|section|summary|table|tbody|td|tfoot|th|thead|tr|ul"
)
_INLINE_TAG = re.compile(rf"<!--.*?-->|<(?!/?(?:{_BLOCKS})[\s>])[^>]*>", re.DOTALL)
_BLOCK_TAG = re.compile(rf"<(/?)({_BLOCKS})(?:\s[^>]*)?>")
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\xad\u200b-\u200f\u2028-\u202e\u2060\ufeff\ufffe\uffff]")
_MAX_LABEL_CHARS = 60
"""A longer term of a definition list stands on its own line."""


def html_to_text(html: str) -> str:
    """Lay out serialised HTML (as `LexborNode.html` gives it) as lines of text, without empty lines."""
    parts = _BLOCK_TAG.split(_INLINE_TAG.sub("", clean(html).replace("&nbsp;", " ")))
    writer = _LineWriter()
    writer.buffer.append(parts[0])
    for index in range(1, len(parts), 3):
        closing, tag, text = parts[index : index + 3]
        if closing:
            writer.close_tag(tag)
        else:
            writer.open_tag(tag, text)
        if text:
            writer.buffer.append(text)
    writer.flush()
    return "\n".join(writer.lines).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def clean(text: str) -> str:
    """Drop characters that show nothing: controls, soft hyphens, zero-width marks."""
    return _INVISIBLE.sub("", text) if not text.isascii() or not text.isprintable() else text


class _LineWriter:
    """Collects text into lines; the state of one pass."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.buffer: list[str] = []
        self.prefix = ""
        self.row: list[str] | None = None
        self.in_cell = False
        self.in_pre = False
        self.after_term = False

    def flush(self) -> None:
        """End the current line."""
        self.after_term = False
        if self.buffer:
            line = " ".join("".join(self.buffer).split())
            self.buffer.clear()
            if line:
                self.lines.append(self.prefix + line)
                self.prefix = ""

    def open_tag(self, tag: str, text: str) -> None:
        """Act on an opening tag; `text` is what follows it up to the next tag."""
        if self.in_pre:
            self.buffer.append("\n")
        elif self.in_cell:
            self._open_in_cell(tag)
        elif tag == "tr":
            self.flush()
            self.row, self.prefix = [], ""
        elif tag in ("td", "th"):
            self.flush()
            self.in_cell = self.row is not None
        elif tag == "br":
            if self.prefix.startswith("#"):
                self.buffer.append(" ")
            else:
                self.flush()
        elif tag == "dd" and self.after_term and text.strip() and self._label_is_short():
            self.buffer.append(" | ")
            self.after_term = False
        else:
            self.flush()
            self._open_block(tag)

    def _open_block(self, tag: str) -> None:
        if tag == "li":
            self.prefix = "- "
        elif tag[0] == "h" and tag[-1].isdigit():
            self.prefix = "#" * int(tag[1]) + " "
        elif tag == "pre":
            self.in_pre = True

    def _open_in_cell(self, tag: str) -> None:
        if tag in ("table", "pre") or (tag[0] == "h" and tag[-1].isdigit()):
            self._leave_row()  # a table that lays out blocks
            self._open_block(tag)
        elif tag in ("li", "br"):
            if "".join(self.buffer).strip():
                self.buffer.append(", ")
        else:
            self.buffer.append(" ")

    def close_tag(self, tag: str) -> None:
        """Act on a closing tag."""
        if self.in_pre:
            if tag == "pre":
                self._end_pre()
        elif tag in ("td", "th"):
            if self.in_cell and self.row is not None:
                cell = " ".join("".join(self.buffer).split())
                self.buffer.clear()
                self.row.append(cell.rstrip(", ").replace(" ,", ","))
                self.in_cell = False
            else:
                self.flush()
        elif tag == "tr":
            self._end_row()
        elif self.in_cell:
            self.buffer.append(" ")
        elif tag == "dt":
            self.after_term = True
        else:
            self.flush()
            self.prefix = ""

    def _end_pre(self) -> None:
        self.in_pre = False
        for line in "".join(self.buffer).split("\n"):
            if line.strip():
                self.lines.append("    " + line.rstrip())
        self.buffer.clear()

    def _leave_row(self) -> None:
        self._end_row()
        self.in_cell = False
        self.flush()

    def _end_row(self) -> None:
        if self.row is not None:
            line = " | ".join(self.row).rstrip(" |")
            if line:
                self.lines.append(line)
        self.row = None

    def _label_is_short(self) -> bool:
        return 0 < len("".join(self.buffer).strip()) <= _MAX_LABEL_CHARS
