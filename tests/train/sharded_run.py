"""Supervised fine-tuning in shards, launched in two processes by the tests: whole, broken off and resumed, with adapters.

accelerate launch --config_file configs/fsdp.yaml sharded_run.py BASE OUT
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from rl_toys import toy_model, toy_tokenizer
from sft_toys import BF16, FP32, SETTINGS, toy_examples

from webdancer.config import PolicySettings
from webdancer.train.learner import Learner
from webdancer.train.sft import SftProgress, train_on_examples

THREE_STEPS = SETTINGS.model_copy(update={"learning_rate": 1e-3, "num_epochs": 0.75, "save_every_steps": 1})
LORA = BF16.model_copy(update={"lora_rank": 4, "gradient_checkpointing": True})


class BreakOffError(Exception):
    """The training was interrupted."""


def break_off(progress: SftProgress) -> None:
    if progress.step == 2:
        raise BreakOffError


def train(
    base: Path, out: Path, policy: PolicySettings, on_progress: Callable[[SftProgress], None] = lambda progress: None
) -> None:
    train_on_examples(
        toy_examples(21), base=base, tokenizer=toy_tokenizer(), out=out, settings=THREE_STEPS, policy=policy, seed=2,
        on_progress=on_progress,
    )  # fmt: skip


def main(base: Path, out: Path) -> None:
    train(base, out / "whole", FP32)
    train(base, out / "bfloat16", BF16)
    train(base, out / "lora", LORA)
    train(base, out / "from_replica", FP32)  # a state that a single process has left there
    try:
        train(base, out / "resumed", FP32, on_progress=break_off)
    except BreakOffError:
        train(base, out / "resumed", FP32)
    model = toy_model()
    num_weights = sum(weight.numel() for weight in model.parameters())
    Learner(model, Accelerator(cpu=True), dtype=torch.bfloat16, weight_decay=0.0, max_grad_norm=1.0)
    local = [weight.to_local() for weight in model.parameters()]  # type: ignore[operator]
    print(f"{sum(shard.numel() for shard in local)} of {num_weights} in {local[0].dtype}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
