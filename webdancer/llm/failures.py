"""How a call to an endpoint fails, and what a server's refusal means: wait, ask without a parameter, or give up.

Servers say the same things in many forms: OpenAI's error object, FastAPI's `detail`, a bare text, an HTML page of a proxy, an
error inside a status 200. They are read here, and every key is taken out.
"""

import json
import re
from collections.abc import Collection, Mapping
from time import time

from webdancer.keys import redact
from webdancer.retries import read_number, read_retry_after, wait_as_asked

_RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_CONTEXT_FULL = re.compile(
    r"context_length_exceeded|exceed_context_size|string_above_max_length|string_too_long"
    r"|(?:maximum|model'?s?|available|allowed|the) (?:context|sequence)[ _-]?(?:length|window|size)"
    r"|context (?:length|window|size|limit)|(?:prompt|input)(?: \([^)]*\))? is too long|prompt too long"
    r"|too many (?:input |prompt )?tokens|range of input length|max_tokens must be at least 1, got -"
    r"|input token count|(?:tokens?|input length) .{0,40}exceeds? .{0,40}(?:maximum|limit)"
    r"|reduce the length of the (?:messages|prompt)|输入长度超|超过.{0,12}(?:上下文|最大长度)",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"request too large", re.IGNORECASE)
"""OpenAI and Groq, with 429 or 413: the request alone is more than a minute's tokens."""
_REFUSAL = re.compile(
    r"unsupported|not support|n.t support|not (?:allowed|permitted|accepted|recogni[sz]ed)|no endpoints found that support"
    r"|unrecogni[sz]ed|unknown|unexpected|extra_forbidden|extra inputs|only the default|deprecated|tool choice requires"
    r"|不支持|不被支持|不允许|未知",
    re.IGNORECASE,
)
_LOCATION = re.compile(r"""extra_forbidden['"],\s*['"]loc['"]:\s*[\[(]['"]body['"],\s*['"](\w+)['"]\s*,?\s*[\])]""")
"""A field of the body that pydantic forbids, in JSON or as Python prints it."""
_STOP = re.compile(
    r"""['"`‘“]stop['"`’”]|(?:parameters?|arguments?|fields?|propert(?:y|ies)|keys?|options?|inputs?|参数|字段)[\s:：=\[(]*stop\b"""
    r"""|\bstop\s*(?:parameter|argument|field|sequences?|strings?|words?|参数|不|is\b)"""
    r"""|(?:support|支持)\s*(?:the\s+|parameter\s+|设置\s*|参数\s*)*stop\b|^stop$""",
    re.IGNORECASE | re.MULTILINE,
)
"""The parameter, which is a common word too."""
_STREAM_ONLY = re.compile(
    r"only support(?:s|ed)? (?:the )?stream|non-streaming calls|stream=false|非流式|(?:仅|只)支持流式", re.IGNORECASE
)
_NO_CREDIT = re.compile(
    r"insufficient_quota|credit_balance_exhausted|billing_hard_limit_reached|arrearage|free ?(?:allocated|tier)|余额不足|欠费",
    re.IGNORECASE,
)
_THROTTLED = re.compile(r"throttling|limit_requests|limit_burst_rate|rate_limit|too_many_requests", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Failure(Exception):
    """An attempt that brought no answer. Its text says why."""


class Unreachable(Failure):
    """No connection, or one that ended before an answer began."""


class NoAnswerInTime(Failure):
    """`timeout_s` passed first."""


class BrokenOff(Failure):
    """The answer began and did not end as a complete one does."""


class ServerError(Failure):
    """The server refused, by its status or by an error in the place of an answer.

    Args:
        status: of the response, or the one that an error inside a status 200 names.
        said: what the server said; keys are taken out.
        code: its name of the problem: `code` and `type` of the error, together.
        param: the parameter that it names, if any.
        retry_after_s: what it asks to wait.
        in_answer: the error came with the status 200.
        out_of_credit: no wait would help, only money.
    """

    def __init__(
        self,
        status: int,
        said: str,
        *,
        code: str = "",
        param: str | None = None,
        retry_after_s: float | None = None,
        in_answer: bool = False,
        out_of_credit: bool = False,
    ) -> None:
        self.status, self.said, self.code, self.param = status, redact(said), redact(code), param
        super().__init__(f"status {status}: {shortened(self.said)}")
        self.retry_after_s, self.in_answer, self.out_of_credit = retry_after_s, in_answer, out_of_credit

    @property
    def context_is_full(self) -> bool:
        """Whether the request is larger than the model or the endpoint takes."""
        if self.status == 413 or (self.status == 429 and _TOO_LARGE.search(self.said)):
            return True
        text = f"{self.code} {self.said}"
        return (self.in_answer or self.status in (400, 422, 500)) and _CONTEXT_FULL.search(text) is not None

    @property
    def wants_stream(self) -> bool:
        """Whether the model answers only as a stream (DashScope, of reasoning models)."""
        return self.status in (400, 422) and _STREAM_ONLY.search(self.said) is not None

    @property
    def wants_reasoning_back(self) -> bool:
        """Whether the earlier turns lack the reasoning that led to their tool calls (DeepSeek's thinking mode)."""
        return self.status == 400 and re.search(r"reasoning_content", self.said) is not None

    def refused(self, sent: Collection[str]) -> set[str]:
        """Those of the parameters that were sent which the endpoint does not take."""
        if self.status not in (400, 404, 422):
            return set()
        forbidden = set(_LOCATION.findall(self.said)) & set(sent)
        if forbidden:
            return forbidden
        if not _REFUSAL.search(f"{self.code} {self.said}"):
            return set()
        if self.param is not None and self.param in sent:
            return {self.param}
        return {name for name in sent if _names(name, self.said)}


def _names(name: str, text: str) -> bool:
    """Whether `text` speaks of the parameter `name`."""
    if name == "stop":
        return _STOP.search(text) is not None
    if name == "tools" and re.search(r"tool (?:choice|use|calling)", text, re.IGNORECASE):
        return True
    return re.search(rf"(?<![\w.]){name}(?!\w)", text) is not None


def retry_delay(error: Exception) -> bool | float:
    """For stamina: False gives up, True waits by backoff, a number of seconds is what the server asked for."""
    if not isinstance(error, ServerError):
        return isinstance(error, Failure)
    passing = error.status in _RETRIED_STATUSES or error.status >= 500 or _THROTTLED.search(error.code) is not None
    if error.status == 402:
        passing = error.retry_after_s is not None
    if not passing or error.out_of_credit or error.context_is_full or error.status == 501:
        return False
    return wait_as_asked(error.retry_after_s)


def read_error(status: int, headers: Mapping[str, str], text: str, *, in_answer: bool = False) -> ServerError:
    """The error that a response's body tells of, in whichever form."""
    try:
        body = json.loads(text)
    except ValueError:
        title = _TITLE.search(text)
        said = f"page titled {' '.join(title.group(1).split())!r}" if title else text.strip() or "(empty answer)"
        return ServerError(status, said, retry_after_s=retry_after_s(status, headers))
    if isinstance(body, list) and body:  # Google wraps its errors in a list
        body = body[0]
    fields = body if isinstance(body, dict) else {}
    error = fields.get("error", fields)
    if not isinstance(error, dict):
        error = {"message": error}
    message = error.get("message", error.get("detail", fields.get("detail")))
    said = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False) if message else text
    metadata = error.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if raw := metadata.get("raw"):  # what the provider behind OpenRouter said
        said = f"{said}: {raw}"
    code = " ".join(str(error[name]) for name in ("code", "type") if error.get(name) is not None)
    limits = metadata.get("headers")
    known = {**headers, **limits} if isinstance(limits, dict) else headers
    named = error.get("code")
    if in_answer:
        status = named if isinstance(named, int) and 400 <= named < 600 else 400 if "invalid" in code else 502
    # DashScope gives OpenAI's code for a spent quota where only the tokens of this minute are; it is told by its request_id.
    passing = "request_id" in fields and not re.search(r"free", said, re.IGNORECASE)
    no_credit = _NO_CREDIT.search(f"{code} {said}") is not None and not (passing and "insufficient_quota" in code)
    param = error.get("param")
    return ServerError(
        status,
        said,
        code=code,
        param=param if isinstance(param, str) else None,
        retry_after_s=retry_after_s(status, known),
        in_answer=in_answer,
        out_of_credit=no_credit,
    )


def retry_after_s(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait.

    Taken from `retry-after-ms` (OpenAI, Azure), `Retry-After`, and of a 429 from the reset of the limit that is used up
    (`x-ratelimit-reset-requests: 6m0s`) or OpenRouter's `X-RateLimit-Reset`, which is a time in milliseconds.
    """
    lower = {name.lower(): str(value).strip() for name, value in headers.items()}
    if milliseconds := read_number(lower.get("retry-after-ms")):
        return milliseconds / 1000
    if (value := lower.get("retry-after")) is not None:
        return read_retry_after(value)
    if status != 429:
        return None
    waits = [
        sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(lower[f"x-ratelimit-reset-{kind}"]))
        for kind in ("requests", "tokens")
        if lower.get(f"x-ratelimit-remaining-{kind}") == "0" and f"x-ratelimit-reset-{kind}" in lower
    ]
    if waits:
        return max(waits) or None
    reset = read_number(lower.get("x-ratelimit-reset"))
    return max(0.0, reset / 1000 - time()) if reset is not None and reset > 1e12 else None


def shortened(text: str) -> str:
    """The text on one line, cut where it is long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else flat[:300] + "…"
