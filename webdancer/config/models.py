"""Settings of the language models: the endpoint of each role, and the scribe that stands in for them."""

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from webdancer.config.base import Settings


class EndpointSettings(Settings):
    """One chat model."""

    base_url: str = "scribe"
    """`scribe` for the built-in reader, or the root of an OpenAI-compatible API (`https://…/v1`)."""
    model: str = "scribe"
    api_key_env: str | None = None
    """Name of the environment variable that holds the key."""
    api_key_file: str | None = None
    """File that holds the key, in place of the variable."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    timeout_s: float = Field(120.0, gt=0)
    max_attempts: int = Field(5, ge=1)
    max_concurrent: int = Field(32, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    """Prompt and completion tokens together."""
    stream: bool = False
    """Ask for the answer as a stream, as some endpoints want it of reasoning models."""
    tools: Literal["text", "native"] = "text"
    """How the agent's tools are told to the model: in the prompt, with calls in its text, or by the API's own tool calls."""
    extra: dict[str, JsonValue] = {}
    """Sent with every request as it is: `top_k`, `repetition_penalty`, `enable_thinking` and what else the endpoint knows."""
    price_prompt: float = Field(0.0, ge=0)
    """Money for a million prompt tokens."""
    price_cached: float | None = Field(None, ge=0)
    """Money for a million prompt tokens that the endpoint had cached; None: as `price_prompt`."""
    price_completion: float = Field(0.0, ge=0)
    """Money for a million completion tokens."""

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.base_url == "scribe" and (self.model != "scribe" or self.api_key_env or self.api_key_file):
            raise ValueError(
                "a model or a key is named, but no base_url: set it (without one the built-in scribe answers)"
            )
        return self


class ScribeFaultSettings(Settings):
    """Shares of episodes in which the scribe, as teacher, commits one labelled fault."""

    broken_json: float = Field(0.03, ge=0, le=1)
    unknown_tool: float = Field(0.03, ge=0, le=1)
    two_actions: float = Field(0.03, ge=0, le=1)
    invented_observation: float = Field(0.03, ge=0, le=1)
    repetition: float = Field(0.03, ge=0, le=1)
    wrong_answer: float = Field(0.04, ge=0, le=1)
    giving_up: float = Field(0.03, ge=0, le=1)


class LlmSettings(Settings):
    """The model of each role; a role left out takes `default`."""

    default: EndpointSettings = EndpointSettings()
    teacher: EndpointSettings | None = None
    writer: EndpointSettings | None = None
    rewriter: EndpointSettings | None = None
    summariser: EndpointSettings | None = None
    judge: EndpointSettings | None = None
    critic: EndpointSettings | None = None
    faults: ScribeFaultSettings = ScribeFaultSettings()
    shortcuts: float = Field(0.0, ge=0, le=1)
    """Share of hops at which the scribe, as teacher, takes the word of a forum post and leaves the page unread."""
    vary_wording: bool = True
    """Whether the scribe, as teacher, says the same in various words. Learning them costs a tiny policy much of its training."""
