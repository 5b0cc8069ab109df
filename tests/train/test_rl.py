"""Reinforcement learning as a whole, on a policy that has two words to choose from: it learns, resumes, and tells what it did."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from tests.fixtures import RuleModel
from tests.train import rl_bandit
from tests.train.rl_bandit import QUESTIONS, cold_start, metrics_of, run_rl
from tests.train.rl_toys import run_processes
from webdancer.config import RlSettings
from webdancer.errors import ConfigError, TrainError
from webdancer.llm.protocol import Message
from webdancer.store import read_records
from webdancer.train import policy, rl
from webdancer.train.batches import micro_batches
from webdancer.train.dapo import GroupSignal
from webdancer.train.generation import EngineStats, Generation, OnTokens, TokenSampling, TrainableEngine
from webdancer.train.policy import Policy
from webdancer.train.rl import RlProgress
from webdancer.train.rl_metrics import KeptRollout
from webdancer.train.rollout import QuestionOrder, Roller, RolloutGroup

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cold_start(tmp_path_factory.mktemp("base"), num_steps=150)


def without_costs(out: Path) -> list[dict[str, float]]:
    """The metrics that may not differ between an undisturbed run and one that was resumed."""
    return [
        {
            name: value
            for name, value in line.items()
            if not name.startswith(("seconds", "tool_calls")) and "_per_s" not in name
        }
        for line in metrics_of(out)
    ]


async def test_reward_rises(base: Path, tmp_path: Path):
    seen: list[RlProgress] = []
    result = await run_rl(base, tmp_path, num_steps=7, groups_per_step=6, learning_rate=1e-3, on_progress=seen.append)
    lines = metrics_of(tmp_path)
    rates = [line["solve_rate"] for line in lines]
    assert rates[0] < 0.65
    assert sum(rates[-2:]) / 2 > 0.85
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert result.num_rollouts == sum(line["rollouts"] for line in lines)
    assert (result.num_steps, result.num_updates, result.num_skipped_steps) == (7, 14, 0)
    assert result.solve_rate == rates[-1]
    assert [p.step for p in seen if p.num_groups == 0] == [1, 2, 3, 4, 5, 6, 7]
    for line in lines:
        # The engine samples what the trainer computes, and an update starts from the policy that sampled.
        assert line["logprob_gap_max"] < 1e-3
        assert line["groups"] == line["groups_trained"] + line["groups_all_right"] + line["groups_all_wrong"]
        assert line["seconds_rollout"] + line["seconds_update"] + line["seconds_sync"] <= line["seconds"]
        assert 1.9 < line["turns_per_episode"] < 4
        assert line["tool_calls_cached"] >= line["tool_calls"] - 30
    assert list((tmp_path / "tensorboard").iterdir())
    assert not list((tmp_path / "groups").iterdir())


async def test_rollouts_to_read_and_a_checkpoint_to_use(base: Path, tmp_path: Path):
    await run_rl(base, tmp_path, num_steps=2, num_kept_rollouts=2)
    kept = list(read_records(tmp_path / "rollouts.jsonl", KeptRollout))
    assert [rollout.step for rollout in kept] == [1] * 16 + [2] * 16
    for rollout in kept:
        assert rollout.trajectory.question in QUESTIONS
        assert rollout.reward.answer == float(rollout.trajectory.answer == "blue")
        assert rollout.advantage * (rollout.reward.total - 0.5) > 0
    async with Policy(tmp_path, rl_bandit.POLICY) as policy:
        assert policy.name
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)


async def test_a_batch_without_signal_is_skipped_and_counted(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wrong = json.dumps({"reason": "", "correct": False})
    monkeypatch.setattr(rl_bandit, "judge", lambda: RuleModel(lambda _: wrong))
    result = await run_rl(base, tmp_path, num_steps=2, groups_per_step=2, max_extra_rounds=1)
    assert (result.num_skipped_steps, result.num_updates) == (2, 0)
    for line in metrics_of(tmp_path):
        assert (line["groups"], line["groups_all_wrong"], line["groups_trained"], line["rounds"]) == (4, 4, 0, 2)
        assert line["trained_tokens"] == 0
        assert "loss" not in line
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


async def test_without_dynamic_sampling_every_group_is_trained(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wrong = json.dumps({"reason": "", "correct": False})
    monkeypatch.setattr(rl_bandit, "judge", lambda: RuleModel(lambda _: wrong))
    result = await run_rl(base, tmp_path, num_steps=1, groups_per_step=3, dynamic_sampling=False)
    assert result.num_updates == 2
    (line,) = metrics_of(tmp_path)
    assert (line["groups"], line["groups_all_wrong"], line["groups_trained"], line["rounds"]) == (3, 3, 3, 1)


async def test_a_judge_that_never_answers_ends_the_training(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Rollouts without an answer need no judge: these few are no ground to go on with."""
    monkeypatch.setattr(rl_bandit, "judge", lambda: RuleModel(lambda _: "no idea"))
    with pytest.raises(
        TrainError, match=r"step 1: of the rollouts of 4 questions 30 were dropped and 2 came .*30 × judge_failed"
    ):
        await run_rl(base, tmp_path)


