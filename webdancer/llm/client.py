"""A chat model behind an OpenAI-compatible HTTP API.

The openai SDK carries the requests; its own retries are off, so that one place decides what is tried again: connection
failures, time-outs, and the statuses 408, 409, 429 and 5xx, with jittered exponential backoff, or after what the server's
Retry-After header asks for. An answer counts only when it says why it ended: the SDK itself takes one that was cut off.
"""

import asyncio
import logging
import os
import random
import re
import ssl
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from time import time
from types import TracebackType
from typing import Any, Self

import httpx2
import openai
import stamina
from aiolimiter import AsyncLimiter
from pydantic import BaseModel, JsonValue, ValidationError
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from webdancer.config import EndpointSettings
from webdancer.errors import ConfigError, ContextFullError, ModelError
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import Usage

_log = logging.getLogger(__name__)

_RETRIED_STATUSES = {408, 409, 429}
_MAX_RETRY_AFTER_S = 120.0
"""A server that asks for a longer wait has run out of quota: that is reported instead."""
_CONNECT_TIMEOUT_S = 10.0
_KEEPALIVE_S = 3.0
"""Idle connections are closed sooner than by common servers (5 s): a request must not meet one that is closing."""
_MAX_POOL = 32
"""Connections of one pool."""
_CONTEXT_FULL = re.compile(
    r"context_length_exceeded|exceed_context_size|string_above_max_length"
    r"|(?:maximum|model'?s?|available|allowed|the) (?:context|sequence)[ _-]?(?:length|window|size)"
    r"|context (?:length|window|size)|(?:prompt|input) is too long|too many (?:input |prompt )?tokens"
    r"|input token count|tokens? .{0,40}exceeds? .{0,40}(?:maximum|limit)|reduce the length of the (?:messages|prompt)",
    re.IGNORECASE,
)
_OPTIONAL_PARAMETERS = ("temperature", "top_p", "seed")
"""What some reasoning models refuse; they are then asked again without it."""


