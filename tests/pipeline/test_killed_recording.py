"""`webdancer build --record`, killed again and again, ends as if it had not been, and its recording gives back just that."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from test_failures import model_server, records

from webdancer.calls.ledger import read_ledger
from webdancer.calls.tape import CallKind, RecordedCall, Tape
from webdancer.config import CrawlSettings
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.pipeline.embedded import serve_embedded_web
from webdancer.pipeline.stages import crawl_to_snapshot, run_pipeline
from webdancer.scribe.model import Scribe
from webdancer.settings_file import load_config
from webdancer.store import read_records
from webdancer.world.facts import World

KILL_EVERY = 47
"""Calls between two kills, which come in the pilot and in the run."""
NUM_AT_ONCE = 4
SETTINGS = """
[crawl]
source = "{source}"
[llm.default]
base_url = "{url}/v1"
model = "{model}"
price_prompt = 1.0
price_completion = 2.0
[synth]
concurrency = {at_once}
pages_per_group = 3
[synth.num_questions]
count = 0
multi_hop = 6
intersection = 0
easy_to_hard = 2
[sample]
concurrency = {at_once}
max_attempts = 2
[agent]
max_steps = 12
[eval]
systems = ["scribe", "closed_book"]
concurrency = {at_once}
[policy]
base = "none"
"""
RECORDS = ("qa.jsonl", "heldout_qa.jsonl", "trajectories.jsonl", "verdicts.jsonl", "sft.jsonl", "eval/scribe.jsonl")


class NeverTheSame:
    """A model that puts every thought in other words each time, as a real one does; it can be killed at a given call."""

    def __init__(self) -> None:
        self._scribe, self.num_calls, self.kill_at = Scribe(), 0, 0
        self.process: asyncio.subprocess.Process | None = None
        self.name = self._scribe.name

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        self.num_calls += 1
        if self.num_calls == self.kill_at and self.process is not None:
            self.process.kill()
        await asyncio.sleep(0.002)
        reply = await self._scribe.chat(messages, sampling)
        return replace(reply, content=reply.content.replace("<think>\n", f"<think>\nCall {self.num_calls}. "))


async def build(model: NeverTheSame, tmp_path: Path, *options: str) -> tuple[int, str]:
    arguments = (
        "build",
        str(tmp_path / "site"),
        "--config",
        str(tmp_path / "my.toml"),
        "--max-calls",
        "100000",
        *options,
    )
    model.process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "webdancer", *arguments, cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await model.process.communicate()
    assert model.process.returncode is not None
    return model.process.returncode, said.decode()


async def test_a_build_that_is_killed_again_and_again_loses_nothing_and_is_replayed_to_the_letter(tmp_path):
    world, model = World(7, 300), NeverTheSame()
    async with serve_embedded_web(world, access_log=tmp_path / "access.jsonl") as resolve:
        await crawl_to_snapshot(CrawlSettings(urls=world.roots(), resolve=resolve), tmp_path / "site")
    num_killed = 0
    async with model_server(model) as url:
        (tmp_path / "my.toml").write_text(
            SETTINGS.format(source=tmp_path / "site", url=url, model=model.name, at_once=NUM_AT_ONCE)
        )
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            model.kill_at = model.num_calls + KILL_EVERY
            code, said = await build(model, tmp_path, "--out", "run", "--record", "tape")
            num_killed += code == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL), said
    assert num_killed >= 3
    calls = [c for c in read_records(tmp_path / "tape" / "calls.jsonl", RecordedCall) if c.kind is CallKind.CHAT]
    ledgers = [tmp_path / "run" / "ledger.jsonl", tmp_path / "run" / "pilot" / "ledger.jsonl"]
    counted = sum(s.calls for a, s in read_ledger(ledgers).items() if a.kind is CallKind.CHAT)
    assert counted == len(calls)
    assert len({call.id.rpartition("-")[0] for call in calls}) == len(calls)  # what was answered was never asked again
    assert counted <= model.num_calls <= counted + num_killed * 2 * NUM_AT_ONCE  # those under way when it was killed
    code, said = await build(model, tmp_path, "--out", "again", "--replay", "tape")
    assert code == 0, said
    assert records(tmp_path / "again", RECORDS) == records(tmp_path / "run", RECORDS)


async def test_a_run_that_was_begun_with_a_recording_went_on_without_a_word(tmp_path, capsys):
    config = load_config(Path(__file__).parent / "micro.toml")
    config = config.model_copy(update={"policy": config.policy.model_copy(update={"base": "none"})})
    with Tape(tmp_path / "tape", replay=False) as tape:
        await run_pipeline(tmp_path / "run", config, until="crawl", tape=tape)
    assert "is recorded in" not in capsys.readouterr().err
    await run_pipeline(tmp_path / "run", config, until="crawl")  # done before: nothing is missing
    assert "is recorded in" not in capsys.readouterr().err
    await run_pipeline(tmp_path / "run", config, until="synth")
    said = " ".join(capsys.readouterr().err.split())
    assert f"this run is recorded in {tmp_path / 'tape'}" in said.replace("- ", "-")
    assert "--record" in said
