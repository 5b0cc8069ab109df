"""Answers one question over a snapshot and shows every step as it happens."""

import json
from pathlib import Path

from rich.markup import escape

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.config import Config
from webdancer.errors import ConfigError
from webdancer.llm.protocol import Sampling
from webdancer.pipeline.models import open_models
from webdancer.pipeline.progress import console
from webdancer.records import CotMode, Step, Trajectory
from webdancer.web.search import SnapshotReader, SnapshotSearch
from webdancer.web.snapshot import Snapshot

_SHOWN_CHARS = 700


async def ask_question(question: str, snapshot: Path, config: Config, *, mode: CotMode, show_steps: bool) -> Trajectory:
    """Run one episode.

    Raises:
        ConfigError: the question is empty.
        SnapshotError: there is no finished snapshot in that folder.
    """
    if not question.strip():
        raise ConfigError("the question is empty")
    with Snapshot.open(snapshot) as opened:
        async with open_models(config.llm, mode=mode) as models:
            toolbox = Toolbox(SnapshotSearch(opened), SnapshotReader(opened), models.summariser, config.agent)
            trajectory = await run_episode(
                models.agent,
                toolbox,
                trajectory_id="ask",
                qa_id="ask",
                question=question,
                settings=config.agent,
                mode=mode,
                sampling=Sampling(temperature=0.0),
                seed=config.seed,
                on_step=_print_step if show_steps else None,
            )
    if show_steps:
        _print_outcome(trajectory)
    return trajectory


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
