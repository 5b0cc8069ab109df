"""Which part of a page is its content: cut what surrounds it, then choose the main element.

What is cut: scripts and controls, hidden elements, navigation, headers and footers of the site, asides, banners about
cookies, boxes with related links. An element whose name (class or id) sounds like one of these stays where it holds the
page's heading or most of its text: names lie.
"""

import re
from functools import lru_cache

from selectolax.lexbor import LexborHTMLParser, LexborNode

_ALWAYS_CUT = (
    "script,style,noscript,template,svg,canvas,iframe,object,embed,audio,video,button,select,textarea,input,dialog,head,"
    "nav,footer,noembed,noframes,xmp,plaintext,[hidden],[aria-hidden=true],[aria-modal=true],"
    "[role=navigation],[role=banner],[role=contentinfo],[role=complementary],[role=search],[role=dialog],"
    "[role=alertdialog],[role=menu],[role=menubar],[role=toolbar],[role=tooltip]"
)
_MAYBE_CUT = "header,aside,sup.reference,a.anchor,a.headerlink,a.skip-link,a.skip-to-content,a.sr-only"
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_MAIN_CANDIDATES = (
    "main,[role=main]",
    "article",
    "#mw-content-text,#main-content,#content,#main,#bodyContent,.markdown-body,.entry-content,.post-content,.article-body",
)
_BLOCK_START = re.compile(r"<(?:div|section|ul|ol|table|form|p|span|dl|header)\s([^<>]{0,1000})>")
_NAME_ATTRIBUTE = re.compile(r"\b(?:class|id)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_JUNK_NAME = re.compile(
    r"(?:^|[-_])(?:cookies?|consent|gdpr|nav|navbar|navbox|navigation|subnav|topnav|sidenav|breadcrumbs?|sidebar|"
    r"related|recommended|recommendations|read-?more|more-?(?:stories|articles|news|from)|share|sharing|social|advert|"
    r"adverts|advertisement|ads?|sponsored|promo|newsletter|subscribe|subscription|popup|modal|overlay|toc|"
    r"table-of-contents|footer|masthead|skip-?(?:link|links|nav|to-content|to-main)|pagination|pager|catlinks|"
    r"editsection|jump-?link|printfooter|noprint|sr-only|visually-?hidden|screen-reader-text|headerlink|paywall|"
    r"back-to-top)(?:$|[-_])"
)
_PLAIN_NAME = re.compile(r"[\w:.-]+", re.ASCII)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_MAX_CUT_SHARE = 0.5
"""An element with more of the page's text than this is content, whatever its name says."""
_MAX_NAMES = 200
_MIN_MAIN_CHARS = 100
_MIN_MAIN_SHARE = 0.25


def cut_boilerplate(parser: LexborHTMLParser, html: str) -> None:
    """Remove from the tree what is not content; `html` is the source that was parsed."""
    for node in parser.css(_ALWAYS_CUT):
        if node.tag != "body" and node.tag != "html":
            node.decompose()
    body = parser.body
    if body is None:
        return
    for node in body.css("[style]"):
        if _HIDDEN_STYLE.search(node.attributes.get("style") or ""):
            node.decompose()
    for node in body.css(_MAYBE_CUT):
        if not _keeps(node):
            node.decompose()
    selector = _junk_selector(html)
    if not selector:
        return
    most = _MAX_CUT_SHARE * len(body.text_lexbor() or "")
    for node in body.css(selector):
        if node.tag == "body" or node.css_first("h1,main,article") is not None:
            continue
        if len(node.text_lexbor() or "") <= most:
            node.decompose()


def main_element(parser: LexborHTMLParser) -> LexborNode | None:
    """The element that holds the content: the first candidate with a fair share of the text, else the body."""
    body = parser.body
    if body is None:
        return parser.root
    total = len(body.text_lexbor() or "")
    for selector in _MAIN_CANDIDATES:
        found = body.css(selector)
        if selector == "article" and len(found) > 1:
            continue  # a list of articles: the page's content is all of them
        for node in found:
            size = len(node.text_lexbor() or "")
            if size >= _MIN_MAIN_SHARE * total and size >= min(_MIN_MAIN_CHARS, total):
                return node
    return body


def _keeps(node: LexborNode) -> bool:
    """Is this header or aside part of the content? An article's own header is, and so is an infobox."""
    if node.tag == "header":
        return node.css_first("h1") is not None
    if node.tag == "aside":
        attributes = node.attributes
        name = f"{attributes.get('class')} {attributes.get('id')}".lower()
        return "infobox" in name or node.css_first("h1") is not None
    return False


def _junk_selector(html: str) -> str:
    """A selector of the names on this page that sound like boilerplate."""
    names = {name for attributes in set(_BLOCK_START.findall(html)) for name in _junk_names(attributes)}
    return ",".join(f'[class~="{name}"],[id="{name}"]' for name in sorted(names)[:_MAX_NAMES])


@lru_cache(maxsize=65536)
def _junk_names(attributes: str) -> tuple[str, ...]:
    """The classes and the id in the attributes of one tag that sound like boilerplate."""
    names = [name for groups in _NAME_ATTRIBUTE.findall(attributes) for name in "".join(groups).split()]
    return tuple(name for name in names if _is_junk(name))


def _is_junk(name: str) -> bool:
    if len(name) > 100 or not _PLAIN_NAME.fullmatch(name):
        return False
    return _JUNK_NAME.search(_CAMEL.sub("-", name).lower()) is not None
