"""Exports of a run on the command line, and that what other trainers put the loss on is what our own SFT trains on."""

import itertools
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from format_records import conversation, make_records, trajectories
from hypothesis import assume, given, settings

from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.config import Config
from webdancer.pipeline.run_folder import RunFolder
from webdancer.records import Trajectory
from webdancer.store import write_records
from webdancer.train.tokens import ChatTokens, encode_trajectory
from webdancer.trajectories.formats.chat_rows import chatml_row, openai_row, sharegpt_row
from webdancer.trajectories.formats.tables import trajectory_table
from webdancer.trajectories.import_release import released_row

TOKENS = ChatTokens.load(Path(str(resources.files("webdancer.train"))) / "base")
END = "<|im_end|>"


def learnt_texts(trajectory: Trajectory) -> list[str]:
    """The text of each run of tokens that our SFT puts the loss on."""
    ids, mask = encode_trajectory(TOKENS, trajectory, TOOL_SCHEMAS, prompt="agent")
    runs = itertools.groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    return [TOKENS.decode([id_ for id_, _ in run]) for trained, run in runs if trained]


@settings(deadline=None)  # the first example pays for imports
@given(trajectories())
def test_the_loss_of_every_format_is_on_the_text_that_our_sft_trains_on(trajectory: Trajectory) -> None:
    assume(not any(step.cut for step in trajectory.steps))  # only there our SFT does not train the end of a turn
    learnt = learnt_texts(trajectory)
    assert all(text.endswith(END) for text in learnt)
    expected = [text.removesuffix(END) for text in learnt]
    written = conversation(trajectory)
    (in_table,) = trajectory_table([written], [trajectory], {}).to_pylist()
    released = released_row(written, trajectory, None)
    for row in (chatml_row(written), openai_row(written), in_table, released):
        assert [m["content"] for m in row["messages"] if m["role"] == "assistant"] == expected
    turns = sharegpt_row(written)["conversations"]
    assert [turn["value"] for turn in turns if turn["from"] == "gpt"] == expected


@settings(deadline=None)  # the first example pays for imports
@given(trajectories())
def test_a_plain_chatml_template_renders_what_our_sft_reads(trajectory: Trajectory) -> None:
    assume(not any(step.cut for step in trajectory.steps))
    ids, _ = encode_trajectory(TOKENS, trajectory, TOOL_SCHEMAS, prompt="agent")
    messages = chatml_row(conversation(trajectory))["messages"]
    rendered = TOKENS.tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered == TOKENS.decode(ids) + "\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose stage `sample` is done."""
    folder = tmp_path_factory.mktemp("runs") / "lighthouses"
    RunFolder(folder, Config())
    records = make_records()
    write_records(folder / "qa.jsonl", records.train)
    write_records(folder / "sft.jsonl", records.sft)
    write_records(folder / "rl_qa.jsonl", records.rl)
    write_records(folder / "heldout_qa.jsonl", records.heldout)
    return folder


def webdancer(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webdancer", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_run_is_exported_and_read_back_on_the_command_line(run, tmp_path) -> None:
    done = webdancer("export", run, "--format", "sharegpt", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown == {
        "format": "sharegpt",
        "folder": str(tmp_path / "out"),
        "system_prompt": "agent",
        "files": {"sft.jsonl": 2},
        "warnings": [],
    }
    done = webdancer("import", "--format", "sharegpt", tmp_path / "out/sft.jsonl", "--out", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_same"] == 2
    assert (tmp_path / "back/trajectories.jsonl").read_bytes() == (run / "sft.jsonl").read_bytes()


def test_the_prompt_is_that_of_the_run(tmp_path) -> None:
    folder = tmp_path / "run"
    RunFolder(folder, Config.model_validate({"agent": {"prompt": "agent_brief"}}))
    write_records(folder / "sft.jsonl", make_records().sft)
    done = webdancer("export", folder, "--format", "openai", "--out", tmp_path / "out", "--split", "sft")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["system_prompt"] == "agent_brief"
    first = json.loads((tmp_path / "out/sft.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert "Answer the question with what you read on the web" in first["messages"][0]["content"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("export", "{tmp}/none", "--format", "chatml", "--out", "{tmp}/o"), 2, "{tmp}/none holds no run"),
        (
            ("export", "{run}", "--format", "openai", "--split", "rl", "--out", "{tmp}/o"),
            2,
            "cannot hold 'rl', only sft",
        ),
        (("export", "{run}", "--format", "qa", "--out", "{tmp}/o"), 2, "'qa' is read only"),
        (("export", "{run}", "--format", "csv", "--out", "{tmp}/o"), 2, "csv"),
        (
            ("export", "{run}", "--format", "chatml", "--out", "{run}"),
            1,
            "{run} is no export of this version: it holds",
        ),
        (("import", "{tmp}/none.jsonl", "--format", "qa", "--out", "{tmp}/o"), 1, "cannot read {tmp}/none.jsonl"),
    ],
)
def test_wrong_use_gets_one_clear_message(run, tmp_path, arguments, code, message) -> None:
    done = webdancer(*(argument.format(tmp=tmp_path, run=run) for argument in arguments))
    assert done.returncode == code, done.stderr
    assert message.format(tmp=tmp_path, run=run) in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()
