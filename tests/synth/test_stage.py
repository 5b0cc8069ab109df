"""The whole stage on a small web: what is kept, that nothing is lost, and that interruptions leave no trace."""

import asyncio
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from fixtures import RuleModel
from small_web import build_web, play, section, small_model

from webdancer.config import SynthSettings
from webdancer.errors import ConfigError, ModelError
from webdancer.llm.protocol import ChatReply
from webdancer.records import QA, QAKind, QASplit
from webdancer.store import read_records
from webdancer.synth.outcomes import DroppedQA, DropReason, FailReason, GroupOutcome
from webdancer.synth.split import mark_heldout, split_sft_rl
from webdancer.synth.stage import synthesise

FILES = ("qa.jsonl", "qa_lineage.jsonl", "qa_dropped.jsonl", "qa_groups.jsonl")
SETTINGS = SynthSettings(max_answer_share=0.2, max_rewrites=3)
AIMS = {"count": 12, "multi_hop": 12, "intersection": 12, "easy_to_hard": 12}


async def run(out: Path, model=None, *, settings=SETTINGS, aims=AIMS, web=None, **kwargs):
    model, web = model or small_model(), web or build_web()
    options = {"writer": model, "rewriter": model, "answerer": model, "seed": 5, **kwargs}
    return await synthesise(web, web, web, settings=settings, num_questions=aims, out=out, **options)


def records_of(out: Path) -> dict[str, list[str]]:
    return {name: sorted((out / name).read_text().splitlines()) for name in FILES}


async def test_every_kind_reaches_its_aim_with_right_answers(tmp_path):
    counts = await run(tmp_path)
    assert counts.kept == AIMS
    qas = list(read_records(tmp_path / "qa.jsonl", QA))
    web = build_web()
    assert len({qa.id for qa in qas}) == 48
    assert all(len(qa.evidence_urls) >= 2 and all(web.page(url) for url in qa.evidence_urls) for qa in qas)
    for qa in qas:
        if qa.kind is QAKind.COUNT:
            holder = web.page(qa.evidence_urls[1])
            assert qa.answer == str(holder.text.count("\n- "))


async def test_every_written_question_is_kept_or_dropped_with_a_reason(tmp_path):
    counts = await run(tmp_path)
    kept = {qa.id for qa in read_records(tmp_path / "qa.jsonl", QA)}
    dropped = {qa.id: qa.reason for qa in read_records(tmp_path / "qa_dropped.jsonl", DroppedQA)}
    outcomes = list(read_records(tmp_path / "qa_groups.jsonl", GroupOutcome))
    written = [candidate.qa.id for outcome in outcomes for candidate in outcome.candidates]
    assert sorted(written) == sorted([*kept, *dropped])
    assert sum(counts.dropped.values()) == len(dropped)
    assert all(outcome.candidates or outcome.failure is FailReason.NO_QUESTION for outcome in outcomes)
    assert counts.failed.get("no_question", 0) == sum(1 for outcome in outcomes if outcome.failure)
    assert sum(counts.groups.values()) == len(outcomes) <= 6 * 48


async def test_the_lineage_leads_from_every_hard_question_to_a_simple_one_with_the_same_answer(tmp_path):
    counts = await run(tmp_path)
    lineage = {qa.id: qa for qa in read_records(tmp_path / "qa_lineage.jsonl", QA)}
    hard = [qa for qa in read_records(tmp_path / "qa.jsonl", QA) if qa.kind is QAKind.EASY_TO_HARD]
    assert len(hard) == 12
    assert set(counts.by_rewrites) == {"1", "2", "3"}
    assert len(lineage) == sum(qa.num_rewrites for qa in hard)
    for qa in hard:
        answer, num_steps = qa.answer, 0
        while qa.parent_id:
            child, qa, num_steps = qa, lineage[qa.parent_id], num_steps + 1
            assert qa.num_rewrites == child.num_rewrites - 1
            assert set(qa.evidence_urls) <= set(child.evidence_urls)
            assert qa.answer == answer
        assert qa.num_rewrites == 0


def knows_all(out: Path, *, only_with_results: bool) -> RuleModel:
    """An answerer that knows the answers of an earlier run, if need be only when it is shown results."""
    outcomes = read_records(out / "qa_groups.jsonl", GroupOutcome)
    answers = {c.qa.question: c.qa.answer for outcome in outcomes for c in outcome.candidates}

    def rule(messages):
        text = messages[-1].content
        silent = only_with_results and not section(text, "results")
        return json.dumps({"answer": "Nobody" if silent else answers.get(section(text, "question"), "?")})

    return RuleModel(rule)


@pytest.mark.parametrize(
    ("only_with_results", "reason"), [(False, DropReason.EASY_CLOSED_BOOK), (True, DropReason.EASY_ONE_SEARCH)]
)
async def test_questions_that_need_no_agent_are_dropped(tmp_path, only_with_results, reason):
    hopeless = SETTINGS.model_copy(update={"max_groups_per_question": 1.0})
    first, second = tmp_path / "first", tmp_path / "second"
    await run(first, settings=hopeless.model_copy(update={"drop_easy": False}))
    counts = await run(second, settings=hopeless, answerer=knows_all(first, only_with_results=only_with_results))
    assert sum(counts.kept.values()) < 5  # groups that the first run did not ask for
    assert counts.dropped[reason] > 20


