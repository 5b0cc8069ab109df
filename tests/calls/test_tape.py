"""A recording gives back what was recorded, call by call, and makes none."""

import asyncio
import json
import signal
import subprocess
import sys

import pytest
from fixtures import MemoryWeb, ScriptedModel, answer_turn, call_turn, make_page, summary

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.calls.ledger import Ledger
from webdancer.calls.outside import Outside
from webdancer.calls.scope import call_scope
from webdancer.calls.tape import CallKind, Tape, TimedOut
from webdancer.config import AgentSettings, BudgetSettings, EndpointSettings
from webdancer.errors import BudgetError, ContextFullError, ModelError, ReplayError, SnapshotError, StoreError
from webdancer.llm.protocol import Message, Sampling
from webdancer.records import CotMode, Trajectory
from webdancer.web.protocol import PageNotFound, ToolFailure
from webdancer.web.snapshot import Snapshot, SnapshotWriter

LUNT = make_page("http://w.example/Ada_Lunt", "Ada Lunt", "Ada Lunt was born in Velm.")
SEARCH = call_turn("I look for her page.", "search", query=["Ada Lunt"])
VISIT = call_turn("I read her page.", "visit", url=LUNT.url, goal="where she was born")
MISSING = call_turn("I read another.", "visit", url="http://w.example/None", goal="where she was born")
ANSWER = answer_turn("Her page says so.", "Velm")
SAID = [Message("user", "hello")]


def tools(outside: Outside, model: ScriptedModel, web: MemoryWeb) -> Toolbox:
    return Toolbox(
        outside.taped_search(outside.metered_search(web, name="memory")),
        outside.reader(web, name="memory"),
        outside.model("summariser", model, EndpointSettings()),
        AgentSettings(),
    )


async def episode(
    outside: Outside, name: str, replies, summaries, web: MemoryWeb, settings=None, delay_s: float = 0.0
) -> Trajectory:
    return await run_episode(
        outside.model("agent", ScriptedModel(replies, delay_s=delay_s), EndpointSettings()),
        tools(outside, ScriptedModel(summaries), web),
        trajectory_id=name,
        qa_id="q",
        question="Where was Ada Lunt born?",
        settings=settings or AgentSettings(),
        mode=CotMode.SHORT,
        sampling=Sampling(),
        seed=5,
    )


def without_seconds(trajectory: Trajectory) -> Trajectory:
    return trajectory.model_copy(
        update={"steps": tuple(s.model_copy(update={"seconds": 0.0}) for s in trajectory.steps)}
    )


async def test_replayed_episodes_are_those_that_were_recorded_and_make_no_call(tmp_path):
    web = MemoryWeb({LUNT.url: LUNT})
    with Tape(tmp_path, replay=False) as tape:
        outside = Outside("sample", tape=tape)
        recorded = await asyncio.gather(
            episode(outside, "one", [SEARCH, VISIT, MISSING, ANSWER], [summary("e1", "s1")], web),
            episode(outside, "two", [SEARCH, SEARCH, VISIT, ModelError("down")], [summary("e2", "s2")], web),
        )
    with Tape(tmp_path, replay=True) as tape:
        outside = Outside("sample", tape=tape)
        nothing = MemoryWeb({})
        replayed = [await episode(outside, "two", [], [], nothing), await episode(outside, "one", [], [], nothing)]
    assert [without_seconds(t) for t in reversed(replayed)] == [without_seconds(t) for t in recorded]
    assert "e2" in (recorded[1].steps[2].observation or "")  # each episode its own reply to the same request
    assert recorded[1].detail == "down"
    assert nothing.searches == []


async def test_a_call_that_was_not_recorded_is_an_error_that_names_it(tmp_path):
    with Tape(tmp_path, replay=False) as tape:
        await Outside("ask", tape=tape).model("agent", ScriptedModel(["hi"]), EndpointSettings()).chat(SAID, Sampling())
    with Tape(tmp_path, replay=True) as tape:
        model = Outside("ask", tape=tape).model("agent", ScriptedModel([]), EndpointSettings())
        assert (await model.chat(SAID, Sampling())).content == "hi"
        with pytest.raises(ReplayError, match=r"no chat call to agent scripted like this one.*bye"):
            await model.chat([Message("user", "bye")], Sampling())
    with pytest.raises(ReplayError, match=r"no calls\.jsonl"):
        Tape(tmp_path / "elsewhere", replay=True)


