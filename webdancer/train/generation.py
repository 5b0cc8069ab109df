"""What goes into a generation engine and what comes out: sampling settings, requests, generations, totals."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, Self, TypeAlias

from transformers import PreTrainedModel


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


class Engine(Protocol):
    """What generates for the policy. An external engine can take the place of the one in this process."""

    def open(self, session: str) -> None:
        """Announce an episode. Engines that work in waves wait for it."""
        ...

    async def generate(self, ids: Sequence[int], sampling: TokenSampling, *, session: str) -> Generation:
        """Continue `ids`, the whole episode so far; what the episode's cache holds of it is not computed again.

        Raises:
            ContextFullError: there is no room for one more token.
        """
        ...

    def release(self, session: str) -> None:
        """The episode is over."""
        ...


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
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    """Drafted tokens that were sampled, hence needed no step of their own."""
    num_steps: int = 0
    """Forward passes that decoded."""
    num_passes: int = 0
    """All forward passes."""
    num_moved_rows: int = 0
    prefill_s: float = 0.0
    """A pass that prefills and decodes counts to both, by its tokens."""
    decode_s: float = 0.0


OnTokens: TypeAlias = Callable[[Sequence[int], Sequence[float]], None]
"""Is told tokens with their log-probabilities as soon as they are sampled."""


class TrainableEngine(Engine, Protocol):
    """An engine that RL can sample from and that can be served: it runs while its context is entered, takes over new weights,
    tells tokens as they come, and counts."""

    stats: EngineStats
    max_context: int
    """Tokens of an episode."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exception: object) -> None: ...

    async def generate(
        self, ids: Sequence[int], sampling: TokenSampling, *, session: str, on_tokens: OnTokens | None = None
    ) -> Generation:
        """As `Engine.generate`."""
        ...

    def sync(self, model: PreTrainedModel) -> None:
        """Sample from these weights from now on."""
        ...


@dataclass(eq=False, slots=True)
class Request:
    """A turn under way."""

    session: str
    ids: list[int]
    sampling: TokenSampling
    max_tokens: int
    result: asyncio.Future[Generation]
    on_tokens: OnTokens | None
    key: int
    """Of its random stream."""
    salt: int
    """Of its episode's contexts in the tables of drafts."""
    row: int = -1
    source: int | None = None
    """The row that the first `num_shared` tokens are to be copied from."""
    num_shared: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
