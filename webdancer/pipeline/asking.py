"""Answers one question over a snapshot and shows every step as it happens."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import openai
from rich.markup import escape

from webdancer.agent.loop import run_episode
from webdancer.config import Config, EndpointSettings
from webdancer.errors import ConfigError
from webdancer.llm.client import OpenAIChatModel
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.pipeline.models import Models, open_models
from webdancer.pipeline.policies import open_policy
from webdancer.pipeline.progress import console
from webdancer.pipeline.toolbox import make_toolbox
from webdancer.records import CotMode, Step, Trajectory
from webdancer.web.snapshot import Snapshot

_SHOWN_CHARS = 700
_LIST_TIMEOUT_S = 10.0


async def ask_question(
    question: str, snapshot: Path, config: Config, *, model: str | None = None, mode: CotMode, show_steps: bool
) -> Trajectory:
    """Run one episode.

    Args:
        model: a checkpoint's folder, or the root of an OpenAI-compatible API that serves one; None asks the teacher's model.
        mode: of models behind an API; a checkpoint here answers as in training, in one text.

    Raises:
        ConfigError: the question is empty, or there is no such model.
        SnapshotError: there is no finished snapshot in that folder.
    """
    if not question.strip():
        raise ConfigError("the question is empty")
    with Snapshot.open(snapshot) as opened:
        async with open_models(config.llm, mode=mode) as models, _agent(model, config, models) as agent:
            trajectory = await run_episode(
                agent,
                make_toolbox(opened, models.summariser, config.agent),
                trajectory_id="ask",
                qa_id="ask",
                question=question,
                settings=config.agent,
                mode=CotMode.SHORT if is_checkpoint(model) else mode,
                sampling=Sampling(temperature=0.0),
                seed=config.seed,
                on_step=_print_step if show_steps else None,
            )
    if show_steps:
        _print_outcome(trajectory)
    return trajectory


@asynccontextmanager
async def _agent(model: str | None, config: Config, models: Models) -> AsyncIterator[ChatModel]:
    """The model that answers."""
    if model is None:
        yield models.agent
    elif not is_checkpoint(model):
        async with OpenAIChatModel(await _first_served(model)) as served:
            yield served
    else:
        async with open_policy(Path(model), config.policy, name=Path(model).name) as policy:
            with closing(policy.episode("ask")) as episode:
                yield episode


async def _first_served(url: str) -> EndpointSettings:
    """The endpoint at `url`, with the first model that it lists.

    Raises:
        ConfigError: nothing answers there, or it has no model.
    """
    try:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=_LIST_TIMEOUT_S) as client:
            names = [served.id async for served in await client.models.list()]
    except openai.OpenAIError as error:
        raise ConfigError(f"--model {url}: no OpenAI-compatible API answers there ({error})") from None
    if not names:
        raise ConfigError(f"--model {url}: the API there has no model")
    return EndpointSettings(base_url=url, model=names[0])


def is_checkpoint(model: str | None) -> bool:
    """Whether `--model` names a folder, not an API."""
    return model is not None and not model.startswith(("http://", "https://"))


def run_of(model: str | None, run: Path | None) -> Path:
    """The run whose snapshot and settings go with a model: the one given, else the folder around the checkpoint."""
    if run is not None:
        return run
    return Path(model).absolute().parent if model and is_checkpoint(model) else Path("runs/quickstart")


def _print_step(step: Step) -> None:
    if step.thought:
        console.print(f"[italic]{escape(step.thought)}[/]")
    if step.tool:
        console.print(f"[bold cyan]{step.tool}[/] {escape(json.dumps(step.arguments, ensure_ascii=False))}")
    if step.observation:
        text = step.observation
        cut = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} … ({len(text):,} characters)"
        console.print(escape(cut), style="red" if step.error else "dim")
    console.print()


def _print_outcome(trajectory: Trajectory) -> None:
    """The answer, and the pages that were read on the way as its sources."""
    sources = [
        url for step in trajectory.steps if step.tool == "visit" and not step.error for url in visited_urls(step)
    ]
    if trajectory.answer is None:
        console.print(f"[bold red]No answer[/]: {trajectory.status}")
        return
    console.print("Answer: ", style="bold green", end="")
    print(trajectory.answer, flush=True)
    if sources:
        console.print("Sources:\n" + "\n".join(f"  {escape(url)}" for url in dict.fromkeys(sources)))


def visited_urls(step: Step) -> list[str]:
    """URLs of a visit, whether one or several were given."""
    value = step.arguments.get("url", step.arguments.get("url_link"))
    return [str(url) for url in value] if isinstance(value, list) else [str(value)]