async def test_deterministic_is_refused_on_a_gpu(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rl, "device_of", lambda policy: torch.device("cuda"))
    with pytest.raises(ConfigError, match="deterministic = true works on the CPU only"):
        await run_rl(base, tmp_path, deterministic=True)


async def test_overlong_filtering_leaves_cut_episodes_out_of_the_loss(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Three turns are needed by those who search twice; with two they are cut off."""
    monkeypatch.setattr(rl_bandit, "AGENT", rl_bandit.AGENT.model_copy(update={"max_steps": 2}))
    lines = {}
    for overlong in ("none", "filter"):
        await run_rl(base, tmp_path / overlong, num_steps=1, deterministic=True, overlong=overlong)
        (lines[overlong],) = metrics_of(tmp_path / overlong)
    assert lines["none"]["status_step_limit"] == lines["filter"]["status_step_limit"] > 0
    assert lines["none"]["groups_trained"] == lines["filter"]["groups_trained"] > 0
    assert 0 < lines["filter"]["trained_tokens"] < lines["none"]["trained_tokens"]


async def test_where_the_bound_is_reached_the_groups_found_are_trained(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def mostly_wrong(messages: Sequence[Message]) -> str:
        says_blue = messages[-1].content.split("<answer>")[-1].split("</answer>")[0].strip() == "blue"
        return json.dumps({"reason": "", "correct": says_blue and QUESTIONS[0] in messages[-1].content})

    monkeypatch.setattr(rl_bandit, "judge", lambda: RuleModel(mostly_wrong))
    result = await run_rl(base, tmp_path, num_steps=1, groups_per_step=3, max_extra_rounds=0)
    (line,) = metrics_of(tmp_path)
    assert (line["groups"], line["groups_trained"], line["groups_all_wrong"], line["rounds"]) == (3, 1, 2, 1)
    assert (result.num_updates, result.num_skipped_steps) == (1, 0)  # one group makes one step


class OtherEngine:
    """Nothing but what RL may ask of an engine; its numbers are a little off, as another program's would be."""

    def __init__(self, inner: TrainableEngine) -> None:
        self._inner, self.num_syncs, self.stats, self.max_context = inner, 0, EngineStats(), inner.max_context

    async def __aenter__(self) -> "OtherEngine":
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._inner.__aexit__(*exception)

    def open(self, session: str) -> None:
        self._inner.open(session)

    def release(self, session: str) -> None:
        self._inner.release(session)

    def sync(self, model: PreTrainedModel) -> None:
        self.num_syncs += 1
        self._inner.sync(model)

    async def generate(
        self, ids: Sequence[int], sampling: TokenSampling, *, session: str, on_tokens: OnTokens | None = None
    ) -> Generation:
        found = await self._inner.generate(ids, sampling, session=session)
        return found._replace(logprobs=[logprob - 0.01 for logprob in found.logprobs])


async def test_another_engine_can_take_the_place_of_ours(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[OtherEngine] = []

    def new_engine(*args: Any, **kwargs: Any) -> OtherEngine:
        made.append(OtherEngine(policy.new_engine(*args, **kwargs)))
        return made[0]

    monkeypatch.setattr(rl, "new_engine", new_engine)
    settings = {"num_steps": 5, "groups_per_step": 6, "learning_rate": 1e-3, "importance_cap": 2.0}
    await run_rl(base, tmp_path, **settings)
    lines = metrics_of(tmp_path)
    assert lines[-1]["solve_rate"] > lines[0]["solve_rate"] + 0.1
    assert all(0.005 < line["logprob_gap_mean"] < 0.02 for line in lines)
    assert made[0].num_syncs == 6  # at the start, and after each step


@pytest.mark.parametrize("num", [5, pytest.param(126, marks=pytest.mark.slow)])
async def test_what_was_sampled_is_what_a_step_trains_on(base: Path, num: int):
    """From the engine to the batch of an optimizer step, with tool calls and their answers between the turns."""
    sampled: dict[str, list[int]] = {}
    async with policy.Policy(base, rl_bandit.POLICY) as bandit:
        generate = bandit.engine.generate

        async def note(ids: Sequence[int], sampling: TokenSampling, *, session: str) -> Generation:
            found = await generate(ids, sampling, session=session)
            sampled.setdefault(session, []).extend(found.token_ids)
            return found

        bandit.engine.generate = note  # type: ignore[method-assign]
        roller = Roller(
            bandit, rl_bandit.toolbox(), rl_bandit.judge(), agent_settings=rl_bandit.AGENT, settings=RlSettings(),
            max_context=400, max_batch=32, seed=1,
        )  # fmt: skip
        order = QuestionOrder(rl_bandit.qas(), seed=1)
        groups = await asyncio.gather(*(roller.group(order.draw(n), policy_version=0) for n in range(num)))
    samples = [rollout.sample for group in groups for rollout in group.rollouts]
    assert len(samples) == 8 * num
    steps = [step for group in groups for r in group.rollouts for step in r.trajectory.steps]
    assert sum(step.tool == "search" and not step.error for step in steps) > 4 * num
    for batch in micro_batches(samples, max_tokens=2000):
        for row, position in enumerate(batch.rows):
            trained = batch.token_ids[row][batch.mask[row]].tolist()
            assert trained == sampled[samples[position].id]


async def test_more_steps_go_on_where_the_training_ended_and_other_settings_do_not(base: Path, tmp_path: Path):
    await run_rl(base, tmp_path / "a", num_steps=1, deterministic=True)
    await run_rl(base, tmp_path / "a", num_steps=2, deterministic=True)
    await run_rl(base, tmp_path / "b", num_steps=2, deterministic=True)
    assert without_costs(tmp_path / "a") == without_costs(tmp_path / "b")
    with pytest.raises(TrainError, match="on other questions, with other settings"):
        await run_rl(base, tmp_path / "a", num_steps=3, deterministic=True, learning_rate=1.0)


async def test_who_ran_out_of_memory_goes_on_with_smaller_batches(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await run_rl(base, tmp_path, num_steps=1)
    monkeypatch.setattr(rl_bandit, "POLICY", rl_bandit.POLICY.model_copy(update={"max_batch": 5}))
    lower = {"micro_batch_tokens": 600, "concurrency": 4, "save_every_steps": 1, "num_kept_rollouts": 1}
    await run_rl(base, tmp_path, num_steps=2, **lower)
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2]


async def test_a_base_without_a_model_is_named(base: Path, tmp_path: Path):
    shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ConfigError, match="cannot load a model from"):
        await run_rl(tmp_path / "base", tmp_path / "out")


SETTINGS = {"num_steps": 4, "save_every_steps": 2, "deterministic": True, "concurrency": 16, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    asyncio.run(run_rl(base, out, **SETTINGS))
    return out


@pytest.mark.parametrize(
    ("kill_at", "num_saved"),
    [
        # in the fourth step: its first wave of two groups is written, the second half; the first two steps are in the state
        ("3.3", lambda lines: sum(line["groups"] for line in lines[:3]) + 2),
        # in the first wave, of which half is written: nothing is taken over
        pytest.param("0.1", lambda lines: 0, marks=pytest.mark.slow),
        # behind the first step's update, which no state holds: its groups are
        pytest.param("1.0", lambda lines: lines[0]["groups"], marks=pytest.mark.slow),
    ],
)
async def test_killed_and_resumed_is_bit_identical(
    base: Path, undisturbed: Path, tmp_path: Path, kill_at: str, num_saved: Callable[[list[dict[str, float]]], float]
):
    command = [sys.executable, "-m", "tests.train.rl_bandit", str(base), str(tmp_path), json.dumps(SETTINGS), kill_at]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]
    finished = {
        group.position for path in (tmp_path / "groups").glob("*.jsonl") for group in read_records(path, RolloutGroup)
    }
    assert finished
    seen: list[RlProgress] = []
    await run_rl(base, tmp_path, on_progress=seen.append, **SETTINGS)
    num_groups = sum(line["groups"] for line in metrics_of(undisturbed))
    assert num_groups - sum(p.num_groups > 0 for p in seen) == num_saved(metrics_of(undisturbed))
    for name, weight in load_file(undisturbed / "model.safetensors").items():
        assert torch.equal(weight, load_file(tmp_path / "model.safetensors")[name]), name
    states = [torch.load(out / "state" / "step-00000004.pt", weights_only=True) for out in (undisturbed, tmp_path)]
    for name, weight in states[0]["learner"]["weights"].items():
        assert torch.equal(weight, states[1]["learner"]["weights"][name]), name
    assert without_costs(tmp_path) == without_costs(undisturbed)
    kept = [[r.id for r in read_records(out / "rollouts.jsonl", KeptRollout)] for out in (undisturbed, tmp_path)]
    assert kept[0] == kept[1]


async def test_rollouts_made_with_other_settings_are_never_taken_over(base: Path, tmp_path: Path):
    class StopError(Exception):
        pass

    def stop(progress: RlProgress) -> None:
        if progress.num_groups == 2:
            raise StopError

    with pytest.raises(StopError):
        await run_rl(base, tmp_path, on_progress=stop)
    with pytest.raises(TrainError, match="with other settings"):
        await run_rl(base, tmp_path, num_steps=1, format_weight=0.5)
    shutil.rmtree(tmp_path / "state")  # as somebody might do who wants to start anew
    await run_rl(base, tmp_path, num_steps=1, format_weight=0.5, num_kept_rollouts=99)
    kept = list(read_records(tmp_path / "rollouts.jsonl", KeptRollout))
    assert kept
    assert {rollout.reward.total for rollout in kept} <= {0.0, 0.5, 1.0}


async def test_rollouts_of_an_interrupted_step_are_used_again(base: Path, tmp_path: Path):
    """Not deterministic: single groups are taken over."""

    class StopError(Exception):
        pass

    def stop(progress: RlProgress) -> None:
        if (progress.step, progress.num_groups) == (1, 3):
            raise StopError

    with pytest.raises(StopError):
        await run_rl(base, tmp_path, num_steps=2, save_every_steps=1, on_progress=stop)
    before = list(read_records(tmp_path / "groups" / "step-000001-rank0.jsonl", RolloutGroup))
    assert 3 <= len(before) <= 4  # one that was about to end may still have ended
    seen: list[RlProgress] = []
    await run_rl(base, tmp_path, num_steps=2, save_every_steps=1, num_kept_rollouts=99, on_progress=seen.append)
    line = metrics_of(tmp_path)[1]
    assert sum(p.num_groups > 0 for p in seen) == line["groups"] - len(before)
    kept = {
        rollout.trajectory.id: rollout.trajectory for rollout in read_records(tmp_path / "rollouts.jsonl", KeptRollout)
    }
    reused = [r.trajectory for group in before if group.signal is GroupSignal.MIXED for r in group.rollouts]
    assert reused
    assert all(kept[trajectory.id] == trajectory for trajectory in reused)


@pytest.mark.slow
def test_two_processes_share_the_questions_and_end_with_one_policy(base: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, torch\n"
        "from tests.train.rl_bandit import main\n"
        "from webdancer.train.learner import Learner\n"
        "save = Learner.save_checkpoint\n"
        "def save_own(learner, tokenizer, out):\n"
        "    torch.save(learner.weights(), f\"{out}-{os.environ['RANK']}.pt\")\n"
        "    save(learner, tokenizer, out)\n"
        "Learner.save_checkpoint = save_own\n"
        "main(sys.argv[1], sys.argv[2], sys.argv[3], '')\n"
    )
    settings = json.dumps({"num_steps": 3, "groups_per_step": 5, "save_every_steps": 5, "learning_rate": 1e-3})
    run_processes(script, str(base), str(tmp_path / "out"), settings, num_processes=2)
    lines = metrics_of(tmp_path / "out")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["groups"] >= 5 and line["logprob_gap_max"] < 1e-3 for line in lines)
    first, second = (torch.load(tmp_path / f"out-{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    before = load_file(base / "model.safetensors")
    assert any(not torch.equal(before[name], first[name].to(before[name].dtype)) for name in before if name in first)
    assert lines[0]["rollouts"] == 8 * lines[0]["groups"]
