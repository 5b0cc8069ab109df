"""What goes into the generation engine and what comes out: sampling settings, requests, generations, totals."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

OnToken = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class TokenSampling:
    """How a turn is sampled. Temperature 0 takes the likeliest token; `seed` fixes the turn's random stream."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0


class Generation(NamedTuple):
    """One sampled turn."""

    token_ids: list[int]
    """The stop token that ended it is the last."""
    logprobs: list[float]
    """Under the distribution sampled from, after temperature and nucleus; of greedy tokens at temperature 1."""
    finish: Literal["stop", "length"]


@dataclass(slots=True)
class EngineStats:
    """Totals since the engine was made. Prompt tokens are either cached, shared or prefilled."""

    num_requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Found in the episode's own row, or in a free row that it took over."""
    shared_tokens: int = 0
    """Copied from the row of another episode."""
    prefilled_tokens: int = 0
    sampled_tokens: int = 0
    num_steps: int = 0
    num_moved_rows: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0


@dataclass(eq=False, slots=True)
class Request:
    """A turn under way."""

    session: str
    ids: list[int]
    sampling: TokenSampling
    max_tokens: int
    result: asyncio.Future[Generation]
    on_token: OnToken | None
    key: int
    row: int = -1
    source: int | None = None
    """The row that the first `num_shared` tokens are to be copied from."""
    num_shared: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
