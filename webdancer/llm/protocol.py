"""The one chat protocol that every LLM role speaks.

A role (question writer, teacher, summariser, judge ...) is a prompt; a model is anything that answers a list of
messages. The scribe, an OpenAI-compatible endpoint and a local policy all stand behind `ChatModel`.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from pydantic import JsonValue

from webdancer.records import Usage


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `reasoning` is the model's separate reasoning text, only on assistant messages."""

    role: Literal["system", "user", "assistant"]
    content: str
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings of one call. `None` leaves a setting to the endpoint.

    `tools` and `long_cot` do not change what is asked, only how an endpoint is told and its answer read: they are no part of
    what makes two calls the same.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[dict[str, JsonValue], ...] = field(default=(), repr=False, compare=False)
    """What the agent may call (name, description, parameters), for a model whose API has tool calls of its own. The messages
    name the tools too, and calls and their results stand in the messages' text either way."""
    long_cot: bool = field(default=False, repr=False, compare=False)
    """The reply's reasoning is wanted: it becomes the thought."""


class SampledToken(NamedTuple):
    """One token of a reply."""

    id: int
    text: str
    """The texts of a reply's tokens, joined, are its content; a token that ends in the middle of a character has none."""
    logprob: float
    """Under the distribution that it was sampled from."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A model's answer. `finish` is `length` where `max_tokens` cut it."""

    content: str
    reasoning: str | None = None
    finish: Literal["stop", "length"] = "stop"
    usage: Usage = field(default_factory=Usage)
    tokens: tuple[SampledToken, ...] | None = None
    """What was sampled, where the model tells it."""
    cut_at: str | None = None
    """The model wrote more: the content ends before this stop string, or behind this closing tag (after which a limit cut the
    text). None also where an endpoint applied a stop string and did not tell."""
    usage_told: bool = True
    """False: the endpoint gave no usage, and `usage` counts the call alone."""


class ChatModel(Protocol):
    """Anything that answers a list of messages."""

    @property
    def name(self) -> str: ...

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """Answer `messages`.

        Raises:
            ModelError: the endpoint failed for good (retries are the model's own business).
            ContextFullError: the messages do not fit the model's context.
        """
        ...


class ReplyPiece(NamedTuple):
    """A part of a reply that is under way."""

    content: str
    tokens: tuple[SampledToken, ...] | None = None
    """Those of the piece, where the model tells them; the first piece may be text that was given and not sampled."""
    reasoning: str = ""


ReplyParts: TypeAlias = AsyncGenerator[ReplyPiece | ChatReply, None]
"""The pieces of a reply, and behind them the whole. Close it where it is not read to its end."""


@runtime_checkable
class CompletionModel(Protocol):
    """A model that also goes on with a bare text, or with token ids, without the frame of a chat."""

    async def complete(self, prompt: str | Sequence[int], sampling: Sampling) -> ChatReply:
        """The text that follows `prompt`.

        Raises:
            ModelError: the model could not answer. ContextFullError is its kind for a prompt that is too long.
        """
        ...


@runtime_checkable
class StreamingModel(Protocol):
    """A model that tells its reply while it is under way.

    Both raise what `chat` and `complete` raise; what is wrong with the request itself, before the first piece.
    """

    def stream_chat(self, messages: Sequence[Message], sampling: Sampling) -> ReplyParts:
        """The answer to `messages`."""
        ...

    def stream_complete(self, prompt: str | Sequence[int], sampling: Sampling) -> ReplyParts:
        """The text that follows `prompt`."""
        ...
