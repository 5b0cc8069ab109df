"""Bytes of a page to text: which character set was meant.

The order is that of the WHATWG encoding standard: byte order mark, then the header, then the page's own declaration; where
none is given, UTF-8 if the bytes are valid UTF-8, else a guess. Labels map as in browsers (`latin-1` means windows-1252).
"""

import codecs
import re

from resiliparse.parse.encoding import detect_encoding

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "tis-620": "cp874",
}
"""Codec names of Python → the superset that browsers read instead."""
_HEADER_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.ASCII | re.IGNORECASE)
_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml[^>]+encoding=[\"']([\w.:-]+)", re.I)
_META_BYTES = 4096
_DETECT_BYTES = 16384


def decode(body: bytes, content_type: str | None) -> str:
    """Decode a body as a browser would; undecodable bytes become U+FFFD. Never raises."""
    for bom, name in _BOMS:
        if body.startswith(bom):
            return body[len(bom) :].decode(name, "replace")
    declared = _from_header(content_type) or _from_meta(body)
    if declared is not None:
        return body.decode(declared, "replace")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        guessed = _codec(detect_encoding(body, _DETECT_BYTES) or "")
        return body.decode(guessed or "cp1252", "replace")


def _from_header(content_type: str | None) -> str | None:
    match = _HEADER_CHARSET.search(content_type or "")
    return _codec(match[1]) if match else None


def _from_meta(body: bytes) -> str | None:
    match = _META_CHARSET.search(body, 0, _META_BYTES)
    if not match:
        return None
    name = _codec((match[1] or match[2]).decode("ascii", "replace"))
    # A declaration that could be read as ASCII cannot stand in a UTF-16 page.
    return "utf-8" if name is not None and name.startswith("utf-16") else name


def _codec(label: str) -> str | None:
    """Python's name of a character set of text, or None where the label names none."""
    try:
        info = codecs.lookup(label)
    except (LookupError, ValueError):
        return None
    if not getattr(info, "_is_text_encoding", True) or info.name in _UNSAFE:
        return None
    return _SUPERSETS.get(info.name, info.name)


_UNSAFE = frozenset({"utf-7", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})
"""Codecs that are no character sets of pages, or that browsers refuse."""
