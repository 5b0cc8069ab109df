"""When a call to a server is tried again: how long the server asks to wait, and what of that we do.

Endpoints and search providers alike repeat with stamina; its own hook, which warns on standard error without saying what failed,
gives way to a line in the log.
"""

import logging
import random
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from time import time

from stamina.instrumentation import RetryDetails, set_on_retry_hooks

_log = logging.getLogger(__name__)

MAX_WAIT_S = 120.0
"""A server that asks for a longer wait has run out of quota: that is reported instead."""


def read_retry_after(value: str) -> float | None:
    """Seconds that a Retry-After header asks to wait (RFC 9110, section 10.2.3: seconds or an HTTP date); None: it is neither."""
    seconds = read_number(value)
    if seconds is not None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time())
    except (ValueError, OverflowError):
        return None


def read_number(text: str | None) -> float | None:
    """A number without a sign, as headers give it."""
    return float(text) if text and re.fullmatch(r"\d{1,14}(\.\d+)?", text.strip()) else None


def wait_as_asked(asked_s: float | None) -> bool | float:
    """For stamina, of a failure that may pass: True waits by backoff, a number of seconds is what was asked for, False gives up.

    All calls that wait are free at once: they spread over up to a second more.
    """
    if asked_s is None:
        return True
    return asked_s <= MAX_WAIT_S and asked_s + random.uniform(0.0, min(1.0, asked_s))


def _log_retry(details: RetryDetails) -> None:
    _log.info("attempt %d failed, again in %.1f s: %s", details.retry_num, details.wait_for, details.caused_by)


set_on_retry_hooks([_log_retry])
