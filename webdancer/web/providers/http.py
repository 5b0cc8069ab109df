"""The HTTP side of every provider: its key, its limits, its failures in words that say what to do.

One client serves one provider. Requests under way, requests a minute, seconds an attempt and bytes of an answer are bounded;
connections are kept. Redirects are not followed: they would take the key along. A key goes into a header and nowhere else.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiolimiter import AsyncLimiter
from pydantic import BaseModel, JsonValue, ValidationError
from yarl import URL

from webdancer.config import ProviderSettings
from webdancer.errors import ConfigError
from webdancer.keys import read_key
from webdancer.retries import read_retry_after
from webdancer.web.providers.attempts import AttemptFailed, RefusalReason, shortened, with_attempts

M = TypeVar("M", bound=BaseModel)

_KEEPALIVE_S = 3.0
"""Idle connections are closed sooner than by common servers (5 s): a request must not meet one that is closing."""
_MAX_BYTES = 10_000_000
_MAX_ERROR_BYTES = 65_536
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Refusal(NamedTuple):
    """What an answer of refusal means."""

    reason: RefusalReason
    advice: str | None = None
    """None: what is usual for the reason."""


def usual_refusal(status: int, said: str) -> Refusal | None:
    """What a status means at most providers; None: the request is refused, or fails, not we."""
    by_status = {401: RefusalReason.KEY, 403: RefusalReason.KEY, 402: RefusalReason.QUOTA, 429: RefusalReason.RATE}
    return Refusal(by_status[status]) if status in by_status else None


@dataclass(frozen=True, slots=True)
class ProviderApi:
    """What is fixed about a provider's API."""

    name: str
    """Of the provider, and of its section under `[web]`."""
    base_url: str | None
    """None: the settings must name it."""
    key_env: str | None
    """The environment variable that usually holds the key; None: there is none."""
    needs_key: bool = True
    """False: a key is sent where there is one."""
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    sign_up: str = ""
    """Where keys are had, or how the provider is set up."""
    refusal: Callable[[int, str], Refusal | None] = usual_refusal
    """What a status from 400 on, with what the server said, means."""


