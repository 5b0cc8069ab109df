"""The part of OpenAI's requests for chat completions and completions that is understood; other fields are let pass."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from webdancer.llm.protocol import Message, Sampling


def _joined(content: object) -> object:
    """Content as one string: given as a string, as a list of text parts, or null."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for number, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise ValueError(f'part {number}: got {str(part)[:80]}, expected {{"type": "text", "text": "…"}}')
        texts.append(text)
    return "".join(texts)


def _listed(stop: object) -> object:
    return [] if stop is None else [stop] if isinstance(stop, str) else stop


def _well_formed(text: str) -> str:
    """Half surrogate pairs, which clients make when they cut a string, as `?`: no tokenizer takes them."""
    return text.encode("utf-8", "replace").decode()


_Text = Annotated[str, AfterValidator(_well_formed)]


class ChatMessage(BaseModel):
    """One message; `developer` is the newer name of `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[_Text, BeforeValidator(_joined)] = ""
    reasoning_content: _Text | None = None

    def to_message(self) -> Message:
        """The message of our own protocol."""
        if self.role == "assistant":
            return Message("assistant", self.content, reasoning=self.reasoning_content)
        return Message("system" if self.role in ("system", "developer") else "user", self.content)


class StreamOptions(BaseModel):
    """Whether the stream ends with a chunk that holds the usage."""

    include_usage: bool = False


class _Request(BaseModel):
    """What both kinds of request have in common."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed)] = []
    seed: int | None = None
    n: Literal[1] | None = 1
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    def sampling(self) -> Sampling:
        """The sampling settings in our own protocol."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=tuple(self.stop),
            seed=self.seed,
        )

    def with_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(_Request):
    """The body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    """The newer name of `max_tokens`; wins where both are given."""
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """Models here tell the sampled token's alone, whatever the number."""

    def chat_messages(self) -> list[Message]:
        """The messages in our own protocol."""
        return [message.to_message() for message in self.messages]

    def sampling(self) -> Sampling:
        """The sampling settings in our own protocol."""
        return replace(super().sampling(), max_tokens=self.max_completion_tokens or self.max_tokens)


def _single(prompt: object) -> object:
    """One prompt: given as a string, as token ids, or as a list that holds one of these."""
    if isinstance(prompt, list) and prompt and not all(isinstance(part, int) for part in prompt):
        if len(prompt) > 1:
            raise ValueError(f"got {len(prompt)} prompts, expected one")
        return prompt[0]
    return prompt


class CompletionRequest(_Request):
    """The body of `POST /v1/completions`."""

    prompt: Annotated[_Text | list[Annotated[int, Field(ge=0)]], BeforeValidator(_single)]
    """Text, in which control tokens are plain text; or token ids, in which they are what they are."""
    max_tokens: int | None = Field(16, ge=1)
    echo: Literal[False] | None = False
    logprobs: int | None = Field(None, ge=0, le=5)
    """Models here tell the sampled token's alone, whatever the number."""
    return_token_ids: bool = False
    """Give the ids of the sampled tokens as well, as vLLM does."""
