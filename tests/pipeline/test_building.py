"""From a site to training files in one command: within a cap, by a forecast that holds, resumable, from a recording too."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from webdancer.calls.tape import RecordedCall, Tape
from webdancer.config import BudgetSettings, Config, EndpointSettings, LlmSettings, WebSettings
from webdancer.errors import BudgetError, ConfigError, SnapshotError, StoreError
from webdancer.pipeline.building import Cap, build, proposed
from webdancer.pipeline.embedded import serve_embedded_web
from webdancer.pipeline.forecast import actual, forecast
from webdancer.pipeline.stages import run_pipeline
from webdancer.records import QA, Trajectory
from webdancer.scribe.model import Scribe
from webdancer.serve.openai_api import create_app, serve
from webdancer.settings_file import load_config
from webdancer.store import read_records
from webdancer.web.snapshot import Snapshot
from webdancer.world.facts import World

NUM_PAGES = 900


@asynccontextmanager
async def site_and_model(tmp_path: Path) -> AsyncIterator[Config]:
    """The embedded web as a site of its own, and the scribe behind HTTP; settings for both."""
    world = World(7, NUM_PAGES)
    scribe = Scribe()
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(create_app({scribe.name: scribe}), "127.0.0.1", 0, ready.set_result))
    try:
        async with serve_embedded_web(world, access_log=tmp_path / "access.jsonl") as resolve:
            base = load_config(Path("one-key"))
            synth = base.synth.model_copy(
                update={"num_questions": {"count": 8, "multi_hop": 30, "intersection": 6, "easy_to_hard": 30}}
            )
            endpoint = EndpointSettings(
                base_url=f"http://127.0.0.1:{await ready}/v1", model=scribe.name, price_prompt=1.0, price_completion=2.0
            )
            yield base.model_copy(
                update={
                    "synth": synth,
                    "llm": base.llm.model_copy(update={"default": endpoint}),
                    "crawl": base.crawl.model_copy(
                        update={"resolve": resolve, "delay_s": 0.0, "max_per_host": 8, "same_host": False}
                    ),
                }
            )
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


async def test_a_site_becomes_training_files_by_a_forecast_that_holds(tmp_path):
    run, tape = tmp_path / "run", tmp_path / "tape"
    asked: list[Cap] = []

    def ask_cap(cap: Cap) -> Cap:
        asked.append(cap)
        return Cap(1000.0, None)

    async with site_and_model(tmp_path) as config:
        target = "http://wiki.example/wiki/Main_Page"
        config = config.model_copy(
            update={"crawl": config.crawl.model_copy(update={"path_prefixes": ("/",), "max_pages": NUM_PAGES})}
        )
        with Tape(tape, replay=False) as recording:
            kept = await build(target, run, config, ask_cap=ask_cap, tape=recording)
        again = await build(target, run, config, ask_cap=ask_cap)  # all is done: nothing is asked, nothing called
    assert asked == [proposed(forecast(config))]
    assert again["actual"] == kept["actual"]
    forecast_calls, actual_calls = kept["pilot"]["llm_calls"], kept["actual"]["llm_calls"]
    assert abs(forecast_calls / actual_calls - 1) < 0.25, (forecast_calls, actual_calls)
    assert kept["actual"]["money"] > 0
    assert {qa.kind for qa in read_records(run / "heldout_qa.jsonl", QA)}
    assert len(list(read_records(run / "sft.jsonl", Trajectory))) > 10
    assert {path.name for path in (run / "export").iterdir()} == {
        "webdancer",
        "sharegpt",
        "chatml",
        "openai",
        "hf",
        "verl",
    }
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Calls of models, search engines and readers" in report
    # The pilot asks the same as the run: were its calls known by the same scope, a run that was killed and goes on would get the
    # pilot's replies, and its replay others.
    scopes = {call.scope.split("/")[1] for call in read_records(tape / "calls.jsonl", RecordedCall)}
    assert scopes == {"check", "pilot", "synth", "sample", "eval"}
    # The same from the recording: no site, no model, no network, and nobody is asked.
    with Tape(tape, replay=True) as recording:
        replayed = await build(target, tmp_path / "again", config, ask_cap=not_asked, tape=recording)
    assert replayed["pilot"]["llm_calls"] == 0  # a replayed call is none
    for name in ("qa.jsonl", "sft.jsonl", "rl_qa.jsonl", "heldout_qa.jsonl", "verdicts.jsonl"):
        assert ids(tmp_path / "again" / name) == ids(run / name)


def not_asked(cap: Cap) -> Cap:
    raise AssertionError("there is a cap, or nothing is spent")


def ids(path: Path) -> list[str]:
    return sorted(json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines())


async def test_a_cap_that_will_not_do_stops_behind_the_pilot_and_a_larger_one_goes_on(tmp_path):
    run = tmp_path / "run"
    async with site_and_model(tmp_path) as config:
        config = config.model_copy(
            update={"crawl": config.crawl.model_copy(update={"path_prefixes": ("/",), "max_pages": 400})}
        )
        target = "http://wiki.example/wiki/Main_Page"
        with pytest.raises(BudgetError, match="the cap will not do"):
            await build(target, run, config, ask_cap=lambda cap: Cap(None, 400))
        assert not (run / "qa.jsonl").exists()
        kept = json.loads((run / "forecast.json").read_text())
        assert kept["cap"] == {"money": None, "llm_calls": 400}
        assert kept["pilot_cost"]["llm_calls"] <= 400 + config.llm.default.max_concurrent

        # A cap in money beside it does not lift the one in calls.
        with pytest.raises(BudgetError, match="the cap will not do"):
            await build(target, run, config, ask_cap=not_asked, cap=Cap(1000.0, None))
        assert json.loads((run / "forecast.json").read_text())["cap"] == {"money": 1000.0, "llm_calls": 400}
        # The settings' own limit is one for pilot and run together.
        own = BudgetSettings(max_llm_calls=kept["pilot_cost"]["llm_calls"] + 5)
        with pytest.raises(BudgetError, match=r"budget.max_llm_calls = 5, used 5"):
            await build(target, run, config.model_copy(update={"budget": own}), ask_cap=not_asked, cap=Cap(None, 5000))
        assert actual(run)["llm_calls"] == 5
        with pytest.raises(BudgetError, match=r"budget.max_llm_calls = 5, used 5"):  # the pilot's calls stay counted
            await build(
                target,
                run,
                config.model_copy(update={"budget": own}),
                ask_cap=not_asked,
                cap=Cap(None, 5000),
                pilot=False,
            )
        done = await build(target, run, config, ask_cap=not_asked, cap=Cap(None, 5000))
    assert done["cap"] == {"money": 1000.0, "llm_calls": 5000}
    assert (run / "report.html").exists()


async def test_too_few_questions_to_hold_one_out_are_exported_all_the_same(tmp_path):
    async with site_and_model(tmp_path) as config:
        config = config.model_copy(
            update={
                "crawl": config.crawl.model_copy(update={"path_prefixes": ("/",), "max_pages": 100}),
                "synth": config.synth.model_copy(update={"num_questions": {"multi_hop": 1, "count": 0}}),
            }
        )
        with pytest.raises(StoreError, match="holds no questions"):
            await build("http://wiki.example/wiki/Main_Page", tmp_path / "run", config, ask_cap=lambda cap: cap)
    assert len(ids(tmp_path / "run" / "qa.jsonl")) == 1
    assert (tmp_path / "run" / "export" / "openai").exists()


async def test_what_cannot_be_built_from_is_told_before_anything_is_called(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("SERPER_API_KEY", raising=False)
    config = load_config(Path("one-key"))
    free = config.model_copy(update={"llm": LlmSettings(default=EndpointSettings(base_url="http://h/v1", model="m"))})
    serper = free.model_copy(update={"web": WebSettings(search=("serper",))})
    for target, settings, message in (
        ("nowhere", config, "expected an http"),
        ("http://a.example/", load_config(Path("tiny")), "name no language model"),
        ("http://a.example/", config, "OPENAI_API_KEY"),
        ("http://a.example/", serper, "SERPER_API_KEY"),
        ("http://user:secret@a.example/", free, "user name or a password"),
        ("http://a.example/", free, "bounds nothing: the settings name no price of 'm'"),
    ):
        with pytest.raises(ConfigError, match=message) as told:
            await build(target, tmp_path / "run", settings, ask_cap=not_asked, cap=Cap(5.0, None))
        assert "secret" not in str(told.value)
    assert not (tmp_path / "run").exists()


async def test_a_model_that_does_not_answer_is_told_before_the_crawl_and_may_be_changed(tmp_path):
    run = tmp_path / "run"
    async with site_and_model(tmp_path) as config:
        default = config.llm.default
        wrong = default.model_copy(update={"model": "no-such-model", "max_attempts": 1})
        broken = config.model_copy(update={"llm": config.llm.model_copy(update={"default": wrong})})
        with pytest.raises(ConfigError, match=r"no-such-model.*nothing was crawled yet"):
            await build("http://wiki.example/", run, broken, ask_cap=lambda cap: cap)
        assert not (run / "snapshot").exists()
        with pytest.raises(SnapshotError, match="not one page was stored"):
            await build("http://wiki.example/no/such/folder/page", run, config, ask_cap=lambda cap: cap)
        crawl = config.crawl.model_copy(update={"path_prefixes": ("/",), "max_pages": 60})
        right = config.model_copy(update={"crawl": crawl})
        await run_pipeline(
            run,
            right.model_copy(update={"crawl": crawl.model_copy(update={"urls": ("http://wiki.example/",)})}),
            until="crawl",
        )
    with Snapshot.open(run / "snapshot") as snapshot:
        assert len(snapshot.urls()) == 60
