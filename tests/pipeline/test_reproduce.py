"""The comparison over seeds, in small: every part runs, what is done is not done again, a second seed has other webs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from webdancer.pipeline.comparison import SYSTEMS, TEMPERATURES

SETTINGS = """
[world]
num_pages = 1020
num_heldout_pages = 510

[synth.num_questions]
count = 10
multi_hop = 110
intersection = 0
easy_to_hard = 110

[synth.num_heldout_questions]
count = 3
multi_hop = 10
intersection = 0
easy_to_hard = 10

[agent]
prompt = "agent_brief"
observations = "brief"
num_results = 2
max_snippet_chars = 80
max_evidence_chars = 300
max_steps = 10
max_turn_tokens = 128
max_tokens = 2048
max_invalid_turns = 1

[policy]
max_context = 2048
embedding_rate_share = 0.1

[sample]
sft_share = 0.7

[sft]
num_epochs = 6
learning_rate = 2e-3
batch_tokens = 4096

[rl]
num_steps = 1
groups_per_step = 8
rollouts_per_group = 8
"""


def reproduce(folder: Path, num_seeds: int) -> dict[str, object]:
    command = [sys.executable, "-m", "webdancer", "reproduce", str(folder / "out"), "--seeds", str(num_seeds)]
    done = subprocess.run(
        [*command, "--config", str(folder / "settings.toml")], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_one_seed_and_then_another(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    summary = reproduce(tmp_path, 1)
    (entry,) = summary["seeds"]
    assert set(entry["eval"]) == {f"{system}@{temperature:g}" for system in SYSTEMS for temperature in TEMPERATURES}
    assert entry["eval"]["sft_more@0"]["all"]["num_questions"] >= 18
    assert entry["num_own_right"] > 0
    # The control had RL's time: what an optimizer step or a wave of episodes takes may come on top.
    assert 0.5 < entry["seconds"]["sft_more"] / entry["seconds"]["rl"] < 2
    out = tmp_path / "out"
    assert json.loads((out / "summary.json").read_text()) == summary
    assert "| 0 | greedy | all, n = " in (out / "results.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in (out / "seed-0").rglob("*.safetensors")}

    both = reproduce(tmp_path, 2)
    assert both["seeds"][0] == entry
    assert both["seeds"][1]["world_seeds"] == [17, 18]
    assert {path: path.stat().st_mtime_ns for path in before} == before
