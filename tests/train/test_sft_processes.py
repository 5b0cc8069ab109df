"""Two gloo processes with uneven shares make the same updates as one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sft_run import run
from sft_toys import SETTINGS, toy_base, toy_examples
from test_sft_resume import ENVIRONMENT, SCRIPT, num_lines

from webdancer.train.batches import share_out
from webdancer.train.checkpoint import read_state
from webdancer.train.sft_data import plan_steps, split_examples


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    base = toy_base(tmp_path / "base")
    # `--cpu` would start one process only. What device is used is said by `policy.device`, so this is gloo on the CPU.
    command = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    launched = subprocess.run(
        [sys.executable, "-m", *command, str(SCRIPT), str(base), str(tmp_path / "two"), "float32"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    one = run(base, tmp_path / "one", "float32")
    assert launched.stdout.count(f"done {one.num_steps}") == 2
    assert num_lines(tmp_path / "two") == one.num_steps  # written by one of them
    states = [read_state(tmp_path / name / "state") for name in ("one", "two")]
    assert states[0] is not None
    assert states[1] is not None
    for name, weight in states[0].values["learner"]["weights"].items():
        other = states[1].values["learner"]["weights"][name]
        torch.testing.assert_close(other, weight, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert abs(states[0].values["best_loss"] - states[1].values["best_loss"]) < 1e-6


def test_the_shares_of_that_run_are_uneven() -> None:
    examples = split_examples(toy_examples(21), max_context=64, share=SETTINGS.validation_share, seed=2).train
    lengths = [len(example.token_ids) for example in examples]
    plan = plan_steps(lengths, batch_tokens=SETTINGS.batch_tokens, num_epochs=SETTINGS.num_epochs, seed=2)
    shares = [share_out([lengths[row] for row in step], num_shares=2) for step in plan.steps]
    assert any(len(first) != len(second) for first, second in shares)