async def test_a_resumed_run_ends_with_the_records_of_an_undisturbed_one(tmp_path):
    await run(tmp_path / "whole")
    expected = records_of(tmp_path / "whole")
    out, num_runs = tmp_path / "broken", 0
    while True:
        num_runs += 1
        try:
            await run(out, _dies_after(60))
            break
        except RuntimeError:
            groups = out / "qa_groups.jsonl"
            groups.write_bytes(groups.read_bytes()[:-7])  # the last line is torn as well
    assert num_runs > 3
    assert records_of(out) == expected


def _dies_after(num_calls: int) -> RuleModel:
    def rule(messages):
        nonlocal num_calls
        num_calls -= 1
        if num_calls < 0:
            raise RuntimeError("power cut")
        return play(messages)

    return RuleModel(rule)


async def test_the_order_in_which_calls_end_changes_nothing(tmp_path):
    await run(tmp_path / "one", settings=SETTINGS.model_copy(update={"concurrency": 1}))
    await run(tmp_path / "many", _Slow(), settings=SETTINGS.model_copy(update={"concurrency": 50}))
    assert records_of(tmp_path / "one") == records_of(tmp_path / "many")


class _Slow(RuleModel):
    """Answers late, the longer the shorter the prompt is."""

    def __init__(self):
        super().__init__(play)

    async def chat(self, messages, sampling):
        await asyncio.sleep(0.0005 * (hash(messages[-1].content) % 7))
        return await super().chat(messages, sampling)


async def test_failing_calls_lose_nothing(tmp_path):
    counts = await run(tmp_path, _Flaky(share=10))
    outcomes = list(read_records(tmp_path / "qa_groups.jsonl", GroupOutcome))
    assert counts.failed["model_error"] > 3
    assert counts.failed["malformed"] > 3
    assert counts.dropped["easy_check_failed"] > 3
    failed = [outcome for outcome in outcomes if outcome.failure]
    assert len(failed) == sum(counts.failed.values())
    assert all(o.detail for o in failed if o.failure in (FailReason.MODEL_ERROR, FailReason.MALFORMED))
    assert counts.kept == AIMS


class _Flaky(RuleModel):
    """Of `share` calls one is refused and one answered with nonsense, however often it is repeated."""

    def __init__(self, share: int):
        super().__init__(play)
        self._share = share

    async def chat(self, messages, sampling):
        number = (sum(messages[0].content.encode()) + (sampling.seed or 0)) % self._share
        if number == 0:
            raise ModelError("503")
        return ChatReply("I would rather not.") if number == 1 else await super().chat(messages, sampling)


async def test_an_endpoint_that_is_down_stops_the_stage_and_spends_no_group(tmp_path):
    def down(messages):
        raise ModelError("connection refused")

    with pytest.raises(ModelError, match=r"for all .* page groups .*connection refused.*run the same command again"):
        await run(tmp_path, RuleModel(down))
    assert list(read_records(tmp_path / "qa_groups.jsonl", GroupOutcome)) == []
    await run(tmp_path)
    await run(tmp_path / "whole")
    assert records_of(tmp_path) == records_of(tmp_path / "whole")


async def test_a_web_that_is_too_small_ends_with_fewer_questions(tmp_path):
    counts = await run(tmp_path, web=build_web(num_people=8), aims={"count": 500, "multi_hop": 500})
    assert 0 < counts.kept["count"] < 500
    assert counts.groups["count"] < 3000


async def test_splits_and_prefix(tmp_path):
    await run(tmp_path, assign_splits=partial(split_sft_rl, sft_share=0.5, seed=1))
    await run(tmp_path, prefix="heldout_", seed=6, web=build_web(seed=2), assign_splits=mark_heldout)
    train, heldout = (list(read_records(tmp_path / f"{p}qa.jsonl", QA)) for p in ("", "heldout_"))
    assert sum(qa.split is QASplit.SFT for qa in train) == sum(qa.split is QASplit.RL for qa in train) == 24
    assert {qa.split for qa in heldout} == {QASplit.HELDOUT}
    assert all(qa.id.startswith("heldout_") for qa in heldout)


async def test_progress_is_told_after_every_round(tmp_path):
    seen = []
    await run(tmp_path, on_progress=lambda counts: seen.append(sum(counts.kept.values())))
    assert seen == sorted(seen)
    assert seen[-1] == 48


async def test_an_unknown_kind_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="got the kind 'ordinal', expected one of count, multi_hop"):
        await run(tmp_path, aims={"ordinal": 3})


@pytest.mark.slow
def test_kill_9_at_any_moment(tmp_path):
    """A process that is killed again and again ends with the records of one that was not."""
    code = (
        "import asyncio, sys; sys.path[:0] = ['tests', 'tests/synth']; from pathlib import Path; import test_stage;"
        "asyncio.run(test_stage.run(Path(sys.argv[1]), test_stage._Slow()))"
    )
    command = [sys.executable, "-c", code]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    out, num_kills = tmp_path / "killed", 0
    while True:
        process = subprocess.Popen([*command, str(out)])
        groups = out / "qa_groups.jsonl"
        start = groups.stat().st_size if groups.exists() else 0
        while process.poll() is None and (groups.stat().st_size if groups.exists() else 0) < start + 4000:
            time.sleep(0.002)
        if process.poll() == 0:
            break
        process.kill()
        process.wait()
        num_kills += 1
    assert num_kills >= 5
    assert records_of(out) == records_of(tmp_path / "whole")