async def test_a_cache_that_episodes_share_may_ask_in_another_scope_when_replayed(tmp_path):
    web = MemoryWeb({LUNT.url: LUNT})
    with Tape(tmp_path, replay=False) as tape, call_scope("first"):
        page = await Outside("rl", tape=tape).reader(web, name="memory").read(LUNT.url)
    with Tape(tmp_path, replay=True) as tape, call_scope("second"):
        assert await Outside("rl", tape=tape).reader(MemoryWeb({}), name="memory").read(LUNT.url) == page


@pytest.mark.parametrize(
    "error", [ModelError("m"), ContextFullError("full"), ToolFailure("t"), PageNotFound("gone")], ids=type
)
async def test_failures_are_replayed_with_their_type_and_message(tmp_path, error):
    for replay in (False, True):
        with Tape(tmp_path, replay=replay) as tape:
            reader = Outside("s", tape=tape).reader(MemoryWeb({} if replay else {"u": error}), name="memory")
            with pytest.raises(type(error)) as caught:
                await reader.read("u")
            assert type(caught.value) is type(error)
            assert str(caught.value) == str(error)


async def test_a_resumed_recording_asks_again_only_for_what_failed(tmp_path):
    endpoint = EndpointSettings()
    with Tape(tmp_path, replay=False) as tape:
        model = Outside("s", tape=tape).model("judge", ScriptedModel(["paid for", ModelError("down")]), endpoint)
        await model.chat(SAID, Sampling())
        with pytest.raises(ModelError):
            await model.chat(SAID, Sampling())
    with Tape(tmp_path, replay=False) as tape:
        asked = ScriptedModel(["second"])
        model = Outside("s", tape=tape).model("judge", asked, endpoint)
        assert [(await model.chat(SAID, Sampling())).content for _ in range(2)] == ["paid for", "second"]
        assert len(asked.calls) == 1
    with Tape(tmp_path, replay=True) as tape:
        model = Outside("s", tape=tape).model("judge", ScriptedModel([]), endpoint)
        assert [(await model.chat(SAID, Sampling())).content for _ in range(2)] == ["paid for", "second"]


async def test_a_call_that_was_given_up_is_given_up_again(tmp_path):
    with Tape(tmp_path, replay=False) as tape:
        model = Outside("s", tape=tape).model("a", ScriptedModel(["late"], delay_s=5), EndpointSettings())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.chat(SAID, Sampling()), 0.01)
    with Tape(tmp_path, replay=True) as tape, pytest.raises(TimedOut):
        await Outside("s", tape=tape).model("a", ScriptedModel([]), EndpointSettings()).chat(SAID, Sampling())


async def test_an_episode_that_ran_out_of_time_does_so_again(tmp_path):
    settings = AgentSettings(max_seconds=0.05, tool_timeout_s=0.05)
    ended = []
    for replay in (False, True):
        with Tape(tmp_path, replay=replay) as tape:
            replies = [] if replay else [SEARCH] * 9
            ended.append(await episode(Outside("s", tape=tape), "t", replies, [], MemoryWeb({}), settings, delay_s=1))
    assert ended[0].status == "time_limit"
    assert without_seconds(ended[1]) == without_seconds(ended[0])


async def test_a_spent_budget_is_no_outcome_of_a_call(tmp_path):
    with Tape(tmp_path, replay=False) as tape:
        ledger = Ledger(None, BudgetSettings(max_llm_calls=0))
        model = Outside("s", ledger=ledger, tape=tape).model("a", ScriptedModel(["x"]), EndpointSettings())
        with pytest.raises(BudgetError):
            await model.chat(SAID, Sampling())
    assert (tmp_path / "calls.jsonl").read_text() == ""


async def test_a_page_is_written_once(tmp_path):
    with Tape(tmp_path, replay=False) as tape:
        reader = Outside("s", tape=tape).reader(MemoryWeb({LUNT.url: LUNT}), name="memory")
        for name in ("one", "two"):
            with call_scope(name):
                await reader.read(LUNT.url)
    calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [(call["kind"], call["scope"], call["reply"]) for call in calls] == [
        (CallKind.PAGE, "/one", None),
        (CallKind.PAGE, "/two", None),
    ]
    assert len((tmp_path / "pages.jsonl").read_text().splitlines()) == 1


