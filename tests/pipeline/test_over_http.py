"""A run whose every role is behind an OpenAI-compatible endpoint gives the records of one that asks in-process."""

import asyncio
from pathlib import Path

from run_records import load_run

from webdancer.config import Config, EndpointSettings, LlmSettings, ScribeFaultSettings
from webdancer.pipeline.stages import run_pipeline
from webdancer.scribe.model import Scribe
from webdancer.serve.openai_api import create_app, serve
from webdancer.settings_file import load_config

NO_FAULTS = ScribeFaultSettings(**dict.fromkeys(ScribeFaultSettings.model_fields, 0.0))


async def test_the_same_records_over_http(tmp_path: Path) -> None:
    small = load_config(Path(__file__).parent / "small.toml")
    scribe = Scribe()
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(create_app({scribe.name: scribe}), "127.0.0.1", 0, ready.set_result))
    endpoint = EndpointSettings(base_url=f"http://127.0.0.1:{await ready}/v1", model=scribe.name)

    def config(default: EndpointSettings) -> Config:
        return small.model_copy(update={"llm": LlmSettings(default=default, faults=NO_FAULTS)})

    try:
        await run_pipeline(tmp_path / "http", config(endpoint))
    finally:
        server.cancel()
    await run_pipeline(tmp_path / "local", config(EndpointSettings()))
    assert load_run(tmp_path / "http") == load_run(tmp_path / "local")
