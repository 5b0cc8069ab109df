"""Subcommands for settings and for data in the formats of others."""

from pathlib import Path
from typing import Annotated

import typer

from webdancer.cli.common import ConfigOption, app, print_json
from webdancer.config import Config
from webdancer.errors import ConfigError
from webdancer.settings_file import load_config


@app.command()
def settings(config: ConfigOption = None) -> None:
    """Print all settings with their explanations, as TOML to copy from: the defaults, or those of --config."""
    from webdancer.settings_file import settings_toml

    typer.echo(settings_toml(load_config(config) if config else Config()), nl=False)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="The file to read.")],
    out: Annotated[Path, typer.Option(help="Folder for trajectories.jsonl and verdicts.jsonl.")],
    format: Annotated[str, typer.Option(help="`webdancer`: the authors' released trajectories.")] = "webdancer",
) -> None:
    """Read trajectories that others published."""
    from webdancer.trajectories.import_release import import_webdancer

    if format != "webdancer":
        raise ConfigError(f"--format: got {format!r}, expected 'webdancer'")
    print_json(import_webdancer(file, out).model_dump())
