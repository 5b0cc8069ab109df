"""Makes text that comes from a model, a page or a tool safe to show as markdown.

Clients render what they are sent, and look for tags of their own in it (`<think>`, `<details>`). Text that repeats what a hostile
page says must stay text: no HTML, no tag, no link but to the web, and no image, which a client would fetch unasked. A zero-width
space breaks what would act; nothing is lost, and a second pass changes nothing.
"""

import re
from urllib.parse import quote, urlsplit

from webdancer.agent.format import neutralise
from webdancer.agent.tools import Source

_TAG = re.compile(r"<(?=[/!?A-Za-z|｜])")
_IMAGE = re.compile(r"!(?=\[)")
_LINK = re.compile(r"\](?=\((?!https?://))", re.IGNORECASE)
_DEFINITION = re.compile(r"\](?=:(?!\s*<?https?://))", re.IGNORECASE)
_MARKS = re.compile(r"([\\`*_{}\[\]()<>#!|~&$^])")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
"""Control characters, line breaks, and marks that turn the direction of writing around."""
_KEPT_IN_URLS = "/:?#@!$&'*+,;=%~-._"
_MAX_TITLE_CHARS = 200


def inert(text: str) -> str:
    """Markdown in which no tag, image or script can be read any more; links to web pages stay."""
    text = _TAG.sub("<\u200b", neutralise(text))
    text = _IMAGE.sub("!\u200b", text)
    return _DEFINITION.sub("]\u200b", _LINK.sub("]\u200b", text))


def plain_line(text: str) -> str:
    """Text as one line of markdown that shows just this text."""
    line = " ".join(_UNSEEN.sub(" ", text).split())
    cut = line if len(line) <= _MAX_TITLE_CHARS else line[: _MAX_TITLE_CHARS - 1] + "…"
    return _MARKS.sub(r"\\\1", _TAG.sub("<\u200b", neutralise(cut)))


def source_line(source: Source) -> str:
    """A page that was read, as a link with its title; a page that is not of the web, without the link."""
    title = plain_line(source.title) or plain_line(source.url)
    if urlsplit(source.url).scheme.lower() not in ("http", "https"):
        return title
    return f"[{title}]({quote(source.url, safe=_KEPT_IN_URLS)})"
