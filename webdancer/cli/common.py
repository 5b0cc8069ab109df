"""What all subcommands share: the app they are registered on, common options, and how work is run and shown."""

import asyncio
import json
import shlex
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from webdancer.calls.tape import Tape
from webdancer.config import Config
from webdancer.errors import ConfigError, WebdancerError
from webdancer.pipeline.progress import console

app = typer.Typer(
    help="Turn websites into a trained search agent (WebDancer, arXiv 2505.22648).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

CONFIG_HELP = "TOML file with the settings, or the name of one that ships: tiny, one-key, live, …"
ConfigOption = Annotated[Path | None, typer.Option("--config", help=CONFIG_HELP)]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        "--record",
        help="Record every model, search and page call in this folder; what it holds already is not asked for again.",
    ),
]
ReplayOption = Annotated[
    Path | None,
    typer.Option("--replay", help="Answer every call from the recording in this folder: no network, no keys."),
]
RunArgument = Annotated[Path, typer.Argument(help="The run's folder.")]


def plain(error: object) -> str:
    """The message without rich markup being read into it."""
    return str(error).replace("[", r"\[")


@contextmanager
def says_how_to_go_on() -> Iterator[None]:
    """Ctrl-C ends the work inside with exit code 130 and a line on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        command = shlex.join(["webdancer", *sys.argv[1:]])
        console.print("\nStopped. Nothing is lost: the same command goes on from here:")
        console.print(f"  {plain(command)}", soft_wrap=True)
        raise typer.Exit(130) from None


def run_async(work: Coroutine[Any, Any, Any], *, resumable: bool = True) -> Any:
    """Run a coroutine to its end; of several failed tasks the first error of ours is shown."""
    try:
        with says_how_to_go_on() if resumable else nullcontext():
            return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, WebdancerError):
            raise error from None
        raise


@contextmanager
def open_tape(record: Path | None, replay: Path | None) -> Iterator[Tape | None]:
    """The recording that calls go to or come from, None where neither is asked for.

    Raises:
        ConfigError: both are.
        ReplayError: there is no recording to replay.
    """
    if record is not None and replay is not None:
        raise ConfigError("--record and --replay exclude each other")
    folder = record or replay
    if folder is None:
        yield None
        return
    with Tape(folder, replay=replay is not None) as tape:
        yield tape


def print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def split_pair(text: str, mark: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(mark)
    if not found or not name.strip() or not value.strip():
        raise ConfigError(f"{option}: got {text!r}, expected NAME{mark}VALUE")
    return name.strip(), value.strip()


def with_endpoint(config: Config, *, base_url: str | None, model: str | None) -> Config:
    """The settings with every role on another endpoint or model; one that is given by its address alone needs no key.

    The settings' prices are those of their own model: of another one none is known.

    Raises:
        ConfigError: a model without an endpoint.
    """
    if base_url is None and model is None:
        return config
    endpoint = config.llm.default
    if base_url is None and endpoint.base_url == "scribe":
        raise ConfigError(f"--model {model}: the settings name no endpoint; add --base-url, or --config one-key")
    update: dict[str, object] = {"base_url": base_url or endpoint.base_url, "model": model or endpoint.model}
    if update["base_url"] != endpoint.base_url:
        update |= {"api_key_env": None, "api_key_file": None}
    if (update["base_url"], update["model"]) != (endpoint.base_url, endpoint.model):
        update |= {"price_prompt": 0.0, "price_cached": None, "price_completion": 0.0}
    roles = dict.fromkeys(("teacher", "writer", "rewriter", "summariser", "judge", "critic"))
    llm = config.llm.model_copy(update={"default": endpoint.model_copy(update=update), **roles})
    return config.model_copy(update={"llm": llm})