class ProviderClient:
    """Asks one provider's API. Used as an async context manager; any number of calls at once, in one event loop.

    Raises:
        ConfigError: the key is missing or odd, or `base_url` is missing or no http(s) URL.
    """

    def __init__(self, api: ProviderApi, settings: ProviderSettings) -> None:
        self._api, self._settings = api, settings
        self._base = _checked_url(api, settings)
        self._key_source, key = _read_key(api, settings)
        if key is not None and URL(self._base).user is not None:
            raise ConfigError(
                f"web.{api.name}: base_url carries a user name and there is a key as well; drop one of them"
            )
        self._key_headers = {} if key is None else {api.key_header: api.key_prefix + key}
        self._proxy = _proxy_for(URL(self._base))
        self._session: aiohttp.ClientSession | None = None
        self.num_answered = 0
        """Requests that were answered with success, which is what providers bill."""

    async def __aenter__(self) -> Self:
        settings = self._settings
        per_minute = settings.requests_per_minute
        # One token at a time: a bucket of a whole minute's requests would let two minutes' worth through in the first.
        self._rate = AsyncLimiter(1, 60.0 / per_minute) if per_minute else None
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._session = aiohttp.ClientSession(
            # No limit of its own: a request has its place before its time-out starts.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            headers={"User-Agent": "webdancer"},
            middlewares=(_once,),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def where(self, path: str = "") -> str:
        """Provider and URL, as messages name them: without a query, a user name or a password."""
        url = URL(self._base + path, encoded=True).with_user(None).with_query(None).with_fragment(None)
        return f"{self._api.name} ({url})"

    async def get_json(
        self, path: str, *, model: type[M], params: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> M:
        """The JSON that a GET request answers, read as `model`.

        Raises:
            ProviderRefused: the provider refuses us: the key, the quota, the rate, the set-up.
            ToolFailure: it failed for good, or the answer is not what `model` describes.
        """
        raw = await self._call("GET", path, params=params, headers=headers, accept="application/json")
        return self._read_json(path, raw, model)

    async def post_json(
        self, path: str, *, model: type[M], body: JsonValue, headers: Mapping[str, str] | None = None
    ) -> M:
        """The JSON that a POST request with a JSON body answers, read as `model`. Raises as `get_json` does."""
        raw = await self._call("POST", path, body=body, headers=headers, accept="application/json")
        return self._read_json(path, raw, model)

    async def get_text(
        self, path: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> str:
        """The text that a GET request answers, whatever its type. Raises as `get_json` does."""
        return (await self._call("GET", path, params=params, headers=headers, accept="text/*")).text

    async def post_text(self, path: str, *, body: JsonValue, headers: Mapping[str, str] | None = None) -> str:
        """The text that a POST request with a JSON body answers. Raises as `get_json` does."""
        return (await self._call("POST", path, body=body, headers=headers, accept="text/*")).text

    async def _call(
        self,
        method: str,
        path: str,
        *,
        accept: str,
        params: Mapping[str, str] | None = None,
        body: JsonValue = None,
        headers: Mapping[str, str] | None = None,
    ) -> "_Answer":
        """One call, with its attempts."""
        url = URL(self._base + path, encoded=True).update_query(params or {})
        data = None if body is None else json.dumps(body, ensure_ascii=True).encode()
        sent = {"Accept": accept, **(headers or {}), **self._key_headers}
        if data is not None:
            sent["Content-Type"] = "application/json"
        return await with_attempts(
            self.where(path), self._settings, lambda: self._attempt(method, url, data=data, headers=sent)
        )

    async def _attempt(self, method: str, url: URL, *, data: bytes | None, headers: Mapping[str, str]) -> "_Answer":
        """One request and its whole answer."""
        if self._session is None:
            raise RuntimeError("a ProviderClient is used inside `async with`")
        async with self._places:
            if self._rate is not None:
                await self._rate.acquire()
            try:
                async with self._session.request(
                    method, url, data=data, headers=headers, allow_redirects=False, proxy=self._proxy
                ) as response:
                    answer = await _read(response)
            except TimeoutError as error:
                raise AttemptFailed(
                    f"no answer within timeout_s = {self._settings.timeout_s:g} s",
                    advice=f"try again later, or raise web.{self._api.name}.timeout_s",
                    passing=True,
                ) from error
            except (aiohttp.ClientError, OSError) as error:
                broke_off = isinstance(error, aiohttp.ClientPayloadError)
                said = "the answer broke off" if broke_off else shortened(str(error)) or type(error).__name__
                raise AttemptFailed(
                    f"connection failed: {said}",
                    advice="check the network and base_url" if self._settings.base_url else "check the network",
                    passing=True,
                ) from error
        self._check(answer)
        self.num_answered += 1
        return answer

    def _check(self, answer: "_Answer") -> None:
        """Raise for what is no success."""
        if 200 <= answer.status < 300:
            if answer.is_cut:
                raise AttemptFailed(f"the answer is larger than {_MAX_BYTES} bytes", advice="ask for fewer results")
            return
        if 300 <= answer.status < 400:
            target = shortened((answer.location or "nowhere").partition("?")[0])
            raise AttemptFailed(
                f"status {answer.status}: redirects to {target}, which is not followed: the key would go there too",
                advice=f"set web.{self._api.name}.base_url to the address that answers",
            )
        said = answer.said()
        refusal = self._api.refusal(answer.status, said)
        reason = refusal.reason if refusal is not None else None
        raise AttemptFailed(
            f"status {answer.status}: {said}",
            advice=(refusal.advice if refusal is not None else None) or self._advice(answer.status, reason),
            passing=reason is RefusalReason.RATE or (reason is None and _is_passing(answer.status)),
            refusal=reason,
            retry_after_s=answer.retry_after_s,
        )

    def _advice(self, status: int, reason: RefusalReason | None) -> str:
        section = f"web.{self._api.name}"
        if reason is RefusalReason.KEY:
            return f"check the key in {self._key_source}" if self._key_headers else f"set {section}.api_key_env"
        if reason is RefusalReason.QUOTA:
            return f"the quota or the money of the account is used up: top it up ({self._api.sign_up})"
        if reason is RefusalReason.RATE:
            return f"set {section}.requests_per_minute, lower {section}.max_concurrent, or try again later"
        if _is_passing(status):
            return f"try again later, or raise {section}.max_attempts"
        if status == 404:
            return f"check {section}.base_url"
        return f"the provider refuses this request: put it differently, or check {section}.params"

    def _read_json(self, path: str, answer: "_Answer", model: type[M]) -> M:
        """The answer as `model`; what it does not say is never taken for an empty result."""
        try:
            return model.model_validate(json.loads(answer.body))
        except ValidationError as error:
            first = error.errors()[0]
            spot = ".".join(map(str, first["loc"])) or "the whole answer"
            problem = f"the answer is not in the API's format: {spot}: {first['msg']}"
        except (ValueError, RecursionError):
            kind = "an HTML page" if answer.is_html else "no JSON"
            problem = f"the answer is {kind}, expected JSON: {shortened(answer.text)!r}"
        advice = f"check web.{self._api.name}.base_url, or try again later"
        raise AttemptFailed(f"status {answer.status}, but {problem}", advice=advice).final(self.where(path), 1)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A whole HTTP answer."""

    status: int
    content_type: str
    charset: str | None
    location: str | None
    retry_after_s: float | None
    body: bytes
    is_cut: bool
    """There was more than is read."""

    @property
    def text(self) -> str:
        try:
            return self.body.decode(self.charset or "utf-8", "replace")
        except LookupError:  # a charset that nobody knows
            return self.body.decode("utf-8", "replace")

    @property
    def is_html(self) -> bool:
        return self.content_type == "text/html" or self.body.lstrip()[:1] == b"<"

    def said(self) -> str:
        """What the server gives as the reason of a failure."""
        if not self.is_html:
            try:
                return shortened(_reason_in(json.loads(self.body))) or "(no reason given)"
            except (ValueError, RecursionError):
                pass
        return shortened(self.text) or "(empty answer)"


def _reason_in(body: JsonValue) -> str:
    """The human part of a JSON error: `message`, `detail` or `error`, with `code`, however deep it lies."""
    if isinstance(body, str):
        return body
    if not isinstance(body, dict):
        return json.dumps(body, ensure_ascii=False)
    code = body.get("code")
    for name in ("message", "detail", "error", "readableMessage"):
        if said := body.get(name):
            return f"{code}: {_reason_in(said)}" if isinstance(code, str) else _reason_in(said)
    return json.dumps(body, ensure_ascii=False)


class _Disconnected(aiohttp.ClientConnectionError):
    """The server hung up, or the connection broke."""


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a GET request a second time by itself, which would double the attempts."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Disconnected(str(error)) from error


async def _read(response: aiohttp.ClientResponse) -> _Answer:
    limit = _MAX_BYTES if response.ok else _MAX_ERROR_BYTES
    pieces, num_bytes, is_cut = [], 0, False
    async for piece in response.content.iter_any():
        pieces.append(piece)
        num_bytes += len(piece)
        if num_bytes > limit:
            is_cut = True
            response.close()
            break
    headers = response.headers
    return _Answer(
        status=response.status,
        content_type=response.content_type,
        charset=response.charset,
        location=headers.get("Location"),
        retry_after_s=read_retry_after(headers.get("Retry-After", "")),
        body=b"".join(pieces),
        is_cut=is_cut,
    )


def _is_passing(status: int) -> bool:
    return status in (408, 429) or status >= 500


def _checked_url(api: ProviderApi, settings: ProviderSettings) -> str:
    given = settings.base_url or api.base_url
    if given is None:
        raise ConfigError(f"{api.name}: web.{api.name}.base_url is missing; {api.sign_up}")
    try:
        url = URL(given)
        if url.scheme in ("http", "https") and url.host and not url.query_string and not url.fragment:
            return str(url).rstrip("/")
    except ValueError:
        pass
    raise ConfigError(f"{api.name}: got base_url {given!r}, expected a URL such as 'https://HOST'")


class _Key(NamedTuple):
    source: str
    """As messages name it."""
    value: str | None


def _read_key(api: ProviderApi, settings: ProviderSettings) -> _Key:
    """The key from what the settings name, or from the provider's usual variable."""
    what, file, env = f"web.{api.name}", settings.api_key_file, settings.api_key_env
    if file is not None:
        return _Key(file, read_key(env=None, file=file, what=what))
    if env is None and api.key_env is not None and (api.needs_key or os.environ.get(api.key_env, "").strip()):
        env = api.key_env
        if not os.environ.get(env, "").strip():
            raise ConfigError(
                f"{what}: the key is missing: the environment variable {env!r} is not set; export it ({api.sign_up}), "
                f"or name another variable in {what}.api_key_env or a file in {what}.api_key_file"
            )
    return _Key(f"${env}", read_key(env=env, file=None, what=what))


def _proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for a host (`HTTPS_PROXY`, `NO_PROXY`).

    aiohttp would read it by itself, but then sends what it finds in ~/.netrc as well.
    """
    if url.host is None or url.host in _LOOPBACK or proxy_bypass(url.host):
        return None
    proxy = getproxies().get(url.scheme)
    return proxy if proxy is not None and proxy.startswith(("http://", "https://")) else None