class _WireMessage(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _WireChoice(BaseModel):
    message: _WireMessage
    finish_reason: str | None = None


class _WireUsage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _WireReply(BaseModel):
    """The part of a chat completion that is read; everything else is ignored."""

    choices: list[_WireChoice] | None = None
    usage: _WireUsage | None = None
    error: JsonValue = None


class OpenAIChatModel:
    """A model of an OpenAI-compatible endpoint. One instance serves any number of calls at once, in one event loop.

    Raises:
        ConfigError: `base_url` is no http(s) URL, or the variable named by `api_key_env` is missing or unusable.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._where = f"{settings.base_url}, model {settings.model!r}"
        per_minute = settings.requests_per_minute
        # One token at a time: a bucket of a whole minute's requests would let two minutes' worth through in the first.
        self._rate = AsyncLimiter(1, 60.0 / per_minute) if per_minute else None
        self._max_tokens_name = "max_tokens"
        self._refused: set[str] = set()
        self._url, self._key = _checked_url(settings), _api_key(settings)
        # A free place is a client that may carry one more request. One connection pool looks at all of its connections
        # for every request, which is too slow for hundreds, so there is one for every few dozen.
        sizes = [_MAX_POOL] * (settings.max_concurrent // _MAX_POOL)
        if rest := settings.max_concurrent % _MAX_POOL:
            sizes.append(rest)
        tls = httpx2.create_ssl_context()
        self._clients = [self._new_client(size, tls) for size in sizes]
        self._places: asyncio.LifoQueue[openai.AsyncOpenAI] = asyncio.LifoQueue()
        for client, size in zip(self._clients, sizes, strict=True):
            for _ in range(size):
                self._places.put_nowait(client)

    def _new_client(self, num_connections: int, tls: ssl.SSLContext) -> openai.AsyncOpenAI:
        limits = httpx2.Limits(
            max_connections=num_connections,
            max_keepalive_connections=num_connections,
            keepalive_expiry=_KEEPALIVE_S,
        )
        seconds = self._settings.timeout_s
        timeout = httpx2.Timeout(seconds, connect=min(_CONNECT_TIMEOUT_S, seconds))
        return openai.AsyncOpenAI(
            api_key=self._key,
            base_url=self._url,
            max_retries=0,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout, verify=tls),
        )

    @property
    def name(self) -> str:
        """The model's name at the endpoint."""
        return self._settings.model

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients:
            await client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """Answer `messages`; what `sampling` leaves open is taken from the settings, then from the endpoint.

        Raises:
            ContextFullError: the endpoint says that the messages do not fit.
            ModelError: it failed for good, or gave an answer that is incomplete or no chat completion. The message
                names endpoint, model, status, and what to do.
        """
        sent = [{"role": m.role, "content": _valid_unicode(m.content)} for m in messages]
        attempts = 0
        try:
            async for attempt in stamina.retry_context(
                on=_retry_delay,
                attempts=self._settings.max_attempts,
                timeout=None,
                wait_initial=0.5,
                wait_max=30.0,
                wait_jitter=1.0,
            ):
                with attempt:
                    attempts = attempt.num
                    text = await self._post(sent, sampling)
        except (openai.APIConnectionError, openai.APIStatusError) as error:
            raise self._explained(error, attempts) from error
        return self._read(text)

    async def _post(self, messages: list[dict[str, str]], sampling: Sampling) -> str:
        """One request, asked again at once without a parameter that the endpoint does not know. Returns the body."""
        while True:
            try:
                return await self._send(messages, sampling)
            except openai.BadRequestError as error:
                if not self._adapt(error):
                    raise

    async def _send(self, messages: list[dict[str, str]], sampling: Sampling) -> str:
        body: Any = {"model": self._settings.model, "messages": messages, **self._parameters(sampling)}
        client = await self._places.get()
        try:
            if self._rate is not None:
                await self._rate.acquire()
            # The SDK's time-out starts anew with every byte that arrives; this one holds for the whole answer.
            async with asyncio.timeout(self._settings.timeout_s):
                response = await client.chat.completions.with_raw_response.create(**body)
        except TimeoutError as error:
            request = httpx2.Request("POST", f"{client.base_url}chat/completions")
            raise openai.APITimeoutError(request=request) from error
        finally:
            self._places.put_nowait(client)
        text: str = response.text
        return text

    def _parameters(self, sampling: Sampling) -> dict[str, object]:
        """The sampling parameters of a request, without those left to the endpoint."""
        settings = self._settings
        chosen: dict[str, object] = {
            "temperature": settings.temperature if sampling.temperature is None else sampling.temperature,
            "top_p": settings.top_p if sampling.top_p is None else sampling.top_p,
            self._max_tokens_name: settings.max_tokens if sampling.max_tokens is None else sampling.max_tokens,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
        }
        return {name: value for name, value in chosen.items() if value is not None and name not in self._refused}

    def _adapt(self, error: openai.BadRequestError) -> bool:
        """Learn from a refusal of one parameter (`max_tokens` has a new name, `temperature` is fixed). True: ask again."""
        if error.code not in ("unsupported_parameter", "unsupported_value"):
            return False
        if error.param == "max_tokens" == self._max_tokens_name and "max_completion_tokens" in error.message:
            self._max_tokens_name = "max_completion_tokens"
            return True
        if error.param in _OPTIONAL_PARAMETERS and error.param not in self._refused:
            _log.warning("%s: refuses %s; it is left to the endpoint from now on", self._where, error.param)
            self._refused.add(error.param)
            return True
        return False

    def _read(self, text: str) -> ChatReply:
        """The reply that a response's body holds."""
        try:
            reply = _WireReply.model_validate_json(text)
        except ValidationError:
            raise ModelError(
                f"{self._where}: status 200, but the answer is no chat completion: {_shortened(text)!r}; "
                "check base_url (it often ends in /v1)"
            ) from None
        if not reply.choices:
            said = f": {_shortened(str(reply.error))}" if reply.error is not None else ""
            raise ModelError(f"{self._where}: status 200, but the answer holds no choices{said}")
        choice = reply.choices[0]
        if choice.finish_reason not in ("stop", "length"):
            raise ModelError(
                f"{self._where}: status 200, but the answer is not complete: got finish_reason "
                f"{choice.finish_reason!r}, expected 'stop' or 'length'; run the same command again, or use another model"
            )
        message, usage = choice.message, reply.usage or _WireUsage()
        return ChatReply(
            content=message.content or "",
            reasoning=message.reasoning_content or message.reasoning or None,
            finish="stop" if choice.finish_reason == "stop" else "length",
            usage=Usage(
                prompt_tokens=usage.prompt_tokens or 0, completion_tokens=usage.completion_tokens or 0, llm_calls=1
            ),
        )

    def _explained(self, error: openai.APIConnectionError | openai.APIStatusError, attempts: int) -> ModelError:
        """The error for the user: endpoint, model, status, what it said, what to do."""
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        if isinstance(error, openai.APITimeoutError):
            return ModelError(
                f"{self._where}: no answer within timeout_s = {self._settings.timeout_s:g} s{tries}; "
                "raise timeout_s or lower max_concurrent"
            )
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            return ModelError(
                f"{self._where}: connection failed{tries}: {cause or type(cause).__name__}; "
                "check base_url and that the server is running"
            )
        status, said = error.status_code, _shortened(_error_text(error))
        if status in (400, 413, 422) and _CONTEXT_FULL.search(f"{error.code} {error.type} {said}"):
            return ContextFullError(f"{self._where}: status {status}: the context is full: {said}")
        return ModelError(f"{self._where}: status {status}{tries}: {said}; {self._advice(error)}")

    def _advice(self, error: openai.APIStatusError) -> str:
        status = error.status_code
        if status in (401, 403):
            variable = self._settings.api_key_env
            return f"check the key in ${variable}" if variable else "set api_key_env to the variable that holds the key"
        if status == 404:
            return "check base_url (it often ends in /v1) and the model's name"
        if error.code == "insufficient_quota":
            return "the account's quota is used up"
        if status == 429:
            return "set requests_per_minute, lower max_concurrent, or run the same command again later"
        if status >= 500:
            return "run the same command again later, or raise max_attempts"
        return "the endpoint refuses this request; check the model's settings"


def _log_retry(details: RetryDetails) -> None:
    _log.info("attempt %d failed, again in %.1f s: %s", details.retry_num, details.wait_for, details.caused_by)


# In place of stamina's own hook, which warns on standard error without saying what failed.
set_on_retry_hooks([_log_retry])


def _retry_delay(error: Exception) -> bool | float:
    """For stamina: False gives up, True waits by backoff, a number of seconds is what the server asked for."""
    if isinstance(error, openai.APIConnectionError):
        return True
    if not isinstance(error, openai.APIStatusError):
        return False
    if not (error.status_code in _RETRIED_STATUSES or error.status_code >= 500) or error.code == "insufficient_quota":
        return False
    asked = _retry_after_s(error.response.headers)
    if asked is None:
        return True
    return asked <= _MAX_RETRY_AFTER_S and asked + random.uniform(0.0, min(1.0, asked))


def _retry_after_s(headers: httpx2.Headers) -> float | None:
    """Seconds that a Retry-After header asks to wait (RFC 9110, section 10.2.3: seconds or an HTTP date)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, OverflowError):
        return None


def _checked_url(settings: EndpointSettings) -> str:
    try:
        url = httpx2.URL(settings.base_url)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            f"model {settings.model!r}: got base_url {settings.base_url!r}, expected a URL such as 'https://HOST/v1'"
        )
    return settings.base_url


def _api_key(settings: EndpointSettings) -> str:
    """The key, never taken from a variable that the settings do not name: it might go to the wrong server."""
    if settings.api_key_env is None:
        return "none"
    where = f"{settings.base_url}, model {settings.model!r}: api_key_env names the environment variable"
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise ConfigError(f"{where} {settings.api_key_env!r}, which is not set; export it before you run this command")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{where} {settings.api_key_env!r}, whose value cannot be a key: it holds odd characters")
    return key


def _error_text(error: openai.APIStatusError) -> str:
    """What the server said, from an OpenAI-style body, or the body as it is."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return said if isinstance(said, str) else error.response.text or "(empty answer)"


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else flat[:300] + "…"


def _valid_unicode(text: str) -> str:
    """Half surrogate pairs, which models write into JSON strings, cannot be sent: each becomes `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")
