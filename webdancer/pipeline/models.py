"""Makes the chat model of each role from the settings: the scribe, or an OpenAI-compatible endpoint."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from webdancer.config import EndpointSettings, LlmSettings
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import ChatModel
from webdancer.records import CotMode
from webdancer.scribe.model import Scribe


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
async def open_models(settings: LlmSettings, *, mode: CotMode, fault_log: Path | None = None) -> AsyncIterator[Models]:
    """The models of all roles; connections are closed at the end.

    Raises:
        ConfigError: a key that an endpoint needs is not set.
    """
    opened: dict[EndpointSettings, OpenAIChatModel] = {}

    def make(endpoint: EndpointSettings | None, *, is_teacher: bool = False) -> ChatModel:
        endpoint = endpoint or settings.default
        if endpoint.base_url == "scribe" and is_teacher:
            return Scribe(
                mode=mode,
                faults=settings.faults,
                fault_log=fault_log,
                shortcuts=settings.shortcuts,
                vary=settings.vary_wording,
            )
        if endpoint.base_url == "scribe":
            return Scribe(mode=mode)
        if endpoint not in opened:
            opened[endpoint] = OpenAIChatModel(endpoint)
        return opened[endpoint]

    try:
        yield Models(
            teacher=make(settings.teacher, is_teacher=True),
            agent=make(settings.teacher),
            writer=make(settings.writer),
            rewriter=make(settings.rewriter),
            summariser=make(settings.summariser),
            judge=make(settings.judge),
            critic=make(settings.critic),
        )
    finally:
        for model in opened.values():
            await model.aclose()
