"""Carries one chat completion over HTTP: whole, or as server-sent events.

aiohttp without an SDK around it, which took most of a call's CPU time. An exchange ends with an answer or raises one of the
failures of `llm.failures`; nothing is tried again here. Redirects are not followed: they are a wrong base_url, and the key would
go along. A proxy is taken from the environment.
"""

import re
from collections.abc import Callable, Iterator
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from webdancer.errors import ConfigError
from webdancer.llm.failures import BrokenOff, NoAnswerInTime, Unreachable, read_error

_CONNECT_TIMEOUT_S = 10.0
_USER = re.compile(r"//[^/]*@")
_KEEPALIVE_S = 3.0
"""Idle connections are closed sooner than by common servers (5 s): a request must not meet one that is closing."""

OnEvent = Callable[[str], bool]
"""Takes the data of one event; True where no more are wanted."""


class Transport:
    """The connections to one endpoint, opened in the event loop that makes the first exchange."""

    def __init__(self, url: URL, *, key: str | None, timeout_s: float) -> None:
        self._url, self._timeout_s, self._proxy = url, timeout_s, _proxy(url)
        self._headers = {"Content-Type": "application/json", "User-Agent": "webdancer"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None

    async def exchange(self, body: bytes, on_event: OnEvent) -> str | None:
        """Post `body`. Returns the answer's text, or None where it came as events, each of them given to `on_event`.

        Raises:
            Unreachable, NoAnswerInTime, BrokenOff, ServerError: no answer, none in time, half of one, or a refusal.
        """
        session = self._opened()
        try:
            async with session.post(
                self._url, data=body, headers=self._headers, proxy=self._proxy, allow_redirects=False
            ) as response:
                if not 200 <= response.status < 300:
                    raise read_error(response.status, response.headers, await _text(response))
                if response.content_type != "text/event-stream":
                    return await _text(response)
                await _read_events(response, on_event)
                return None
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable("no connection came about in time") from error
        except TimeoutError as error:
            raise NoAnswerInTime(f"no answer within timeout_s = {self._timeout_s:g} s") from error
        except aiohttp.ClientPayloadError as error:
            raise BrokenOff("the connection was closed in the middle of the answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connect = min(_CONNECT_TIMEOUT_S, self._timeout_s)
            self._session = aiohttp.ClientSession(
                # The caller bounds the number of requests, and with it that of connections.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=connect),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _proxy(url: URL) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names, unless NO_PROXY names the host.

    aiohttp's `trust_env` would look for it anew in a thread at every call, and let a .netrc file stand in for the key.
    """
    assert url.host is not None
    proxies = getproxies()
    return None if proxy_bypass(url.host) else proxies.get(url.scheme) or proxies.get("all")


async def _text(response: aiohttp.ClientResponse) -> str:
    """The body, by its charset or as UTF-8; what cannot be read becomes U+FFFD."""
    return (await response.read()).decode("utf-8", "replace")


async def _read_events(response: aiohttp.ClientResponse, on_event: OnEvent) -> None:
    events = EventReader()
    async for chunk in response.content.iter_any():
        for data in events.feed(chunk):
            if on_event(data):
                response.close()  # the server notices, and need not write on
                return
    for data in events.feed(b"\n\n"):  # a last event without its empty line
        on_event(data)


class EventReader:
    """Server-sent events (HTML standard, section 9.2.6) out of chunks of bytes; only their data is kept.

    llama.cpp's older servers wrote failures under a field of their own, `error:`; they come as `{"error": …}`.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of the events that `chunk` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            name, _, value = line.partition(b":")
            if not line and self._data:
                yield "\n".join(self._data)
                self._data = []
            elif name == b"data":
                self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
            elif name == b"error":
                self._data.append(f'{{"error": {value.decode("utf-8", "replace")}}}')


def shown_address(base_url: str) -> str:
    """An endpoint's address for messages: some people put a key into its query, or a password before its host."""
    return _USER.sub("//", base_url.partition("?")[0])


def endpoint_url(base_url: str, *, where: str) -> URL:
    """The address of the chat completions under `base_url`; a query (`?api-version=…`) stays.

    Raises:
        ConfigError: it is no http(s) URL, or holds a password, which would get into logs and run folders.
    """
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{where}: got base_url {base_url!r}, expected a URL such as 'https://HOST/v1'")
    if url.user or url.password:
        raise ConfigError(
            f"{where}: base_url holds a user or a password; name the key by api_key_env or api_key_file instead"
        )
    return url.with_path(url.raw_path.rstrip("/") + "/chat/completions", encoded=True).with_query(url.query)
