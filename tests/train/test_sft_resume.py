"""kill -9 and again: the same weights, bit for bit, as without."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from sft_run import run
from sft_toys import toy_base

from webdancer.errors import StoreError
from webdancer.train.checkpoint import read_state, write_state
from webdancer.train.metrics import MetricsLog

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


def test_metrics_are_cut_back_to_the_state(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step / 2, "note": None})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with MetricsLog(tmp_path, resume_step=2) as log:
        log.write(3, {"loss": 9.0})
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "loss": 0.5, "note": None},
        {"step": 2, "loss": 1.0, "note": None},
        {"step": 3, "loss": 9.0},
    ]
