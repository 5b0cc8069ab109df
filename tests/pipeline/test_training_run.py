"""Whole runs with training, by the command, on a small web and with a policy of random weights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_records import load_run
from tiny_checkpoint import AGENT_TEXTS, build_checkpoint

from webdancer.records import QA, EvalResult, Status
from webdancer.store import read_records

MICRO = Path(__file__).parent / "micro.toml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def webdancer(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webdancer", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings with a base of random weights."""
    folder = tmp_path_factory.mktemp("settings")
    base = build_checkpoint(folder / "random", texts=AGENT_TEXTS, vocab_size=700)
    path = folder / "micro.toml"
    path.write_text(MICRO.read_text().replace("[policy]\n", f"[policy]\nbase = {json.dumps(str(base))}\n"))
    return path


@pytest.fixture(scope="module")
def finished(settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "finished"
    done = webdancer("run", out, "--config", settings)
    assert done.returncode == 0, done.stderr
    assert "SFT steps: " in done.stderr
    assert "DAPO steps: 1 of 1" in done.stderr
    return out


def test_a_run_trains_and_evaluates_the_checkpoints(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert list(summary["eval"]) == ["base", "sft", "rl", "scribe", "guess"]
    for system in ("base", "sft", "rl"):
        entry = summary["eval"][system]
        assert entry["num_questions"] == summary["qa"]["num_heldout"] == 6
        assert entry["mean_tokens"] > 200
        assert entry["mean_turns"] >= 1
        assert sum(part["num_questions"] for part in entry["by_hops"].values()) == 6
        assert entry["cost"]["sampled_tokens"] > 0
        assert entry["cost"]["prompt_tokens"] > entry["cost"]["cached_tokens"] >= 0
    assert summary["eval"]["scribe"]["mean_actions"] > 1
    assert set(summary["seconds"]) == {"crawl", "synth", "sample", "sft", "rl", "eval", "report"} - {"report"}
    assert summary["training"]["sft"]["step"] == 6
    assert summary["training"]["rl"]["rollouts"] == 4
    for stage in ("sft", "rl"):
        assert (finished / stage / "config.json").exists()
        assert (finished / stage / "tokenizer.json").exists()
    report = (finished / "report.html").read_text()
    assert "wrong all along" in report
    assert 'aria-label="SFT: loss"' in report


def test_results_know_hops_turns_and_tokens_and_no_answer_is_demanded_of_a_policy(finished: Path) -> None:
    hops = {qa.id: len(qa.evidence_urls) for qa in read_records(finished / "heldout_qa.jsonl", QA)}
    for system in ("base", "rl"):
        results = list(read_records(finished / "eval" / f"{system}.jsonl", EvalResult))
        assert {result.qa_id: result.num_hops for result in results} == hops
        assert all(result.num_tokens > result.num_turns > 0 for result in results)
        assert Status.FORCED_ANSWER not in {result.status for result in results}


def test_a_finished_run_is_not_trained_again(finished: Path) -> None:
    before = load_run(finished)
    done = webdancer("run", finished)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done before") == 6
    assert load_run(finished) == before


def test_stages_one_by_one_give_the_same_run(finished: Path, settings: Path, tmp_path: Path) -> None:
    out = tmp_path / "staged"
    assert webdancer("run", out, "--config", settings, "--until", "sample").returncode == 0
    early = webdancer("rl", out)
    assert early.returncode == 2
    assert "the stage 'sft' must be done first" in early.stderr.replace("\n", "")
    for stage in ("sft", "rl", "eval", "report"):
        done = webdancer(stage, out)
        assert done.returncode == 0, done.stderr
    assert load_run(out) == load_run(finished)


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_run_killed_while_it_trains_ends_with_the_same_records(
    finished: Path, settings: Path, tmp_path: Path, stage: str
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "webdancer", "run", str(out), "--config", str(settings)]
    sign_of_life = {"sft": "sft/metrics.jsonl", "rl": "rl/groups/*"}[stage]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while not list(out.glob(sign_of_life)) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(out.glob(sign_of_life))
    done = webdancer("run", out)
    assert done.returncode == 0, done.stderr
    assert load_run(out) == load_run(finished)


def test_ctrl_c_while_it_trains_says_how_to_go_on(finished: Path, settings: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    long = tmp_path / "long.toml"
    long.write_text(settings.read_text().replace("num_epochs = 2", "num_epochs = 2000"))
    process = subprocess.Popen(
        [sys.executable, "-m", "webdancer", "run", str(out), "--config", str(long)],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 120
    while not (out / "sft" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"webdancer run {out}" in stderr
    assert "Traceback" not in stderr
    assert (out / "sft" / "metrics.jsonl").read_text().count("\n") > 5


def test_a_checkpoint_answers_the_same_in_process_and_served(finished: Path) -> None:
    question = next(read_records(finished / "heldout_qa.jsonl", QA)).question
    here = webdancer("ask", question, "--model", finished / "rl", "--heldout", "--json")
    shown = webdancer("ask", question, "--model", finished / "rl", "--heldout")
    server = subprocess.Popen(
        [sys.executable, "-m", "webdancer", "serve", "--model", str(finished / "rl"), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "COLUMNS": "200"},
    )
    try:
        assert server.stderr is not None
        line = ""
        while "Serving" not in line:
            line = server.stderr.readline()
            assert line, "the server ended"
        url = line.split(" at ")[1].split()[0]
        there = webdancer("ask", question, "--model", url, "--run", finished, "--heldout", "--json")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
    mine, theirs = json.loads(here.stdout), json.loads(there.stdout)
    assert mine["steps"]
    assert [step["raw"] for step in mine["steps"]] == [step["raw"] for step in theirs["steps"]]
    assert mine["status"] == theirs["status"]
    assert here.returncode == shown.returncode == (1 if mine["answer"] is None else 0)
    assert "No answer" in shown.stderr or "Answer: " in shown.stderr


def test_a_folder_without_a_checkpoint_is_named(finished: Path) -> None:
    done = webdancer("ask", "Who?", "--model", finished / "eval", "--run", finished)
    assert done.returncode == 2
    assert f"{finished / 'eval'}: no checkpoint here" in done.stderr.replace("\n", "")
    done = webdancer("ask", "Who?", "--model", "http://127.0.0.1:9/v1", "--run", finished)
    assert done.returncode == 2
    assert "no OpenAI-compatible API answers there" in done.stderr.replace("\n", " ")
