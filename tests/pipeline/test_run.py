"""Whole runs of the command on a small embedded web: their records, resumed and repeated."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_records import load_run

from webdancer.records import QA, Trajectory
from webdancer.store import read_records
from webdancer.web.snapshot import Snapshot

SMALL = Path(__file__).parent / "small.toml"


def command(out: Path) -> list[str]:
    return [sys.executable, "-m", "webdancer", "run", str(out), "--config", str(SMALL)]


def run_to_end(out: Path) -> str:
    done = subprocess.run(command(out), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "finished"
    run_to_end(out)
    return out


def test_summary_adds_up(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    funnel = summary["funnel"]
    assert funnel["sampled"] == funnel["kept"] + sum(sum(stage.values()) for stage in funnel["dropped"].values())
    assert summary["crawl"]["num_pages"] > 200
    assert summary["crawl"]["num_robots_violations"] == 0
    assert sum(summary["qa"]["dropped"].values()) == len((finished / "qa_dropped.jsonl").read_bytes().splitlines()) > 0
    assert sum(summary["qa"]["by_kind"].values()) == summary["qa"]["num_sft"] + summary["qa"]["num_rl"]
    for system in ("scribe", "closed_book", "guess", "one_search"):
        assert summary["eval"][system]["num_questions"] == summary["qa"]["num_heldout"]
    assert set(summary["seconds"]) >= {"crawl", "synth", "sample", "eval"}


def test_sft_rl_and_heldout_questions_are_disjoint(finished: Path) -> None:
    learnt = {t.qa_id for t in read_records(finished / "sft.jsonl", Trajectory)}
    for_rl = {qa.id for qa in read_records(finished / "rl_qa.jsonl", QA)}
    heldout = list(read_records(finished / "heldout_qa.jsonl", QA))
    training = list(read_records(finished / "qa.jsonl", QA))
    assert learnt
    assert for_rl
    assert not learnt & for_rl
    assert learnt | for_rl == {qa.id for qa in training}
    assert not {qa.question for qa in heldout} & {qa.question for qa in training}
    with Snapshot.open(finished / "heldout_snapshot") as snapshot:
        assert all(snapshot.page(url) for qa in heldout for url in qa.evidence_urls)


def test_a_finished_run_is_not_done_again(finished: Path) -> None:
    before = load_run(finished)
    stderr = run_to_end(finished)
    assert stderr.count("done before") == 4
    assert load_run(finished) == before


def test_other_settings_are_refused_in_the_same_folder(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(SMALL.read_text() + "\n[sample]\nmax_attempts = 2\n")
    done = subprocess.run(
        [*command(finished)[:-1], str(other)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "sample.max_attempts: 5 → 2" in done.stderr.replace("\n", " ")


def test_a_key_that_a_later_stage_needs_is_missed_before_the_crawl(tmp_path: Path) -> None:
    keyed = tmp_path / "keyed.toml"
    judge = '\n[llm.judge]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\napi_key_env = "NO_SUCH_KEY"\n'
    keyed.write_text(SMALL.read_text() + judge)
    run = [*command(tmp_path / "run")[:-1], str(keyed)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "'NO_SUCH_KEY', which is not set" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "run" / "snapshot").exists()
    assert subprocess.run([*run, "--until", "crawl"], capture_output=True, check=False, timeout=60).returncode == 0


def test_a_run_goes_on_with_its_own_settings_where_none_are_given(finished: Path) -> None:
    before = load_run(finished)
    done = subprocess.run(command(finished)[:-2], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert load_run(finished) == before


def test_same_seed_same_records(finished: Path, tmp_path: Path) -> None:
    run_to_end(tmp_path / "again")
    assert load_run(tmp_path / "again") == load_run(finished)


def kill_randomly(out: Path, rng: random.Random, longest_s: float) -> int:
    """Start the run and kill it with all its children after a random time, over and over until it ends; counts kills."""
    num_kills = 0
    while True:
        process = subprocess.Popen(
            command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            # Later attempts are given longer, so that one ends at last.
            process.wait(timeout=rng.uniform(0.5, longest_s) * (1 + num_kills / 4))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            num_kills += 1
        else:
            assert process.returncode == 0
            return num_kills


@pytest.mark.slow
def test_twenty_runs_killed_at_random_end_with_the_same_records(finished: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    run_to_end(tmp_path / "timed")
    whole_s = time.monotonic() - start
    expected, num_kills = load_run(finished), 0
    for number in range(20):
        out = tmp_path / f"run{number}"
        num_kills += kill_randomly(out, random.Random(number), whole_s)
        assert load_run(out) == expected, f"run {number}"
    assert num_kills >= 20


def test_a_run_killed_twice_ends_with_the_same_records(finished: Path, tmp_path: Path) -> None:
    out, rng = tmp_path / "killed", random.Random(5)
    for _ in range(2):
        process = subprocess.Popen(
            command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(2.0, 6.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run_to_end(out)
    assert load_run(out) == load_run(finished)


def servers_of(out: Path) -> list[str]:
    """Command lines of running servers that log into the run's folder."""
    lines = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    return [line.decode() for line in lines if b"--access-log" in line and str(out).encode() in line]


def test_a_killed_run_leaves_no_server_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path / "out"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not servers_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers_of(tmp_path)
    process.kill()
    process.wait()
    while servers_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers_of(tmp_path) == []


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    process = subprocess.Popen(command(out), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (out / "crawl" / "train_access.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"webdancer run {out} --config {SMALL}" in stderr
    assert "Traceback" not in stderr
