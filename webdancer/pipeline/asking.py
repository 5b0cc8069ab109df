"""Answers one question and shows every step as it happens."""

import json
import re
from pathlib import Path

from rich.markup import escape

from webdancer.agent.answering import Answered, why_unanswered
from webdancer.calls.ledger import Spent
from webdancer.config import AgentSettings
from webdancer.errors import ConfigError
from webdancer.pipeline.agents import AgentChoice, is_checkpoint, open_agent
from webdancer.pipeline.progress import console
from webdancer.records import Step, Trajectory

_SHOWN_CHARS = 700
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What steers a terminal: a page's text may only be read."""


async def ask_question(question: str, choice: AgentChoice, *, show_steps: bool) -> Trajectory:
    """Run one episode.

    Raises:
        ConfigError: the question is empty, or there is no such model.
        SnapshotError: there is no finished snapshot.
    """
    if not question.strip():
        raise ConfigError("the question is empty")
    async with open_agent(choice) as agent:
        answered = await agent.answer(question, on_step=_print_step if show_steps else None)
        if show_steps:
            _print_outcome(answered, agent.settings)
            _print_cost(agent.spent())
            if choice.is_embedded:
                console.print("This is the embedded web. For the live one: --config live (docs/live.md).", style="dim")
    return answered.trajectory


def _print_cost(spent: Spent) -> None:
    """What the question consumed, where it went to models that are served."""
    tokens = spent.prompt_tokens + spent.completion_tokens
    if tokens or spent.untold:
        money = f", money {spent.money:.4f}" if spent.money else ""
        untold = f" ({spent.untold} calls told no usage)" if spent.untold else ""
        console.print(f"{spent.calls} calls, {tokens:,} tokens{money}{untold}", style="dim")


def run_of(model: str | None, run: Path | None) -> Path:
    """The run whose snapshot and settings go with a model: the one given, else the folder around the checkpoint."""
    if run is not None:
        return run
    return Path(model).absolute().parent if model and is_checkpoint(model) else Path("runs/quickstart")


def _print_step(step: Step) -> None:
    if step.thought:
        console.print(f"[italic]{_shown(step.thought)}[/]")
    if step.tool:
        console.print(f"[bold cyan]{_shown(step.tool)}[/] {_shown(json.dumps(step.arguments, ensure_ascii=False))}")
    if step.observation:
        text = step.observation
        cut = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} … ({len(text):,} characters)"
        console.print(_shown(cut), style="red" if step.error else "dim")
    console.print()


def _print_outcome(answered: Answered, settings: AgentSettings) -> None:
    """The answer, and the pages that were read on the way as its sources."""
    trajectory, sources = answered
    if trajectory.answer is None:
        console.print(f"[bold red]No answer[/]: {_shown(why_unanswered(trajectory, settings))}")
        return
    console.print("Answer: ", style="bold green", end="")
    print(_CONTROL.sub("", trajectory.answer), flush=True)
    if sources:
        lines = [f"  {' '.join(source.title.split())}\n    {source.url}" for source in sources]
        console.print(_shown("Sources:\n" + "\n".join(lines)), soft_wrap=True)
    elif warning := _unfounded(trajectory):
        console.print(f"[bold yellow]warning:[/] {_shown(warning)}", soft_wrap=True)


def _unfounded(trajectory: Trajectory) -> str:
    """Why an answer for which no page was read may be a guess; empty where search results are behind it."""
    calls = [step for step in trajectory.steps if step.tool is not None]
    if not calls:
        return "nothing was searched or read: the answer is the model's own knowledge, or a guess"
    if all(step.error is not None for step in calls):
        return f"every call failed, so the answer is a guess; the last one: {' '.join((calls[-1].observation or '').split())}"
    return ""


def _shown(text: str) -> str:
    """Text as it is, for rich."""
    return escape(_CONTROL.sub("", text))
