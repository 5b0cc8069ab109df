"""A fifth of all model, search and page calls fails: nothing is lost, nothing is counted twice, all can be replayed."""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from flaky_proxy import FAILURES, FlakyProxy
from run_records import without_times

from webdancer.calls.ledger import read_ledger
from webdancer.calls.tape import CallKind, RecordedCall, Tape
from webdancer.config import Config, EndpointSettings, ProviderSettings, WebSettings
from webdancer.llm.protocol import ChatModel
from webdancer.pipeline.embedded import serve_embedded_web
from webdancer.pipeline.stages import run_pipeline, run_stage
from webdancer.records import QA, QASplit, Status, Trajectory, Verdict
from webdancer.scribe.model import Scribe
from webdancer.serve.openai_api import create_app, serve
from webdancer.settings_file import load_config
from webdancer.store import read_records
from webdancer.web.search import SnapshotSearch
from webdancer.web.snapshot import Snapshot
from webdancer.world.facts import World

MAX_ATTEMPTS = 4
RECORDS = ("trajectories.jsonl", "verdicts.jsonl", "sft.jsonl", "rl_qa.jsonl")


@asynccontextmanager
async def serper_of(snapshot: Path) -> AsyncIterator[str]:
    """A server that speaks Serper's format over a snapshot."""
    with Snapshot.open(snapshot) as opened:
        engine = SnapshotSearch(opened)

        async def search(request: web.BaseRequest) -> web.Response:
            asked = json.loads(await request.read())
            hits = await engine.search(asked["q"], num_results=asked.get("num", 10))
            organic = [{"title": hit.title, "link": hit.url, "snippet": hit.snippet} for hit in hits]
            return web.json_response({"organic": organic})

        runner = web.ServerRunner(web.Server(search, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def model_server(model: ChatModel | None = None) -> AsyncIterator[str]:
    """A model, the scribe by default, behind HTTP."""
    served = model or Scribe()
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(create_app({served.name: served}), "127.0.0.1", 0, ready.set_result))
    try:
        yield f"http://127.0.0.1:{await ready}"
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


def settings(num_questions: int, num_pages: int) -> Config:
    """Questions of which about so many are for SFT, on a web of so many pages; nothing is trained."""
    config = load_config(Path("tiny"))
    shares = {"count": 0.1, "multi_hop": 0.45, "intersection": 0.1, "easy_to_hard": 0.4}
    synth = config.synth.model_copy(
        update={
            "num_questions": {kind: round(share * num_questions / 0.95) for kind, share in shares.items()},
            "num_heldout_questions": {"multi_hop": 2},
        }
    )
    return config.model_copy(
        update={
            "synth": synth,
            "world": config.world.model_copy(update={"num_pages": num_pages, "num_heldout_pages": 300}),
            "sample": config.sample.model_copy(update={"sft_share": 0.99, "max_attempts": 2, "concurrency": 32}),
            "policy": config.policy.model_copy(update={"base": "none"}),
        }
    )


def outside(config: Config, proxy: FlakyProxy) -> Config:
    """The settings with models, search and pages behind the proxy."""
    root = f"http://127.0.0.1:{proxy.port}"
    endpoint = EndpointSettings(base_url=f"{root}/llm/v1", model="scribe", max_attempts=MAX_ATTEMPTS, timeout_s=30.0)
    roles = dict.fromkeys(("teacher", "summariser", "judge", "critic"), endpoint)
    serper = ProviderSettings(base_url=f"{root}/serper", max_attempts=MAX_ATTEMPTS, max_concurrent=32)
    return config.model_copy(
        update={
            "llm": config.llm.model_copy(update=roles),
            "web": WebSettings(search=("serper",), reader="live", serper=serper),
        }
    )


def records(run: Path, names: Sequence[str] = RECORDS) -> dict[str, list[str]]:
    found = {}
    for name in names:
        rows = [without_times(json.loads(line)) for line in (run / name).read_text(encoding="utf-8").splitlines()]
        found[name] = sorted(json.dumps(row, sort_keys=True) for row in rows)
    return found


async def sample_under_failures(tmp_path: Path, num_questions: int, num_pages: int) -> None:
    config = settings(num_questions, num_pages)
    run, again, tape = tmp_path / "run", tmp_path / "again", tmp_path / "tape"
    world = World(config.world.seed, num_pages, right_share=config.world.right_share)
    async with serve_embedded_web(world, access_log=tmp_path / "access.jsonl") as resolve, model_server() as models:
        port_of_pages = next(iter(resolve.values()))
        apis = {"llm": models}
        async with FlakyProxy(apis, port_of_pages, share=0.2, seed=1) as proxy:
            crawl = config.crawl.model_copy(
                update={"resolve": dict.fromkeys(resolve, f"127.0.0.1:{proxy.port}"), "max_per_host": 32}
            )
            config = config.model_copy(update={"crawl": crawl})
            await run_pipeline(run, config, until="synth")
            shutil.copytree(run, again)
            async with serper_of(run / "snapshot") as serper:
                apis["serper"] = serper
                live = outside(config, proxy)
                with Tape(tape, replay=False) as recording:
                    await run_stage("sample", run, live, tape=recording)
    check_accounts(run, num_questions)
    check_retries(run, tape, proxy)
    with Tape(tape, replay=True) as recording:  # no server is left
        await run_stage("sample", again, live, tape=recording)
    assert records(again) == records(run)
    with Snapshot.open(tape / "web") as pages:
        assert len(pages) > num_questions / 10
        assert pages.search("birthplace founder")


def check_accounts(run: Path, num_questions: int) -> None:
    """Every question ended, every episode once, every failure has its reason."""
    asked = [qa for qa in read_records(run / "qa.jsonl", QA) if qa.split is QASplit.SFT]
    trajectories = list(read_records(run / "trajectories.jsonl", Trajectory))
    verdicts = list(read_records(run / "verdicts.jsonl", Verdict))
    assert len(asked) >= 0.8 * num_questions
    assert {trajectory.qa_id for trajectory in trajectories} == {qa.id for qa in asked}
    assert len({trajectory.id for trajectory in trajectories}) == len(trajectories)
    assert len({verdict.id for verdict in verdicts}) == len(verdicts)
    assert {verdict.trajectory_id for verdict in verdicts} == {trajectory.id for trajectory in trajectories}
    failed = [trajectory for trajectory in trajectories if trajectory.status is Status.MODEL_ERROR]
    assert all(trajectory.detail for trajectory in failed)
    learnt = {trajectory.qa_id for trajectory in read_records(run / "sft.jsonl", Trajectory)}
    left = {qa.id for qa in read_records(run / "rl_qa.jsonl", QA)}
    assert learnt | left >= {qa.id for qa in asked}
    assert not learnt & left
    assert len(learnt) > 0.3 * len(asked)  # most failures are mended by another try


def check_retries(run: Path, tape: Path, proxy: FlakyProxy) -> None:
    """Tries are bounded, and the ledger, the recording and the servers tell of the same calls."""
    assert set(proxy.failed) == set(FAILURES)
    share = proxy.failed.total() / proxy.asked.total()
    assert 0.15 < share < 0.25
    calls = Counter(call.kind for call in read_records(tape / "calls.jsonl", RecordedCall))
    counted: Counter[CallKind] = Counter()
    for account, spent in read_ledger([run / "ledger.jsonl"]).items():
        counted[account.kind] += spent.calls if account.stage == "sample" else 0
    assert calls == counted
    for name, kind in (("llm", CallKind.CHAT), ("serper", CallKind.SEARCH)):
        assert calls[kind] <= proxy.asked[name] <= MAX_ATTEMPTS * calls[kind]
        assert proxy.asked[name] < 1.5 * calls[kind]  # 1.25 is what a fifth of failures asks for


async def test_a_small_run_under_failures_is_whole_and_can_be_replayed(tmp_path, monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", "a-key-of-the-test")
    await sample_under_failures(tmp_path, num_questions=24, num_pages=600)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"a-key-of-the-test" in path.read_bytes()]


@pytest.mark.slow
async def test_three_hundred_questions_under_failures(tmp_path, monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", "a-key-of-the-test")
    await sample_under_failures(tmp_path, num_questions=330, num_pages=3400)
