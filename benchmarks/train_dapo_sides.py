"""A DAPO step by ours and by TRL: the same questions, tools, rewards and updates."""

import asyncio
import json
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback

from benchmarks.train_common import NEVER, SEED, Clock, Json, common_arguments, config_of, open_peer_model
from webdancer.calls.outside import Outside
from webdancer.config import Config
from webdancer.errors import ContextFullError
from webdancer.pipeline.models import open_models
from webdancer.pipeline.toolbox import open_toolbox
from webdancer.records import QA
from webdancer.store import read_records
from webdancer.train.generation import Engine, Generation, TokenSampling
from webdancer.train.policy import EnginePolicy
from webdancer.train.rl import RlProgress, train_rl
from webdancer.train.rollout import Draw, QuestionOrder, Roller, Rollout
from webdancer.train.tokens import ChatTokens
from webdancer.train.tool_cache import CachedToolbox
from webdancer.web.snapshot import Snapshot


class DapoWork(NamedTuple):
    """What both sides are asked to do. The first step is a warm-up."""

    run: str
    checkpoint: str
    questions: int
    rollouts: int
    updates: int
    steps: int
    """Measured."""
    learning_rate: float

    def config(self) -> Config:
        """The run's settings with this work in them; no group is dropped, so that both sides train on all."""
        config = config_of(Path(self.run))
        changes = {
            "num_steps": 1 + self.steps,
            "groups_per_step": self.questions,
            "rollouts_per_group": self.rollouts,
            "updates_per_step": self.updates,
            "learning_rate": self.learning_rate,
            "dynamic_sampling": False,
            "concurrency": self.questions * self.rollouts,
            "save_every_steps": NEVER,
        }
        return config.model_copy(update={"rl": config.rl.model_copy(update=changes)})

    def order(self) -> QuestionOrder:
        """The questions as they come up."""
        return QuestionOrder(list(read_records(Path(self.run) / "rl_qa.jsonl", QA)), seed=SEED)


def dapo_step(*, rollout: Clock, update: Clock, figures: Json) -> Json:
    return {
        "rollout_s": rollout.wall,
        "rollout_cpu_s": rollout.cpu,
        "update_s": update.wall,
        "update_cpu_s": update.cpu,
        **figures,
    }


