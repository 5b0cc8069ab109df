"""From trajectories to a checkpoint: what is trained is what the policy will be asked to write."""

from pathlib import Path

import torch
from rl_toys import toy_model, toy_tokenizer
from sft_toys import FP32, SETTINGS
from transformers import AutoModelForCausalLM

from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.records import Status, Step, Trajectory
from webdancer.train.batches import make_batch
from webdancer.train.model import save_checkpoint, token_logprobs
from webdancer.train.sft import train_sft
from webdancer.train.sft_data import Example
from webdancer.train.tokens import ChatTokens, encode_trajectory


def trajectory(number: int, colour: str) -> Trajectory:
    steps = (
        Step(thought="look", tool="search", arguments={"query": [colour]}, observation=f"Results:\n{colour}"),
        Step(thought="guess"),
    )
    return Trajectory(
        id=f"t{number}", qa_id=f"q{number}", question=f"Which word is it, {colour}?", model="teacher", seed=0, steps=steps,
        answer=colour, status=Status.ANSWERED,
    )  # fmt: skip


def test_trajectories_are_learnt(tmp_path: Path) -> None:
    save_checkpoint(toy_model(hidden=64), toy_tokenizer(), tmp_path / "base")
    trajectories = [trajectory(number, colour) for number, colour in enumerate(["red", "blue"] * 4)]
    policy = FP32.model_copy(update={"max_context": 512})
    settings = SETTINGS.model_copy(
        update={"num_epochs": 30, "batch_tokens": 4096, "micro_batch_tokens": 2048, "learning_rate": 1e-2}
    )
    result = train_sft(
        trajectories, base=tmp_path / "base", out=tmp_path / "out", settings=settings, policy=policy,
        prompt="agent_brief", schemas=TOOL_SCHEMAS, seed=0,
    )  # fmt: skip
    assert (result.num_examples, result.num_validation, result.num_too_long) == (6, 2, 0)
    tokens = ChatTokens.load(tmp_path / "out")
    sequence = encode_trajectory(tokens, trajectories[0], TOOL_SCHEMAS, prompt="agent_brief")
    example = Example("t0", "q0", sequence.token_ids, sequence.mask)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert token_logprobs(model, make_batch([example], [0])).mean() > -0.2
    assert result.validation_loss is not None
    assert result.validation_loss < 0.5
