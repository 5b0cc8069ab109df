"""One call to a provider as a bounded number of attempts, and the errors in which it ends.

stamina repeats what may pass: connection failures, time-outs, 408, 429 and 5xx, with jittered exponential backoff, or after
what the server's Retry-After header asks for. What will not pass ends the call at once.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

import stamina

from webdancer.config import ProviderSettings
from webdancer.keys import redact
from webdancer.retries import wait_as_asked
from webdancer.web.protocol import ToolFailure
from webdancer.web.providers.text import plain_text

T = TypeVar("T")

_MAX_SAID_CHARS = 200


class RefusalReason(StrEnum):
    """Why a provider answers nobody who asks as we do."""

    KEY = "key"
    QUOTA = "quota"
    RATE = "rate"
    """Too many requests, still after the last attempt."""
    SETUP = "setup"
    """The provider must be set up differently before it can answer."""


class ProviderRefused(ToolFailure):
    """The provider refuses us whatever we ask: the key, the quota or the set-up is to be mended first.

    `reason` is None where the refusal is replayed from a recording.
    """

    def __init__(
        self, message: str, *, reason: RefusalReason | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class AttemptFailed(Exception):
    """One attempt failed.

    Args:
        what: what happened, with the status and what the server said.
        advice: what to do about it.
        passing: whether the next attempt may succeed.
        refusal: set where the provider refuses us rather than the request.
        retry_after_s: how long the server asks to wait.
    """

    def __init__(
        self,
        what: str,
        *,
        advice: str,
        passing: bool = False,
        refusal: RefusalReason | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(what)
        self.what, self.advice, self.passing = what, advice, passing
        self.refusal, self.retry_after_s = refusal, retry_after_s

    def final(self, where: str, num_attempts: int) -> ToolFailure:
        """The error in which the call ends."""
        tries = f" ({num_attempts} attempts)" if num_attempts > 1 else ""
        message = redact(f"{where}: {self.what}{tries}; {self.advice}")
        if self.refusal is None:
            return ToolFailure(message)
        return ProviderRefused(message, reason=self.refusal, retry_after_s=self.retry_after_s)


async def with_attempts(where: str, settings: ProviderSettings, attempt_once: Callable[[], Awaitable[T]]) -> T:
    """What `attempt_once` returns, tried up to `max_attempts` times while it raises a passing `AttemptFailed`.

    Args:
        where: provider and URL, for messages.

    Raises:
        ProviderRefused: the provider refuses us.
        ToolFailure: it failed for good. The message is fit for a model: no key, no HTML, one line.
    """
    num_attempts = 0
    try:
        async for attempt in stamina.retry_context(
            on=_retry_delay,
            attempts=settings.max_attempts,
            timeout=None,
            wait_initial=0.5,
            wait_max=30.0,
            wait_jitter=1.0,
        ):
            with attempt:
                num_attempts = attempt.num
                return await attempt_once()
    except AttemptFailed as failure:
        raise failure.final(where, num_attempts) from failure.__cause__
    raise AssertionError("stamina ends with a return or an error")


def _retry_delay(error: Exception) -> bool | float:
    """For stamina: False gives up, True waits by backoff, a number of seconds is what the server asked for."""
    return isinstance(error, AttemptFailed) and error.passing and wait_as_asked(error.retry_after_s)


def shortened(text: str) -> str:
    """What a server said, as messages quote it: plain text, without keys, not long."""
    flat = plain_text(redact(text))  # first: a key that is cut in two would no longer be found
    return flat if len(flat) <= _MAX_SAID_CHARS else flat[:_MAX_SAID_CHARS] + "…"
