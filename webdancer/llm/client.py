"""A chat model behind an OpenAI-compatible HTTP API.

One place decides what is tried again: connection failures, time-outs, answers that broke off, and statuses that pass (408, 409,
425, 429, 5xx, an error inside a status 200), with jittered exponential backoff, or after what the server asks for; while it asks
for a pause, no other call begins. An answer counts only when it says why it ended: one that was cut off looks like any other.

Endpoints differ, and a run should not end for it. A parameter that one refuses is left out from then on, with one warning; what
it would have done is done here where that is possible (`stop`). So is the tools' native form left out, where a server has none.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import stamina
from pydantic import JsonValue

from webdancer.config import EndpointSettings
from webdancer.errors import ContextFullError, ModelError
from webdancer.keys import read_key
from webdancer.llm.failures import (
    BrokenOff,
    Failure,
    NoAnswerInTime,
    ServerError,
    retry_delay,
    shortened,
)
from webdancer.llm.native_tools import native_messages, native_schemas, text_message
from webdancer.llm.pace import Pace
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.llm.transport import Transport, endpoint_url, shown_address
from webdancer.llm.wire import Answer, NoCompletionError
from webdancer.retries import MAX_WAIT_S

_log = logging.getLogger(__name__)

_DROPPABLE = frozenset(
    {"temperature", "top_p", "seed", "stop", "max_tokens", "max_completion_tokens", "stream_options", "tools"}
)
"""Parameters that a request can do without."""
_TOKENS_PER_BYTE = 0.25
_COMPLETION_TOKENS = 300.0
"""First guesses; what calls consume corrects them."""
_LEARNING_RATE = 0.1


class OpenAIChatModel:
    """A model of an OpenAI-compatible endpoint. One instance serves any number of calls at once, in one event loop.

    Raises:
        ConfigError: `base_url` is no http(s) URL, or the key that the settings name is missing or unusable.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        url = endpoint_url(settings.base_url, where=f"model {settings.model!r}")
        self._where = f"{shown_address(settings.base_url)}, model {settings.model!r}"
        # A key is never taken from a variable that the settings do not name: it might go to the wrong server.
        key = read_key(env=settings.api_key_env, file=settings.api_key_file, what=self._where)
        self._transport = Transport(url, key=key, timeout_s=settings.timeout_s)
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._requests, self._tokens = Pace(settings.requests_per_minute), Pace(settings.tokens_per_minute)
        self._tokens_per_byte, self._completion_tokens = _TOKENS_PER_BYTE, _COMPLETION_TOKENS
        self._refused: set[str] = set()
        self._max_tokens_name = "max_tokens"
        self._stream = settings.stream
        self._with_reasoning = False
        self._reasons: bool | None = None  # unknown so far

    @property
    def name(self) -> str:
        """The model's name at the endpoint."""
        return self._settings.model

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

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
        attempts = 0
        try:
            async for attempt in stamina.retry_context(
                on=retry_delay,
                attempts=self._settings.max_attempts,
                timeout=None,
                wait_initial=0.5,
                wait_max=30.0,
                wait_jitter=1.0,
            ):
                with attempt:
                    attempts = attempt.num
                    return await self._ask(messages, sampling)
        except Failure as error:
            raise self._explained(error, attempts) from error
        except NoCompletionError as error:
            raise ModelError(f"{self._where}: status 200, but the answer {error}") from None
        raise AssertionError("the last attempt returns or raises")

    async def _ask(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """One attempt, made again at once in the way that the endpoint wants."""
        while True:
            body = self._body(messages, sampling)
            try:
                answer = await self._send(body, sampling)
            except ServerError as error:
                if error.context_is_full or not self._adapt(error, body):
                    raise
                continue
            reply = answer.reply(is_turn=bool(sampling.tools) or sampling.long_cot, long_cot=sampling.long_cot)
            if sampling.long_cot:
                self._check_reasoning(reply, answer.num_reasoning_tokens)
            return reply

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, JsonValue]:
        """The request, without what is left to the endpoint and what it refuses."""
        settings = self._settings
        tools = sampling.tools if settings.tools == "native" and "tools" not in self._refused else ()
        chosen: dict[str, JsonValue] = {
            "temperature": settings.temperature if sampling.temperature is None else sampling.temperature,
            "top_p": settings.top_p if sampling.top_p is None else sampling.top_p,
            self._max_tokens_name: settings.max_tokens if sampling.max_tokens is None else sampling.max_tokens,
            "seed": sampling.seed,
            "stop": list(sampling.stop) or None,
            "tools": native_schemas(tools) or None,
            "stream": self._stream or None,
            "stream_options": {"include_usage": True} if self._stream else None,
        }
        sent = native_messages(messages, with_reasoning=self._with_reasoning) if tools else map(text_message, messages)
        return {
            "model": settings.model,
            "messages": list(sent),
            **{name: value for name, value in chosen.items() if value is not None and name not in self._refused},
            **settings.extra,
        }

    async def _send(self, body: dict[str, JsonValue], sampling: Sampling) -> Answer:
        """One request, when its place in the endpoint's limits has come."""
        # Half surrogate pairs, which models write into JSON strings, cannot be sent: each becomes `?`.
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        expected = len(data) * self._tokens_per_byte + self._completion_tokens
        async with self._places:
            await self._requests.wait()
            await self._tokens.wait(expected)
            answer = Answer(stop=sampling.stop)
            try:
                text = await self._transport.exchange(data, answer.read_event)
                if text is not None:
                    answer.read_whole(text)
            except ServerError as error:
                self._tokens.correct(-expected)
                if error.retry_after_s is not None and error.retry_after_s <= MAX_WAIT_S:
                    self._requests.hold(error.retry_after_s)
                raise
        self._count(answer, expected, len(data))
        return answer

    def _count(self, answer: Answer, expected: float, num_bytes: int) -> None:
        """Correct the pace by what the call consumed, where the endpoint tells it."""
        usage = answer.usage()
        if usage.prompt_tokens:
            self._tokens.correct(usage.prompt_tokens + usage.completion_tokens - expected)
            self._tokens_per_byte += _LEARNING_RATE * (usage.prompt_tokens / num_bytes - self._tokens_per_byte)
            self._completion_tokens += _LEARNING_RATE * (usage.completion_tokens - self._completion_tokens)

    def _adapt(self, error: ServerError, body: dict[str, JsonValue]) -> bool:
        """Learn from a refusal; True: ask again, the request will be another one.

        Calls that were under way with the same parameter are refused too: they only need to be asked again.
        """
        if error.wants_stream and "stream" not in body:
            self._learn("stream", "answers only as a stream; it is asked for one from now on (set stream = true)")
            self._stream = True
            return True
        if error.wants_reasoning_back and "tools" in body and not self._with_reasoning:
            self._with_reasoning = True
            return True
        refused = error.refused(_DROPPABLE & body.keys() - self._settings.extra.keys())
        for name in sorted(refused):
            if name == "max_tokens" and "max_completion_tokens" in error.said:
                self._max_tokens_name = "max_completion_tokens"
            elif name == "tools":
                self._learn(name, "has no native tool calls; the model is to write them as text (set tools = 'text')")
            elif name == "stop":
                self._learn(name, "refuses stop; replies are cut at the stop strings here from now on")
            else:
                self._learn(name, f"refuses {name}; it is left to the endpoint from now on")
        return bool(refused)

    def _learn(self, name: str, warning: str) -> None:
        if name not in self._refused:
            _log.warning("%s: %s", self._where, warning)
        if name != "stream":
            self._refused.add(name)

    def _check_reasoning(self, reply: ChatReply, num_reasoning_tokens: int) -> None:
        """Say once where a model is asked for long CoT and shows no reasoning."""
        if reply.reasoning:
            self._reasons = True
        elif self._reasons is None:
            self._reasons = False
            _log.warning(
                "%s: %s; its turns count as short CoT. For long CoT have the endpoint return the reasoning (vLLM, SGLang: "
                "--reasoning-parser; llama.cpp: --reasoning-format deepseek; DashScope: extra.enable_thinking = true; "
                "OpenRouter: extra.reasoning.enabled = true; Ollama: a thinking model), or set sample.mode = 'short'",
                self._where,
                f"keeps its reasoning ({num_reasoning_tokens} tokens) to itself"
                if num_reasoning_tokens
                else "returned no reasoning",
            )

    def _explained(self, error: Failure, attempts: int) -> ModelError:
        """The error for the user: endpoint, model, status, what it said, what to do."""
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        if isinstance(error, NoAnswerInTime):
            return ModelError(f"{self._where}: {error}{tries}; raise timeout_s or lower max_concurrent")
        if isinstance(error, BrokenOff):
            return ModelError(
                f"{self._where}: status 200, but the answer is not complete{tries}: {error}; run the same command again, "
                f"set stream = {'false' if self._stream else 'true'}, or update the server"
            )
        if not isinstance(error, ServerError):
            return ModelError(
                f"{self._where}: connection failed{tries}: {error}; check base_url and that the server is running"
            )
        status = f"status 200 with the error {error.status}" if error.in_answer else f"status {error.status}"
        if error.context_is_full:
            return ContextFullError(f"{self._where}: {status}: the context is full: {shortened(error.said)}")
        return ModelError(f"{self._where}: {status}{tries}: {shortened(error.said)}; {self._advice(error)}")

    def _advice(self, error: ServerError) -> str:
        status, settings = error.status, self._settings
        if error.out_of_credit or status == 402:
            return "the account's quota is used up"
        if status in (401, 403):
            key = f"${settings.api_key_env}" if settings.api_key_env else settings.api_key_file
            return f"check the key in {key}" if key else "set api_key_env to the variable that holds the key"
        if status == 404:
            return "check base_url (it often ends in /v1) and the model's name"
        if 300 <= status < 400:
            return "check base_url: the server answers with a redirect, which is not followed with the key"
        if status == 429:
            return "set requests_per_minute or tokens_per_minute, lower max_concurrent, or run the same command again later"
        if status in (504, 524) and not self._stream:
            return "a proxy gave up waiting; set stream = true"
        if status >= 500:
            return "run the same command again later, or raise max_attempts"
        if extra := sorted(error.refused(settings.extra.keys())):
            return f"take {', '.join(extra)} out of the model's extra"
        return "the endpoint refuses this request; check the model's settings"
