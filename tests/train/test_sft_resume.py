"""kill -9 and again: the same weights, bit for bit, as without."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rl_toys import toy_tokenizer
from sft_run import run
from sft_toys import FP32, toy_base, toy_examples

from webdancer.config import PretrainSettings
from webdancer.errors import StoreError, TrainError
from webdancer.train.checkpoint import read_state, start_of, write_state
from webdancer.train.metrics import MetricsLog
from webdancer.train.pretrain import pretrain

SCRIPT = Path(__file__).with_name("sft_run.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent.parent)}


def num_lines(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def curve_of(out: Path) -> list[dict[str, float]]:
    """The metrics without times."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "tokens_per_s")} for line in lines]


def kill_after(lines: int, base: Path, out: Path) -> int:
    """Start the training, kill it once its metrics have so many lines; its exit status."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(base), str(out), "bfloat16"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while num_lines(out) < lines and process.poll() is None:
        assert time.monotonic() < deadline, "the training does not get on"
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode


@pytest.mark.slow
def test_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    base = toy_base(tmp_path / "base")
    whole = run(base, tmp_path / "whole", "bfloat16")
    assert whole.num_steps > 11
    out = tmp_path / "out"
    # Before the first state (every third step has one), behind a state, and in a run that is a continuation itself.
    for lines in (2, 7, 11):
        assert kill_after(lines, base, out) == -signal.SIGKILL
        state = read_state(out / "state")
        assert state is None or state.step < whole.num_steps
    resumed = run(base, out, "bfloat16")
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    states = [read_state(folder / "state") for folder in (out, tmp_path / "whole")]
    assert states[0] is not None
    assert states[1] is not None
    for name, weight in states[1].values["learner"]["weights"].items():
        assert torch.equal(states[0].values["learner"]["weights"][name], weight), name
    assert (resumed.num_steps, resumed.best_step, resumed.loss, resumed.validation_loss, resumed.num_tokens) == (
        whole.num_steps, whole.best_step, whole.loss, whole.validation_loss, whole.num_tokens,
    )  # fmt: skip
    curves = [curve_of(folder) for folder in (out, tmp_path / "whole")]
    assert curves[0] == curves[1]
    assert [line["step"] for line in curves[0]] == list(range(1, whole.num_steps + 1))


def test_state_cut_off_in_writing_is_not_read(tmp_path: Path) -> None:
    write_state(tmp_path, 3, {"number": 1.5, "weights": {"a": torch.ones(2)}})
    (tmp_path / ".step-00000006.pt.tmp").write_bytes(b"half of a sta")
    state = read_state(tmp_path)
    assert state is not None
    assert (state.step, state.values["number"], state.values["weights"]["a"].tolist()) == (3, 1.5, [1.0, 1.0])
    write_state(tmp_path, 6, {"number": 2.5})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000006.pt"]


def test_newest_state_wins_where_the_older_was_not_yet_removed(tmp_path: Path) -> None:
    write_state(tmp_path / "a", 9, {"number": 9})
    write_state(tmp_path / "b", 10, {"number": 10})
    (tmp_path / "a" / "step-00000009.pt").rename(tmp_path / "b" / "step-00000009.pt")
    state = read_state(tmp_path / "b")
    assert state is not None
    assert state.values == {"number": 10}


def test_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.pt").write_bytes(b"rubbish")
    with pytest.raises(StoreError, match=r"step-00000001\.pt: not a readable state"):
        read_state(tmp_path)
    assert read_state(tmp_path / "nothing") is None


@pytest.mark.parametrize("num_numbers", [2_000, 100_000])
def test_state_that_the_disk_has_no_room_for_leaves_the_one_before(tmp_path: Path, num_numbers: int) -> None:
    """A limit on the size of files stands for the full disk."""
    write_state(tmp_path, 3, {"number": 1.5})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
        with pytest.raises(
            StoreError, match=r"step-00000006\.pt: could not be written: File too large; free some space"
        ):
            write_state(tmp_path, 6, {"weights": torch.ones(num_numbers)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003.pt"]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_all_bytes_of_the_base_are_in_the_fingerprint(tmp_path: Path, name: str) -> None:
    weights = bytearray(3 << 20)
    (tmp_path / name).write_bytes(weights)
    before = start_of(tmp_path, FP32)
    assert start_of(tmp_path, FP32.model_copy(update={"max_batch": 2, "num_threads": 2})) == before
    weights[-1] = 1
    (tmp_path / name).write_bytes(weights)
    assert start_of(tmp_path, FP32) != before
    (tmp_path / name).write_bytes(bytearray(3 << 20))
    assert start_of(tmp_path, FP32) == before
    assert start_of(tmp_path, FP32.model_copy(update={"lora_rank": 2})) != before


def pretrained(out: Path, *, seed: int = 0, **changes: object) -> list[float]:
    """The steps that a small pre-training makes."""
    sizes = {"hidden_size": 64, "num_layers": 1, "intermediate_size": 64, "batch_tokens": 256, "warmup_steps": 2}
    settings = PretrainSettings.model_validate({**sizes, "num_steps": 4, "eval_every_steps": 2, **changes})
    made: list[float] = []
    pretrain(
        toy_examples(12), toy_examples(2), toy_tokenizer(), settings=settings, out=out, seed=seed,
        on_step=lambda numbers: made.append(numbers["step"]),
    )  # fmt: skip
    return made


def test_pretraining_goes_on_longer_but_not_with_another_seed_or_other_settings(tmp_path: Path) -> None:
    assert pretrained(tmp_path) == [1, 2, 3, 4]
    assert pretrained(tmp_path, num_steps=6, eval_every_steps=3) == [5, 6]
    for change in ({"seed": 1}, {"learning_rate": 1e-4}):
        with pytest.raises(
            TrainError, match=r"pretrain_state\.pt is of a training with another seed or other settings"
        ):
            pretrained(tmp_path, num_steps=8, **change)
    assert pretrained(tmp_path / "other", seed=1) == [1, 2, 3, 4]


def test_metrics_are_cut_back_to_the_state(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write(step, {"loss": step / 2, "note": None})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    log = MetricsLog(tmp_path, resume_step=2)
    log.write(3, {"loss": 9.0})
    log.close()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "loss": 0.5, "note": None},
        {"step": 2, "loss": 1.0, "note": None},
        {"step": 3, "loss": 9.0},
    ]
