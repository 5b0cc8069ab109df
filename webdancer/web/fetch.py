"""One HTTP exchange at a time, with every limit that a hostile or broken server calls for.

A fetch ends as a page, as a redirect, or with a typed problem; it raises nothing for what a server does. Everything that
is fetched of the web, by crawls and by visits, is fetched here: `web.addresses` says what may be asked, `web.resolver` sees
to it. The paper assumes a browser; pages that need one are noticed by `web.extract`.
"""

import re
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from webdancer.config import CrawlSettings
from webdancer.errors import ConfigError
from webdancer.web.addresses import Refusal, Refused, is_misspelt, parse_authority, policy_of
from webdancer.web.resolver import CheckedResolver, RefusedAddressError
from webdancer.web.urls import canonical_url

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEXT_TYPES = frozenset({"application/xml", "application/xhtml+xml", "application/json", "application/pdf"})
_DOWNLOADS = frozenset({"application/octet-stream", "binary/octet-stream", "application/force-download"})
_NOT_PAGES = frozenset({"text/css", "text/javascript", "text/ecmascript", "text/calendar", "text/vcard"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token (RFC 9110, section 5.6.2)."""
_SECRET_HEADER = re.compile(r"auth|cookie|key|secret|session|token", re.IGNORECASE)
"""A header of such a name may let its reader in; it is sent to the hosts that the settings name, and to no others."""
_ABSOLUTE = re.compile(r"\s*(?:[a-zA-Z][a-zA-Z0-9+.-]*:|//)")
_REQUEST_TARGET = re.compile(r"[!-~]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_MIN_BOMB_BYTES = 1_000_000
"""A body smaller than this is never called a bomb, however well it compresses."""
_MAX_DRAINED_BYTES = 65_536
"""Largest body of an error or a redirect that is read, and thrown away, to keep its connection."""


class FetchProblem(StrEnum):
    """Why a fetch gave no page."""

    INVALID_URL = "invalid_url"
    DNS = "dns"
    CONNECTION = "connection"
    TLS = "tls"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"
    TRUNCATED = "truncated"
    NOT_FOUND = "not_found"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    UNSUPPORTED_TYPE = "unsupported_type"
    BAD_ENCODING = "bad_encoding"
    TOO_LARGE = "too_large"
    COMPRESSION_BOMB = "compression_bomb"
    BAD_REDIRECT = "bad_redirect"
    REDIRECT_LOOP = "redirect_loop"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    OUT_OF_SCOPE = "out_of_scope"
    PRIVATE_ADDRESS = "private_address"
    """The host is not one that the settings name, and its address belongs to this machine or its network."""
    REFUSED_PORT = "refused_port"
    """The port is one of another service, and the host is not one that the settings name."""


_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())

TRANSIENT = frozenset({FetchProblem.CONNECTION, FetchProblem.TRUNCATED, FetchProblem.SERVER_ERROR})
"""Problems that a second try may not meet."""

CheckHop = Callable[[str], Awaitable[FetchProblem | None]]
"""Asked before a redirect is followed; a problem ends the fetch."""


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What came of one fetch."""

    url: str
    """The address that answered: after redirects, the last one."""
    status: int = 0
    """0: no answer."""
    headers: CIMultiDictProxy[str] = field(default_factory=lambda: _NO_HEADERS)
    raw: bytes = b""
    """The body as received, without chunking but with its content encoding."""
    body: bytes = b""
    """The body after content decoding."""
    redirects: tuple[tuple[str, str], ...] = ()
    """(from, to) of each redirect followed, in order."""
    problem: FetchProblem | None = None
    detail: str = ""
    location: str | None = None
    """Canonical target where this is a redirect that was not followed."""


class Fetcher:
    """Fetches pages over HTTP under the limits of the settings. Used as an async context manager.

    Cookies are not kept, so that a page does not depend on what was fetched before it; proxies, passwords and whatever
    else the environment holds are left alone.

    Args:
        dns: resolves names; None: the system's resolver. What it answers is judged either way.

    Raises:
        ConfigError: a header of the settings cannot be sent, or `allow_private` or `resolve` has a wrong entry.
    """

    def __init__(self, settings: CrawlSettings, *, dns: AbstractResolver | None = None) -> None:
        self._settings = settings
        self.policy = policy_of(settings)
        self._dns = dns
        self._session: aiohttp.ClientSession | None = None
        self._headers = CIMultiDict(
            {
                "Accept": "text/html,application/xhtml+xml,application/pdf;q=0.9,text/*;q=0.9,*/*;q=0.5",
                "Accept-Encoding": "gzip, deflate",
            }
        )
        self._secret_headers: CIMultiDict[str] = CIMultiDict()
        for name, value in {"User-Agent": settings.user_agent, **settings.headers}.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigError(f"crawl: got the header {name!r}: {value!r}, expected an HTTP header on one line")
            (self._secret_headers if _SECRET_HEADER.search(name) else self._headers)[name] = value

    @property
    def user_agent(self) -> str:
        """The name that servers are given."""
        return self._headers["User-Agent"]

    async def __aenter__(self) -> Self:
        resolver = CheckedResolver(self._settings.resolve, self.policy, dns=self._dns)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=resolver, socket_factory=resolver.new_socket, limit=0, ttl_dns_cache=300
            ),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            headers=self._headers,
            auto_decompress=False,
            max_line_size=16_384,
            max_field_size=65_536,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def fetch(self, url: str, *, check_hop: CheckHop | None = None, any_type: bool = False) -> FetchResult:
        """Fetch a page, following up to `max_redirects` redirects; `check_hop` is asked before each of them.

        With `any_type` a body is read whatever its content type says.
        """
        hops: list[tuple[str, str]] = []
        while True:
            result = replace(await self.fetch_one(url, any_type=any_type), redirects=tuple(hops))
            target = result.location
            if target is None:
                return result
            hops.append((url, target))
            if any(target == source for source, _ in hops):
                return replace(result, problem=FetchProblem.REDIRECT_LOOP, detail=target, location=None)
            if len(hops) > self._settings.max_redirects:
                return replace(result, problem=FetchProblem.TOO_MANY_REDIRECTS, detail=target, location=None)
            if check_hop is not None and (problem := await check_hop(target)) is not None:
                return replace(result, problem=problem, detail=target, location=None)
            url = target

    async def fetch_one(self, url: str, *, any_type: bool = False) -> FetchResult:
        """One request and its answer. A redirect is not followed: `location` holds its target."""
        if self._session is None:
            raise RuntimeError("a Fetcher is used inside `async with`")
        try:
            address = URL(url, encoded=True)
            if refused := self._refusal(url, address):
                return FetchResult(url, problem=_problem_of_refusal(refused), detail=str(refused))
            own = self._secret_headers if self.policy.names(address.raw_host or "") else None
            async with self._session.get(address, allow_redirects=False, headers=own) as response:
                return await self._read(url, response, any_type=any_type)
        except TimeoutError:
            return FetchResult(url, problem=FetchProblem.TIMEOUT, detail=f"over {self._settings.timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a host that IDNA refuses
            return FetchResult(url, problem=_problem_of(error), detail=_told(error))

    def _refusal(self, url: str, address: URL) -> Refused | None:
        """Why the URL is not asked. Judged is what was parsed for the request: our reading and that one must agree."""
        authority = parse_authority(url)
        if isinstance(authority, Refused):
            return authority
        read = (address.scheme, (address.raw_host or "").lower(), address.port)
        if not _REQUEST_TARGET.fullmatch(url) or read != (authority.scheme, authority.host, authority.port):
            return Refused(Refusal.ODD_CHARACTERS, url)
        return self.policy.refusal_of_url(url)

    async def _read(self, url: str, response: aiohttp.ClientResponse, *, any_type: bool) -> FetchResult:
        """Judge status and headers, then read the body if it is wanted."""
        result = FetchResult(url, status=response.status, headers=response.headers)
        if response.status in _REDIRECTS and "Location" in response.headers:
            await self._drain(response)
            return self._redirect(result, response.headers["Location"])
        if problem := _problem_of_status(response.status):
            await self._drain(response)
            return replace(result, problem=problem, detail=f"HTTP {response.status}")
        kind = response.headers.get("Content-Type", "")
        if not any_type and not _is_text(kind) and not _is_download_of_pdf(kind, result.url):
            response.close()
            return replace(result, problem=FetchProblem.UNSUPPORTED_TYPE, detail=kind)
        return await self._read_body(result, response)

    def _redirect(self, result: FetchResult, location: str) -> FetchResult:
        """A redirect with its target, which is judged as the server wrote it, before anything is normalised."""
        if _ABSOLUTE.match(location):
            written = location.strip()
            scheme = result.url.partition(":")[0]
            refused = self.policy.refusal_of_url(f"{scheme}:{written}" if written.startswith("//") else written)
            if refused is not None:
                problem = FetchProblem.BAD_REDIRECT if is_misspelt(refused.reason) else _problem_of_refusal(refused)
                return replace(result, problem=problem, detail=str(refused))
        target = canonical_url(location, result.url)
        if target is None:
            return replace(result, problem=FetchProblem.BAD_REDIRECT, detail=location)
        return replace(result, location=target)

    async def _read_body(self, result: FetchResult, response: aiohttp.ClientResponse) -> FetchResult:
        """Read and decode the body piece by piece, so that no limit is passed by more than one piece."""
        settings = self._settings
        if (response.content_length or 0) > settings.max_bytes:
            response.close()
            return replace(result, problem=FetchProblem.TOO_LARGE, detail=f"{response.content_length} bytes announced")
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            response.close()
            return replace(result, problem=FetchProblem.BAD_ENCODING, detail=encoding)
        decoder = None if encoding in ("", "identity") else _Decoder()
        raw, pieces, num_raw, num_bytes = [], [], 0, 0
        try:
            async for chunk in response.content.iter_any():
                raw.append(chunk)
                num_raw += len(chunk)
                for piece in (chunk,) if decoder is None else decoder.feed(chunk):
                    pieces.append(piece)
                    num_bytes += len(piece)
                    if num_bytes > max(num_raw * settings.max_compression_ratio, _MIN_BOMB_BYTES):
                        response.close()
                        return replace(result, problem=FetchProblem.COMPRESSION_BOMB, detail=f"over {num_bytes} bytes")
                    if max(num_bytes, num_raw) > settings.max_bytes:
                        response.close()
                        return replace(result, problem=FetchProblem.TOO_LARGE, detail=f"over {num_bytes} bytes")
        except zlib.error as error:
            response.close()
            return replace(result, problem=FetchProblem.BAD_ENCODING, detail=f"{encoding}: {error}")
        if decoder is not None and not decoder.complete:
            return replace(result, problem=FetchProblem.TRUNCATED, detail=f"{encoding} body ends early")
        body = b"".join(pieces)
        if not response.headers.get("Content-Type") and b"\0" in body[:1024] and not body.startswith(b"%PDF"):
            return replace(result, problem=FetchProblem.UNSUPPORTED_TYPE, detail="binary without a content type")
        return replace(result, raw=body if decoder is None else b"".join(raw), body=body)

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read an unwanted body if it is small, so that the connection can be used again."""
        if response.content_length is not None and response.content_length <= _MAX_DRAINED_BYTES:
            await response.content.read()
        else:
            response.close()


class _Decoder:
    """Decodes gzip (several members too), zlib and raw deflate in pieces of bounded size."""

    _PIECE = 262_144

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=47)  # 32 + 15: gzip or zlib, told apart by their header
        self._any_output = False

    @property
    def complete(self) -> bool:
        """All that was begun has ended (or nothing was begun)."""
        return self._zlib.eof or not self._any_output

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode more input.

        Raises:
            zlib.error: it is not in any of the encodings.
        """
        while True:
            if self._zlib.eof:
                if not data.strip(b"\0"):  # nothing, or padding, after the last member
                    return
                self._zlib = zlib.decompressobj(wbits=47)
            piece = self._decompress(data)
            self._any_output = True
            if piece:
                yield piece
            if self._zlib.eof:
                data = self._zlib.unused_data
            elif (data := self._zlib.unconsumed_tail) == b"" and len(piece) < self._PIECE:
                return  # a full piece may leave output inside zlib although its input is used up

    def _decompress(self, data: bytes) -> bytes:
        try:
            return self._zlib.decompress(data, self._PIECE)
        except zlib.error:
            if self._any_output:
                raise
            self._zlib = zlib.decompressobj(wbits=-15)  # some servers send `deflate` without the zlib header
            return self._zlib.decompress(data, self._PIECE)


def _is_text(content_type: str) -> bool:
    """Whether a page may hide behind this Content-Type; a missing one is judged by the body."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _NOT_PAGES:
        return False
    if kind == "" or kind in _TEXT_TYPES or kind.startswith("text/"):
        return True
    return kind.endswith(("+xml", "+json")) and kind.startswith("application/")


def _is_download_of_pdf(content_type: str, url: str) -> bool:
    """Whether a body of no particular type is a PDF by its name: many servers offer them so."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind in _DOWNLOADS and url.partition("?")[0].lower().endswith(".pdf")


def _problem_of_status(status: int) -> FetchProblem | None:
    if 200 <= status < 300:
        return None
    if status in (404, 410):
        return FetchProblem.NOT_FOUND
    return FetchProblem.SERVER_ERROR if status >= 500 or status == 429 else FetchProblem.CLIENT_ERROR


_PROBLEMS: tuple[tuple[type[Exception], FetchProblem], ...] = (
    (aiohttp.ClientSSLError, FetchProblem.TLS),
    (aiohttp.ClientConnectorDNSError, FetchProblem.DNS),
    (aiohttp.ClientPayloadError, FetchProblem.TRUNCATED),
    (aiohttp.ClientOSError, FetchProblem.CONNECTION),
    (aiohttp.ServerConnectionError, FetchProblem.CONNECTION),
    (ValueError, FetchProblem.INVALID_URL),
    (OSError, FetchProblem.CONNECTION),
)
"""The first line that fits counts: a TLS failure is also a ValueError and an OSError."""


def _problem_of_refusal(refused: Refused) -> FetchProblem:
    if is_misspelt(refused.reason):
        return FetchProblem.INVALID_URL
    return FetchProblem.REFUSED_PORT if refused.reason is Refusal.PORT else FetchProblem.PRIVATE_ADDRESS


def _told(error: Exception) -> str:
    cause = getattr(error, "os_error", None)
    return str(cause if isinstance(cause, RefusedAddressError) else error) or type(error).__name__


def _problem_of(error: Exception) -> FetchProblem:
    if isinstance(getattr(error, "os_error", None), RefusedAddressError):
        return FetchProblem.PRIVATE_ADDRESS
    return next((problem for kind, problem in _PROBLEMS if isinstance(error, kind)), FetchProblem.PROTOCOL)
