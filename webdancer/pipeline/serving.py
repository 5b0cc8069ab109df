"""Puts a model behind the OpenAI-compatible API: the scribe, or a trained checkpoint."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from webdancer.config import Config, PolicySettings
from webdancer.errors import ConfigError
from webdancer.llm.protocol import ChatModel
from webdancer.pipeline.policies import open_policy
from webdancer.pipeline.progress import console
from webdancer.pipeline.run_folder import read_manifest
from webdancer.records import CotMode
from webdancer.scribe.model import Scribe
from webdancer.serve.checkpoint import ServedCheckpoint
from webdancer.serve.openai_api import create_app, serve


async def serve_model(model: str, *, host: str, port: int, config: Config | None = None) -> None:
    """Serve `scribe` or the checkpoint in a folder until stopped.

    Args:
        config: settings of the engine (`policy`); None takes those of the run that the checkpoint is in.

    Raises:
        ConfigError: there is no such model.
    """
    async with _open(model, config) as models:

        def on_ready(bound: int) -> None:
            console.print(f"Serving {', '.join(models)} at http://{host}:{bound}/v1 (Ctrl-C stops)")

        await serve(create_app(models), host, port, on_ready)


@asynccontextmanager
async def _open(model: str, config: Config | None) -> AsyncIterator[Mapping[str, ChatModel]]:
    """The models to serve, by name."""
    if model == "scribe":
        yield {scribe.name: scribe for scribe in (Scribe(mode=CotMode.SHORT), Scribe(mode=CotMode.LONG))}
        return
    path, settings = _checkpoint(model, config)
    name = path.name
    async with open_policy(path, settings, name=name) as policy:
        yield {name: ServedCheckpoint(policy.tokens, policy.engine, name=name)}


def _checkpoint(model: str, config: Config | None) -> tuple[Path, PolicySettings]:
    """The checkpoint's folder, and how to run it: as given, else as the run did that it is in, else by default."""
    path = Path(model).resolve()
    if not path.is_dir():
        raise ConfigError(f"--model: got {model!r}, expected 'scribe' or the folder of a checkpoint")
    if config is None:
        manifest = read_manifest(path.parent)
        config = manifest.config if manifest else Config()
    return path, config.policy
