"""Puts a model behind the OpenAI-compatible API."""

from webdancer.errors import ConfigError
from webdancer.llm.protocol import ChatModel
from webdancer.pipeline.progress import console
from webdancer.records import CotMode
from webdancer.scribe.model import Scribe
from webdancer.serve.openai_api import create_app, serve


async def serve_model(model: str, *, host: str, port: int) -> None:
    """Serve until stopped.

    Raises:
        ConfigError: there is no such model.
    """
    if model != "scribe":
        raise ConfigError(f"--model: got {model!r}, expected 'scribe'")
    scribes = [Scribe(mode=CotMode.SHORT), Scribe(mode=CotMode.LONG)]
    models: dict[str, ChatModel] = {scribe.name: scribe for scribe in scribes}

    def on_ready(bound: int) -> None:
        console.print(f"Serving {', '.join(models)} at http://{host}:{bound}/v1 (Ctrl-C stops)")

    await serve(create_app(models), host, port, on_ready)