def test_crawled_webs_are_kept_and_restored_whole(tmp_path):
    crawled = tmp_path / "run" / "snapshot"
    crawled.mkdir(parents=True)
    (crawled / "snapshot.json").write_text("{}")
    with Tape(tmp_path / "tape", replay=False) as tape:
        tape.keep_snapshot("train", crawled)
    with Tape(tmp_path / "tape", replay=True) as tape:
        tape.restore_snapshot("train", tmp_path / "other" / "snapshot")
        with pytest.raises(ReplayError, match="no crawled web 'heldout'"):
            tape.restore_snapshot("heldout", tmp_path / "other" / "heldout_snapshot")
    assert (tmp_path / "other" / "snapshot" / "snapshot.json").read_text() == "{}"


KILLED_RECORDING = """
import os, signal, sys
from pathlib import Path
from fixtures import make_page
from webdancer.calls.tape import Tape
tape = Tape(Path(sys.argv[1]), replay=False)
page = make_page("http://w.example/Ada_Lunt", "Ada Lunt", "Ada Lunt was born in Velm.")
tape.keep_live_page(page, status=200, headers=[("Content-Type", "text/html")], body=b"<p>Ada Lunt</p>")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_pages_of_a_recording_that_was_killed_are_a_finished_web_once_it_ends(tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RECORDING, str(tmp_path)], check=False, env={"PYTHONPATH": "tests:."}
    )
    assert killed.returncode == -signal.SIGKILL
    with Tape(tmp_path, replay=False):
        pass  # all calls that were left came from the recording: no further page was fetched
    with Snapshot.open(tmp_path / "web") as pages:
        assert pages.urls() == [LUNT.url]


def test_a_recording_takes_no_second_web_of_the_same_name(tmp_path):
    for name, text in (("one", "Ada Lunt was born in Velm."), ("two", "Ada Lunt was born in Orn.")):
        with SnapshotWriter(tmp_path / name) as writer:
            page = make_page(LUNT.url, "Ada Lunt", text)
            writer.add(page, status=200, headers=[("Content-Type", "text/html")], body=text.encode())
    with Tape(tmp_path / "tape", replay=False) as tape:
        tape.keep_snapshot("train", tmp_path / "one")
        tape.keep_snapshot("train", tmp_path / "one")  # the same run, killed behind its crawl
        with pytest.raises(StoreError, match=r"another run.*folder of its own"):
            tape.keep_snapshot("train", tmp_path / "two")


class SlowWeb(MemoryWeb):
    """Pages that come when the episode's time is over."""

    async def read(self, url):
        await asyncio.sleep(0.3)
        return await super().read(url)


async def test_an_episode_whose_time_ran_out_in_a_tool_call_is_replayed_to_the_same_end(tmp_path):
    settings = AgentSettings(max_seconds=0.2, tool_timeout_s=5)
    with Tape(tmp_path, replay=False) as tape:
        outside = Outside("s", tape=tape)
        web = SlowWeb({LUNT.url: LUNT})
        recorded = await episode(outside, "t", [VISIT, ANSWER], [summary("e", "s")], web, settings)
    calls = {account.role: spent.calls for account, spent in outside.ledger.totals.items()}
    assert calls == {"agent": 2, "reader": 1, "summariser": 1}  # what came too late was never asked
    with Tape(tmp_path, replay=True) as tape:
        replayed = await episode(Outside("s", tape=tape), "t", [], [], MemoryWeb({}), settings)
    assert recorded.status == "forced_answer"
    assert without_seconds(replayed) == without_seconds(recorded)


async def test_a_page_that_the_recording_had_no_room_for_is_no_call_that_was_given_up(tmp_path):
    full = SnapshotError("web could not be written: No space left on device")
    with Tape(tmp_path, replay=False) as tape, pytest.raises(SnapshotError):
        await Outside("s", tape=tape).reader(MemoryWeb({LUNT.url: full}), name="live").read(LUNT.url)
    assert (tmp_path / "calls.jsonl").read_text() == ""
