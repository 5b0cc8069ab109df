"""Rejection sampling: attempts until one is accepted, the same records whatever interrupts them."""

import asyncio

import pytest
from fixtures import MemoryWeb, RuleModel, answer_turn, call_turn, make_page, summary

from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings, SampleSettings
from webdancer.errors import ModelError
from webdancer.llm.protocol import ChatReply
from webdancer.records import QA, QAKind, QASplit, Status, Trajectory
from webdancer.store import RecordWriter, read_records
from webdancer.trajectories.sample import sample_trajectories, split_after_funnel

LUNT = make_page("http://w.example/Ada_Lunt", "Ada Lunt", "Ada Lunt was born in Velm.")
QAS = [
    QA(id=f"q{n}", question=f"Where was Ada Lunt born, {n}?", answer="Velm", kind=QAKind.MULTI_HOP,
       evidence_urls=(LUNT.url, "b"), split=QASplit.SFT)
    for n in range(12)
]  # fmt: skip


class Teacher:
    """Searches once and answers; about two seeds of three bring a wrong answer. Later calls may be slower."""

    name = "teacher"

    def __init__(self, *, dies_after: int = 10_000):
        self.left, self.settings = dies_after, []

    async def chat(self, messages, sampling):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("power cut")
        self.settings.append(sampling)
        await asyncio.sleep(0.0003 * (sampling.seed % 5))
        if len(messages) < 4:
            return ChatReply(call_turn("I search.", "search", query=["Ada Lunt"]))
        return ChatReply(answer_turn("Read.", "Velm" if sampling.seed % 3 == 0 else "Orsk"))


async def right(trajectory):
    return trajectory.answer == "Velm"


async def run(path, teacher=None, *, accept=right, seed=5, qas=QAS, **settings):
    teacher = teacher or Teacher()
    agent = AgentSettings()
    web = MemoryWeb({LUNT.url: LUNT})
    toolbox = Toolbox(web, web, RuleModel(lambda messages: summary("e", "s")), agent)
    with RecordWriter(path, Trajectory) as writer:
        counts = await sample_trajectories(
            qas, model=teacher, toolbox=toolbox, agent_settings=agent, settings=SampleSettings(**settings), seed=seed,
            writer=writer, accept=accept,
        )  # fmt: skip
    return counts


def timeless(path):
    records = [t.model_dump() for t in read_records(path, Trajectory)]
    for record in records:
        for step in record["steps"]:
            step["seconds"] = 0
    return sorted(records, key=lambda record: record["id"])


async def test_each_question_is_tried_until_an_attempt_is_accepted(tmp_path):
    counts = await run(tmp_path / "t.jsonl", max_attempts=5)
    found = list(read_records(tmp_path / "t.jsonl", Trajectory))
    for qa in QAS:
        attempts = sorted((t for t in found if t.qa_id == qa.id), key=lambda t: t.id)
        assert [t.id for t in attempts] == [f"{qa.id}-a{n}" for n in range(1, len(attempts) + 1)]
        assert all(t.answer == "Orsk" for t in attempts[:-1])
        assert attempts[-1].answer == "Velm" or len(attempts) == 5
    assert counts.trajectories == len(found) > len(QAS)
    assert counts.accepted == sum(t.answer == "Velm" for t in found)
    assert counts.questions_done == counts.num_questions == 12
    assert len({t.seed for t in found}) == len(found)


async def test_attempts_are_bounded_and_all_are_written(tmp_path):
    async def never(trajectory):
        return False

    counts = await run(tmp_path / "t.jsonl", accept=never, max_attempts=3)
    assert (counts.trajectories, counts.accepted) == (36, 0)
    assert len(list(read_records(tmp_path / "t.jsonl", Trajectory))) == 36


async def test_episodes_that_fail_are_written_too(tmp_path):
    await run(tmp_path / "t.jsonl", RuleModel(lambda messages: "nonsense"), max_attempts=1)
    assert {t.status for t in read_records(tmp_path / "t.jsonl", Trajectory)} == {Status.INVALID_FORMAT}


async def test_the_sampling_settings_reach_the_model(tmp_path):
    teacher = Teacher()
    await run(tmp_path / "t.jsonl", teacher, temperature=0.3, top_p=0.9)
    assert {(s.temperature, s.top_p) for s in teacher.settings} == {(0.3, 0.9)}


