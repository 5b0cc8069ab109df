"""One spelling per page: canonical URLs, and the pattern of a URL.

w3lib normalises escapes, dot segments and the order of the query; yarl the host (IDNA, case) and the port. Neither does
all of it alone, so both run until nothing changes any more. On top of them go the parameters that name a visitor or a
campaign rather than a page. The paper says nothing of URLs; a crawl that takes each page once needs them.
"""

import re
from functools import lru_cache
from urllib.parse import urljoin

from w3lib.url import canonicalize_url
from yarl import URL

_MAX_ROUNDS = 5
_CONTROLS = "".join(map(chr, range(0x21)))
_TRACKING_PREFIXES = ("utm_", "aspsessionid")
_CAMPAIGNS = (
    "gclid",
    "gclsrc",
    "dclid",
    "gbraid",
    "wbraid",
    "fbclid",
    "msclkid",
    "yclid",
    "mc_cid",
    "mc_eid",
    "igshid",
)
_SESSIONS = ("sid", "sessid", "sessionid", "session_id", "phpsessid", "jsessionid", "cfid", "cftoken", "_ga", "_gl")
_TRACKING = frozenset({*_CAMPAIGNS, *_SESSIONS})
_SESSION_IN_PATH = re.compile(r";jsessionid=[^/?;]*", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9_.-]+|\[?[0-9a-f:.]+\]?")
_DIGITS = re.compile(r"\d+")
_OTHER_SCHEME = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def canonical_url(url: str, base: str | None = None) -> str | None:
    """The one spelling of a page's address, or None where `url` is not the address of an http(s) page.

    Drops the fragment, default ports, tracking and session parameters; normalises case of scheme and host, escapes and
    dot segments; sorts the query. A URL that carries a user name or password is not a page's address. Idempotent; never
    raises. Relative URLs are resolved against `base` (RFC 3986, section 5).
    """
    url = url.strip(_CONTROLS)
    if "\n" in url or "\r" in url or "\t" in url:
        url = url.replace("\n", "").replace("\r", "").replace("\t", "")
    url = url.partition("#")[0]
    if base is None:
        return _canonical(url)
    if not url:
        return canonical_url(base)
    return _resolved(url, base if url.startswith("?") else _directory(base))


def url_pattern(url: str) -> str:
    """A canonical URL with runs of digits folded to `0` and the query's values dropped, as limits for traps count it.

    The host stays as it is.
    """
    address, _, query = url.partition("?")
    slash = address.find("/", 8)
    address = address[:slash] + _DIGITS.sub("0", address[slash:])
    if not query:
        return address
    return address + "?" + "&".join(_DIGITS.sub("0", pair.partition("=")[0]) for pair in query.split("&"))


def max_segment_repeats(url: str) -> int:
    """How often the most frequent segment of the path occurs in it (0: the path is empty)."""
    segments = [segment for segment in url.partition("?")[0].split("/")[3:] if segment]
    return max((segments.count(segment) for segment in set(segments)), default=0)


@lru_cache(maxsize=1024)
def _directory(base: str) -> str:
    """What relative URLs other than `?…` are resolved against: the base up to its last slash.

    Pages of one folder share it, so that their common links are resolved once.
    """
    address = base.partition("#")[0].partition("?")[0]
    scheme, separator, rest = address.partition("://")
    if not separator:
        return base
    return f"{scheme}://{rest.rpartition('/')[0] or rest}/"


@lru_cache(maxsize=65536)
def _resolved(url: str, base: str) -> str | None:
    if _OTHER_SCHEME.match(url):
        return None
    try:
        return _canonical(urljoin(base, url))
    except ValueError:  # a bracketed host that is no IPv6 address
        return None


@lru_cache(maxsize=65536)
def _canonical(url: str) -> str | None:
    if not url[:8].lower().startswith(("http://", "https://")):
        return None
    for _ in range(_MAX_ROUNDS):
        try:
            after = _round(url)
        except (ValueError, UnicodeError, IndexError):  # w3lib and yarl raise these on hosts, ports and lone surrogates
            return None
        if after is None or after == url:
            return after
        url = after
    return None


def _round(url: str) -> str | None:
    """One pass of normalisation."""
    parsed = URL(canonicalize_url(url))
    host = (parsed.raw_host or "").rstrip(".").lower()
    if parsed.scheme not in ("http", "https") or parsed.raw_user or parsed.raw_password or not _HOST.fullmatch(host):
        return None
    port = parsed.explicit_port
    if port == 0:
        return None
    authority = f"[{host}]" if ":" in host else host
    if port is not None and port != {"http": 80, "https": 443}[parsed.scheme]:
        authority += f":{port}"
    path = _SESSION_IN_PATH.sub("", parsed.raw_path) or "/"
    query = "&".join(pair for pair in parsed.raw_query_string.split("&") if not _is_tracking(pair))
    return f"{parsed.scheme}://{authority}{path}" + (f"?{query}" if query else "")


def _is_tracking(pair: str) -> bool:
    name = pair.partition("=")[0].lower()
    return name in _TRACKING or name.startswith(_TRACKING_PREFIXES)
