"""Makes the chat model of each role from the settings: the scribe, or an OpenAI-compatible endpoint."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from webdancer.calls.outside import Outside
from webdancer.config import Config, EndpointSettings, LlmSettings, ProviderSettings
from webdancer.errors import ReplayError
from webdancer.keys import read_key
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import ChatModel, ChatReply, Message, Sampling
from webdancer.llm.transport import shown_address
from webdancer.records import CotMode
from webdancer.scribe.model import Scribe
from webdancer.web.providers import PROVIDERS

ROLES = ("teacher", "writer", "rewriter", "summariser", "judge", "critic")
"""The roles that the settings know; `agent` is the teacher's model without planted faults."""


@dataclass(frozen=True)
class Models:
    """The chat model of each role."""

    teacher: ChatModel
    """Samples the training trajectories; the scribe commits its labelled faults and takes its short cuts here."""
    agent: ChatModel
    """Answers questions: the teacher without planted faults and short cuts."""
    writer: ChatModel
    rewriter: ChatModel
    summariser: ChatModel
    judge: ChatModel
    critic: ChatModel


@asynccontextmanager
async def open_models(
    settings: LlmSettings, *, mode: CotMode, outside: Outside, fault_log: Path | None = None
) -> AsyncIterator[Models]:
    """The models of all roles; connections are closed at the end. Endpoints that are replayed need no key.

    Raises:
        ConfigError: a key that an endpoint needs is not set.
    """
    opened: dict[str, OpenAIChatModel] = {}

    def connect(endpoint: EndpointSettings) -> ChatModel:
        if outside.is_replay:
            return _Replayed(endpoint.model)
        key = endpoint.model_dump_json()
        if key not in opened:
            opened[key] = OpenAIChatModel(endpoint)
        return opened[key]

    def make(role: str) -> ChatModel:
        endpoint: EndpointSettings = getattr(settings, "teacher" if role == "agent" else role) or settings.default
        if endpoint.base_url != "scribe":
            return outside.model(role, connect(endpoint), endpoint)
        # The scribe works in this process and always answers alike: there is nothing to record, to count or to pay.
        if role != "teacher":
            return Scribe(mode=mode)
        return Scribe(
            mode=mode,
            faults=settings.faults,
            fault_log=fault_log,
            shortcuts=settings.shortcuts,
            vary=settings.vary_wording,
        )

    try:
        yield Models(**{role: make(role) for role in (*ROLES, "agent")})
    finally:
        for model in opened.values():
            await model.aclose()


def check_keys(config: Config) -> None:
    """Look for the keys of all endpoints and search engines, before anything is begun that needs them later.

    Raises:
        ConfigError: one is missing.
    """
    for role in ROLES:
        endpoint: EndpointSettings = getattr(config.llm, role) or config.llm.default
        if endpoint.base_url != "scribe":
            what = f"{shown_address(endpoint.base_url)}, model {endpoint.model!r}"
            read_key(env=endpoint.api_key_env, file=endpoint.api_key_file, what=what)
    for name in config.web.search:
        if name != "snapshot":
            settings: ProviderSettings = getattr(config.web, name)
            PROVIDERS[name].open(settings)  # it looks for its key; nothing is connected yet


class _Replayed:
    """Stands for an endpoint whose replies all come from a recording."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        raise ReplayError(f"the model {self.name!r} is replayed and cannot be asked")