async def test_order_and_concurrency_change_nothing(tmp_path):
    await run(tmp_path / "one.jsonl", concurrency=1)
    await run(tmp_path / "many.jsonl", concurrency=50, qas=QAS[::-1])
    assert timeless(tmp_path / "one.jsonl") == timeless(tmp_path / "many.jsonl")
    await run(tmp_path / "other.jsonl", seed=6)
    assert timeless(tmp_path / "other.jsonl") != timeless(tmp_path / "one.jsonl")


@pytest.mark.parametrize("dies_after", [3, 17, 31])
async def test_a_resumed_run_has_the_records_of_an_undisturbed_one(tmp_path, dies_after):
    await run(tmp_path / "whole.jsonl")
    path = tmp_path / "broken.jsonl"
    num_runs, done = 0, False
    while not done:
        num_runs += 1
        try:
            await run(path, Teacher(dies_after=dies_after), concurrency=3 if dies_after > 3 else 1)
            done = True
        except RuntimeError:
            path.write_bytes(path.read_bytes()[:-5])
            dies_after += 20
    assert num_runs > 1
    assert timeless(path) == timeless(tmp_path / "whole.jsonl")


class FailingTeacher(Teacher):
    """Fails for the seeds for which `fails` says so."""

    def __init__(self, fails):
        super().__init__()
        self.fails = fails

    async def chat(self, messages, sampling):
        if self.fails(sampling.seed):
            raise ModelError("status 401")
        return await super().chat(messages, sampling)


async def test_an_endpoint_that_is_down_ends_the_stage_and_spends_no_attempt(tmp_path):
    with pytest.raises(ModelError, match="failed for 20 episodes in a row, first: status 401"):
        await run(tmp_path / "t.jsonl", FailingTeacher(lambda seed: True), concurrency=4)
    assert list(read_records(tmp_path / "t.jsonl", Trajectory)) == []
    await run(tmp_path / "t.jsonl")
    await run(tmp_path / "whole.jsonl")
    assert timeless(tmp_path / "t.jsonl") == timeless(tmp_path / "whole.jsonl")


async def test_an_endpoint_that_always_fails_for_few_questions_is_down_too(tmp_path):
    with pytest.raises(ModelError, match="failed for 2 episodes in a row"):
        await run(tmp_path / "t.jsonl", FailingTeacher(lambda seed: True), qas=QAS[:2], max_attempts=1)


async def test_single_failures_are_written_and_judged_like_any_episode(tmp_path):
    judged = []

    async def accept(trajectory):
        judged.append(trajectory.id)
        return await right(trajectory)

    counts = await run(tmp_path / "t.jsonl", FailingTeacher(lambda seed: seed % 4 == 0), accept=accept)
    found = list(read_records(tmp_path / "t.jsonl", Trajectory))
    assert any(t.status is Status.MODEL_ERROR for t in found)
    assert all((t.status is Status.MODEL_ERROR) == (t.seed % 4 == 0) for t in found)
    assert counts.trajectories == len(found) == len(judged)
    assert sorted(judged) == sorted(t.id for t in found)


def trajectory(qa_id, attempt, answer="Velm"):
    return Trajectory(
        id=f"{qa_id}-a{attempt}", qa_id=qa_id, question="Q?", model="m", seed=1, steps=(), answer=answer,
        status=Status.ANSWERED,
    )  # fmt: skip


def test_questions_without_a_kept_trajectory_join_those_for_rl(tmp_path):
    qas = [*QAS[:2], QAS[2].model_copy(update={"split": QASplit.RL})]
    tried = [trajectory("q1", 2), trajectory("q0", 1), trajectory("q0", 2)]
    assert split_after_funnel(qas, tried, {"q1-a2"}, out=tmp_path) == (1, 2)
    assert [t.id for t in read_records(tmp_path / "sft.jsonl", Trajectory)] == ["q1-a2"]
    for_rl = list(read_records(tmp_path / "rl_qa.jsonl", QA))
    assert [(qa.id, qa.split) for qa in for_rl] == [("q0", QASplit.RL), ("q2", QASplit.RL)]
