"""One HTTP exchange at a time, with every limit that a hostile or broken server calls for.

A fetch ends as a page, as a redirect, or with a typed problem; it raises nothing for what a server does. What a name
resolves to and which addresses may be asked is decided here alone. The paper assumes a browser; pages that need
one are noticed by `web.extract`.
"""

import ipaddress
import re
import zlib
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from socket import AddressFamily
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from webdancer.config import CrawlSettings
from webdancer.errors import ConfigError
from webdancer.web.urls import canonical_url

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEXT_TYPES = frozenset({"application/xml", "application/xhtml+xml", "application/json", "application/pdf"})
_NOT_PAGES = frozenset({"text/css", "text/javascript", "text/ecmascript", "text/calendar", "text/vcard"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token (RFC 9110, section 5.6.2)."""
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


class _PrivateAddressError(OSError):
    """A name leads to an address that pages must not make us ask."""


def _is_public(address: str) -> bool:
    """Whether an address (a name counts as none yet) is neither private, loopback, link-local nor otherwise reserved."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return (mapped or found).is_global and not found.is_multicast


class MappedResolver(AbstractResolver):
    """Host name → address and port from a table, anything else from DNS.

    Args:
        trusted: hosts that may have private addresses.

    Raises:
        ConfigError: an entry of the table is not `address:port`.
    """

    def __init__(self, table: Mapping[str, str], *, trusted: Container[str] = ()) -> None:
        self._table = {host.lower(): _address(host, value) for host, value in table.items()}
        self._trusted = trusted
        self._dns = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        if (mapped := self._table.get(host.lower())) is None:
            found = await self._dns.resolve(host, port, family)
            if host.lower() not in self._trusted and not all(_is_public(result["host"]) for result in found):
                raise _PrivateAddressError(f"{host} leads to {found[0]['host']}")
            return found
        address, mapped_port = mapped
        kind = AddressFamily.AF_INET6 if ":" in address else AddressFamily.AF_INET
        return [ResolveResult(hostname=host, host=address, port=mapped_port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        await self._dns.close()


def _address(host: str, value: str) -> tuple[str, int]:
    address, _, port = value.rpartition(":")
    if not address or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"resolve: {host!r}: got {value!r}, expected address:port, as in 127.0.0.1:8080")
    return address.strip("[]"), int(port)


def _trusted_hosts(settings: CrawlSettings) -> frozenset[str]:
    """The hosts that the user has named; only these may be on this machine or in its network."""
    roots = (URL(canonical, encoded=True).raw_host or "" for url in settings.urls if (canonical := canonical_url(url)))
    return frozenset(name for host in roots for name in (host, host.removeprefix("www."), f"www.{host}"))


class Fetcher:
    """Fetches pages over HTTP under the limits of the settings. Used as an async context manager.

    Cookies are not kept, so that a page does not depend on what was fetched before it.

    Raises:
        ConfigError: a header of the settings cannot be sent.
    """

    def __init__(self, settings: CrawlSettings) -> None:
        self._settings = settings
        self._trusted = _trusted_hosts(settings)
        self._session: aiohttp.ClientSession | None = None
        self._headers = CIMultiDict(
            {
                "Accept": "text/html,application/xhtml+xml,application/pdf;q=0.9,text/*;q=0.9,*/*;q=0.5",
                "Accept-Encoding": "gzip, deflate",
            }
        )
        for name, value in {"User-Agent": settings.user_agent, **settings.headers}.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigError(f"crawl: got the header {name!r}: {value!r}, expected an HTTP header on one line")
            self._headers[name] = value

    @property
    def user_agent(self) -> str:
        """The name that servers are given."""
        return self._headers["User-Agent"]

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=MappedResolver(self._settings.resolve, trusted=self._trusted), limit=0, ttl_dns_cache=300
            ),
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
            host = address.raw_host or ""
            if host not in self._trusted and not _is_public(host):  # a bare address is not resolved
                return FetchResult(url, problem=FetchProblem.PRIVATE_ADDRESS, detail=host)
            async with self._session.get(address, allow_redirects=False) as response:
                return await self._read(url, response, any_type=any_type)
        except TimeoutError:
            return FetchResult(url, problem=FetchProblem.TIMEOUT, detail=f"over {self._settings.timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a host that IDNA refuses
            return FetchResult(url, problem=_problem_of(error), detail=str(error) or type(error).__name__)

    async def _read(self, url: str, response: aiohttp.ClientResponse, *, any_type: bool) -> FetchResult:
        """Judge status and headers, then read the body if it is wanted."""
        result = FetchResult(url, status=response.status, headers=response.headers)
        if response.status in _REDIRECTS and "Location" in response.headers:
            await self._drain(response)
            target = canonical_url(response.headers["Location"], url)
            if target is None:
                return replace(result, problem=FetchProblem.BAD_REDIRECT, detail=response.headers["Location"])
            return replace(result, location=target)
        if problem := _problem_of_status(response.status):
            await self._drain(response)
            return replace(result, problem=problem, detail=f"HTTP {response.status}")
        kind = response.headers.get("Content-Type", "")
        if not any_type and not _is_text(kind):
            response.close()
            return replace(result, problem=FetchProblem.UNSUPPORTED_TYPE, detail=kind)
        return await self._read_body(result, response)

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


def _problem_of(error: Exception) -> FetchProblem:
    if isinstance(getattr(error, "os_error", None), _PrivateAddressError):
        return FetchProblem.PRIVATE_ADDRESS
    return next((problem for kind, problem in _PROBLEMS if isinstance(error, kind)), FetchProblem.PROTOCOL)
