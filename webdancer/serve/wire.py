"""The part of OpenAI's chat-completion request that is understood. Fields that are not known are let pass."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

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


class ChatMessage(BaseModel):
    """One message; `developer` is the newer name of `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)] = ""
    reasoning_content: str | None = None

    def to_message(self) -> Message:
        """The message of our own protocol."""
        if self.role == "assistant":
            return Message("assistant", self.content, reasoning=self.reasoning_content)
        return Message("system" if self.role in ("system", "developer") else "user", self.content)


class StreamOptions(BaseModel):
    """Whether the stream ends with a chunk that holds the usage."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of `POST /v1/chat/completions`."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    """The newer name of `max_tokens`; wins where both are given."""
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed)] = []
    seed: int | None = None
    n: Literal[1] | None = 1
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    def chat_messages(self) -> list[Message]:
        """The messages in our own protocol."""
        return [message.to_message() for message in self.messages]

    def sampling(self) -> Sampling:
        """The sampling settings in our own protocol."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=tuple(self.stop),
            seed=self.seed,
        )
