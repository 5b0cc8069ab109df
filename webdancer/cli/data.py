"""Subcommands for settings and for data in the formats of others."""

from pathlib import Path
from typing import Annotated

import typer

from webdancer.cli.common import ConfigOption, RunArgument, app, print_json
from webdancer.config import Config
from webdancer.settings_file import load_config
from webdancer.trajectories.formats import DataFormat, ExportSplit


@app.command()
def settings(config: ConfigOption = None) -> None:
    """Print all settings with their explanations, as TOML to copy from: the defaults, or those of --config."""
    from webdancer.settings_file import settings_toml

    typer.echo(settings_toml(load_config(config) if config else Config()), nl=False)


@app.command()
def export(
    run: RunArgument,
    format: Annotated[DataFormat, typer.Option(help="The layout of the files; `qa` is for import alone.")],
    out: Annotated[Path, typer.Option(help="The folder to write to: a new one, or one of an earlier export.")],
    split: Annotated[ExportSplit, typer.Option(help="What is written.")] = ExportSplit.ALL,
) -> None:
    """Write a run's trajectories and questions in the format of another project."""
    from webdancer.pipeline.exporting import export_run

    counts = export_run(run, format=format, out=out, split=split)
    print_json(counts.model_dump(mode="json"))


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="The file to read; for hf also the folder of an export.")],
    out: Annotated[Path, typer.Option(help="Folder for trajectories.jsonl and verdicts.jsonl, or for qa.jsonl.")],
    format: Annotated[DataFormat, typer.Option(help="The layout of the file.")] = DataFormat.WEBDANCER,
) -> None:
    """Read trajectories or questions that others published."""
    from webdancer.trajectories.formats.reading import import_file

    print_json(import_file(format, file, out).model_dump(mode="json"))
