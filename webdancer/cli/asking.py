"""Subcommands that answer: a question on the command line, or a server for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from webdancer.cli.common import ConfigOption, JsonOption, PortOption, app, print_json, run_async
from webdancer.records import CotMode
from webdancer.settings_file import load_config

ModelOption = Annotated[
    str | None,
    typer.Option(help="A checkpoint's folder, or the root of an OpenAI-compatible API (`http://…/v1`)."),
]


@app.command()
def ask(
    question: str,
    model: ModelOption = None,
    snapshot: Annotated[Path | None, typer.Option(help="The snapshot to search.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--run", help="A run whose snapshot is searched; by default the one that the checkpoint is in."),
    ] = None,
    heldout: Annotated[bool, typer.Option("--heldout", help="Search the run's held-out web.")] = False,
    config: ConfigOption = None,
    mode: Annotated[
        CotMode | None, typer.Option(help="Short or long chains of thought; by default as sampled.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question, showing every step. The settings are those of --config, else of the run."""
    from webdancer.pipeline.asking import ask_question, run_of
    from webdancer.pipeline.stages import settings_of

    run = run_of(model, out)
    # A checkpoint knows the prompt and the observations of its run alone; the run's settings go with it to any snapshot.
    of_run = None if snapshot and model is None and out is None else settings_of(run)
    settings = load_config(config) if config else of_run or load_config(Path("tiny"))
    trajectory = run_async(
        ask_question(
            question,
            snapshot or run / ("heldout_snapshot" if heldout else "snapshot"),
            settings,
            model=model,
            mode=mode or settings.sample.mode,
            show_steps=not as_json,
        ),
        resumable=False,
    )
    if as_json:
        print_json(trajectory.model_dump(mode="json"))
    if trajectory.answer is None:
        raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="What to serve: `scribe`, or the folder of a checkpoint.")] = "scribe",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: PortOption = 8000,
    config: ConfigOption = None,
) -> None:
    """Serve a model behind an OpenAI-compatible API."""
    from webdancer.pipeline.serving import serve_model

    settings = load_config(config) if config else None
    run_async(serve_model(model, host=host, port=port, config=settings), resumable=False)