def dapo_ours(*, out: str, **work_values: Any) -> Json:
    """Steps of `train_rl`; a step's own metrics give the seconds, its progress reports the processor's."""
    work = DapoWork(**work_values)
    config, folder = work.config(), Path(out)
    shutil.rmtree(folder, ignore_errors=True)
    started, rolled, ended = [Clock.now()], [Clock.now()], [Clock.now()]

    def on_progress(progress: RlProgress) -> None:
        if progress.num_groups == work.questions:
            rolled.append(Clock.now())
        elif progress.num_groups == 0:
            ended.append(Clock.now())

    async def train() -> None:
        with Snapshot.open(Path(work.run) / "snapshot") as snapshot:
            outside = Outside("rl")
            async with (
                open_models(config.llm, mode=config.sample.mode, outside=outside) as models,
                open_toolbox(config, models.summariser, outside, snapshot=snapshot) as toolbox,
            ):
                started[0] = ended[0] = Clock.now()
                await train_rl(
                    list(read_records(Path(work.run) / "rl_qa.jsonl", QA)),
                    base=Path(work.checkpoint),
                    out=folder,
                    toolbox=toolbox,
                    judge_model=models.judge,
                    agent_settings=config.agent,
                    settings=config.rl,
                    policy=config.policy,
                    seed=SEED,
                    on_progress=on_progress,
                )

    asyncio.run(train())
    steps = []
    for number, line in enumerate((folder / "metrics.jsonl").read_text().splitlines(), start=1):
        values = json.loads(line)
        rollout = Clock(values["seconds_rollout"], rolled[number].since(ended[number - 1]).cpu)
        update = Clock(values["seconds_update"] + values["seconds_sync"], ended[number].since(rolled[number]).cpu)
        figures = {
            "rollouts": values["rollouts"],
            "sampled_tokens": round(values["sampled_tokens_per_episode"] * values["rollouts"]),
            "trained_tokens": values["trained_tokens"],
            "episode_tokens": round(values["tokens_per_episode"] * values["rollouts"]),
            "turns": round(values["turns_per_episode"] * values["rollouts"]),
            "reward": values["reward"],
            "prefill_s": values["seconds_prefill"],
            "decode_s": values["seconds_decode"],
        }
        steps.append(dapo_step(rollout=rollout, update=update, figures=figures))
    return {"steps": steps[1:], "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


class PeerEngine(Engine):
    """TRL's generation behind our protocol, a turn of all open episodes at a time, as in TRL's own loop over tools."""

    def __init__(self, trainer: Any, *, max_context: int) -> None:
        self._trainer, self._max_context = trainer, max_context
        self._open: set[str] = set()
        self._waiting: list[tuple[list[int], int, asyncio.Future[Generation]]] = []

    def open(self, session: str) -> None:
        self._open.add(session)

    def release(self, session: str) -> None:
        self._open.discard(session)
        self._generate_if_all_wait()

    async def generate(self, ids: Sequence[int], sampling: TokenSampling, *, session: str) -> Generation:
        room = self._max_context - len(ids)
        if room < 1:
            raise ContextFullError(f"episode {session!r} is full")
        result: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self._waiting.append((list(ids), min(room, sampling.max_tokens), result))
        self._generate_if_all_wait()
        return await result

    def _generate_if_all_wait(self) -> None:
        if not self._waiting or len(self._waiting) < len(self._open):
            return
        waiting, self._waiting = self._waiting, []
        completions, _ = self._trainer._generate_single_turn([ids for ids, _, _ in waiting], None, {}, 1)
        for (_, most, result), sampled in zip(waiting, completions, strict=True):
            cut = sampled[:most]
            ended = cut[-1] in self._trainer.eos_token_ids
            result.set_result(Generation(cut, [0.0] * len(cut), "stop" if ended else "length"))


class PeerStep:
    """Clocks and counts of one of the peer's batches of rollouts."""

    def __init__(self) -> None:
        self.started = Clock.now()
        self.rolled = self.started
        self.scored = self.started
        self.figures: Json = {}


def figures_of(rollouts: Sequence[Rollout]) -> Json:
    num_sampled = sum(sum(rollout.sample.mask) for rollout in rollouts)
    return {
        "rollouts": len(rollouts),
        "sampled_tokens": num_sampled,
        "trained_tokens": num_sampled,
        "episode_tokens": sum(len(rollout.sample.token_ids) for rollout in rollouts),
        "turns": sum(len(rollout.trajectory.steps) for rollout in rollouts),
        "reward": sum(rollout.sample.reward.total for rollout in rollouts) / len(rollouts),
    }


def grpo_arguments(work: DapoWork, config: Config, setting: Json, out: str) -> Any:
    """The same work in TRL's words."""
    from trl.trainer.grpo_config import GRPOConfig

    num_micro = work.questions * work.rollouts // setting["rows"]  # micro-batches of one batch of rollouts
    return GRPOConfig(
        **common_arguments(setting, Path(out), work.learning_rate),
        per_device_train_batch_size=setting["rows"],
        steps_per_generation=num_micro,
        gradient_accumulation_steps=max(1, num_micro // work.updates),
        max_steps=(1 + work.steps) * work.updates,
        num_generations=work.rollouts,
        max_completion_length=config.policy.max_context,
        generation_kwargs={"max_new_tokens": config.agent.max_turn_tokens},
        **continuous_batching(work, config) if setting["generation"] == "continuous batching" else {},
        temperature=config.rl.temperature,
        top_p=config.rl.top_p,
        top_k=0,
        loss_type="dapo",
        beta=0.0,
        epsilon=config.rl.clip_low,
        epsilon_high=config.rl.clip_high,
        shuffle_dataset=False,
        lr_scheduler_type="constant",
        weight_decay=config.rl.weight_decay,
    )


def dapo_trl(*, setting: Json, out: str, **work_values: Any) -> Json:
    """Steps of TRL's GRPOTrainer with loss `dapo`; its `rollout_func` plays our episodes over our tools with TRL's generation."""
    from datasets import Dataset
    from trl.trainer.grpo_trainer import GRPOTrainer

    work = DapoWork(**work_values)
    config, order, tokens = work.config(), work.order(), ChatTokens.load(work.checkpoint)
    draws = [order.draw(position) for position in range((1 + work.steps) * work.questions)]
    by_name = {draw.group_id: draw for draw in draws}
    arguments = grpo_arguments(work, config, setting, out)
    steps: list[PeerStep] = []
    optimizer_steps: list[Clock] = []

    class Trainer(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            steps.append(PeerStep())
            outputs = super()._generate_and_score_completions(inputs)
            steps[-1].scored = Clock.now()
            return outputs

        def _generate(self, prompts: list[Any]) -> Any:
            outputs = super()._generate(prompts)
            steps[-1].rolled = Clock.now()
            return outputs

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            optimizer_steps.append(Clock.now())

    with asyncio.Runner() as runner, Snapshot.open(Path(work.run) / "snapshot") as snapshot:
        outside = Outside("rl")
        opening = open_models(config.llm, mode=config.sample.mode, outside=outside)
        models = runner.run(opening.__aenter__())
        tools = open_toolbox(config, models.summariser, outside, snapshot=snapshot)
        toolbox = CachedToolbox(runner.run(tools.__aenter__()))  # as ours has it

        def play(prompts: list[str], trainer: Any) -> Json:
            engine = PeerEngine(trainer, max_context=config.policy.max_context)
            roller = Roller(
                EnginePolicy(engine, tokens, name="peer"),
                toolbox,
                models.judge,
                agent_settings=config.agent,
                settings=config.rl,
                max_context=config.policy.max_context,
                max_batch=config.rl.concurrency,
                seed=SEED,
            )
            drawn = [by_name[name] for name in prompts[:: work.rollouts]]
            rollouts = runner.run(play_groups(roller, drawn))
            steps[-1].figures = figures_of(rollouts)
            return as_peer_output(rollouts)

        model = open_peer_model(Path(work.checkpoint), setting)
        model.generation_config.eos_token_id = sorted(tokens.stop_ids)
        trainer = Trainer(
            model=model,
            reward_funcs=[lambda completions, earned, **_: earned],
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": draw.group_id} for draw in draws]),
            processing_class=tokens.tokenizer,
            rollout_func=play,
            callbacks=[Watch()],
        )
        trainer.train()
        runner.run(tools.__aexit__(None, None, None))
        runner.run(opening.__aexit__(None, None, None))
    ends = [optimizer_steps[(number + 1) * work.updates - 1] for number in range(len(steps))]
    measured = [
        dapo_step(
            rollout=step.rolled.since(step.started),
            update=end.since(step.rolled),
            figures={**step.figures, "old_logprobs_s": step.scored.since(step.rolled).wall},
        )
        for step, end in zip(steps, ends, strict=True)
    ]
    return {"steps": measured[1:], "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def continuous_batching(work: DapoWork, config: Config) -> Json:
    """A cache with room for all episodes and no more: left alone, it takes a share of the memory, which is slow to go over."""
    page = 64
    num_blocks = work.questions * work.rollouts * -(-config.policy.max_context // page)
    options = {"page_size": page, "num_blocks": num_blocks, "max_batch_tokens": 512}
    return {
        "use_transformers_continuous_batching": True,
        "transformers_continuous_batching_config": options,
    }


async def play_groups(roller: Roller, draws: Sequence[Draw]) -> list[Rollout]:
    """All rollouts of all groups, in order; every episode is open before the first turn."""
    episodes = [roller.open(draw) for draw in draws]
    groups = await asyncio.gather(
        *(roller.group(draw, policy_version=0, episodes=opened) for draw, opened in zip(draws, episodes, strict=True))
    )
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    if any(group.num_dropped for group in groups):
        raise SystemExit(f"rollouts were dropped: {[group.num_dropped for group in groups if group.num_dropped]}")
    return rollouts


def as_peer_output(rollouts: Sequence[Rollout]) -> Json:
    """What TRL wants of a `rollout_func`: prompt up to the first sampled token, completion, and which of it was sampled."""
    starts = [rollout.sample.mask.index(True) for rollout in rollouts]
    samples = [rollout.sample for rollout in rollouts]
    return {
        "prompt_ids": [list(sample.token_ids[:start]) for sample, start in zip(samples, starts, strict=True)],
        "completion_ids": [list(sample.token_ids[start:]) for sample, start in zip(samples, starts, strict=True)],
        "env_mask": [list(map(int, sample.mask[start:])) for sample, start in zip(samples, starts, strict=True)],
        "logprobs": None,
        "earned": [sample.reward.total for sample in samples],
    }
