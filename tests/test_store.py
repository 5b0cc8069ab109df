"""The records files against torn lines, second writers, full disks and kill -9, each with the real thing."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from webdancer.errors import StoreError
from webdancer.records import Step, Trajectory, Verdict, VerdictReason, VerdictStage
from webdancer.store import RecordWriter, read_records, write_json, write_records


def verdict(number: int, detail: str = "") -> Verdict:
    return Verdict(
        id=f"t{number}/rules",
        trajectory_id=f"t{number}",
        stage=VerdictStage.RULES,
        keep=True,
        reason=VerdictReason.PASSED,
        detail=detail,
    )


def ids(path: Path) -> list[str]:
    return [record.id for record in read_records(path, Verdict)]


def run_python(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE, text=True)


def test_append_then_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "verdicts.jsonl"
    with RecordWriter(path, Verdict) as writer:
        writer.append(verdict(1, "多行\nzwei"))
        writer.append(verdict(2))
    assert list(read_records(path, Verdict)) == [verdict(1, "多行\nzwei"), verdict(2)]
    assert path.read_bytes().count(b"\n") == 2


def test_missing_file_holds_no_records(tmp_path: Path) -> None:
    assert ids(tmp_path / "none.jsonl") == []


def test_resume_knows_the_ids_and_refuses_doubles(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    with RecordWriter(path, Verdict) as writer:
        writer.append(verdict(1))
    with RecordWriter(path, Verdict) as writer:
        assert writer.ids == {"t1/rules"}
        writer.append(verdict(2))
        with pytest.raises(StoreError, match=r"v\.jsonl: id 't2/rules' is already in the file"):
            writer.append(verdict(2))
    assert ids(path) == ["t1/rules", "t2/rules"]


def test_another_field_can_be_the_key(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "v.jsonl", Verdict, key="trajectory_id") as writer:
        writer.append(verdict(1))
        assert writer.ids == {"t1"}


@pytest.mark.parametrize("torn", [b"{", b'{"id":"t3/rules","traj', b"\xff\x00\x00", b"x" * 200_000])
def test_torn_last_line_is_skipped_and_then_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "v.jsonl"
    write_records(path, [verdict(1), verdict(2)])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert ids(path) == ["t1/rules", "t2/rules"]
    with RecordWriter(path, Verdict) as writer:
        assert path.read_bytes() == whole
        writer.append(verdict(3))
    assert ids(path) == ["t1/rules", "t2/rules", "t3/rules"]


def test_file_that_is_one_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(b'{"id":')
    with RecordWriter(path, Verdict) as writer:
        assert writer.ids == set()
    assert path.read_bytes() == b""


def test_whole_last_line_without_newline_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(verdict(1).model_dump_json().encode())
    with RecordWriter(path, Verdict) as writer:
        writer.append(verdict(1))
    assert ids(path) == ["t1/rules"]


def test_damage_in_the_middle_is_an_error_that_frees_the_file(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    line = verdict(1).model_dump_json() + "\n"
    path.write_text(line + '{"id": "t2/rules"}\n' + line.replace("t1", "t3"))
    with pytest.raises(StoreError, match=r"v\.jsonl, line 2: not a Verdict record \(trajectory_id: Field required\)"):
        ids(path)
    with pytest.raises(StoreError, match="line 2"):
        RecordWriter(path, Verdict)
    path.write_text(line)
    with RecordWriter(path, Verdict) as writer:  # the lock was given back
        assert writer.ids == {"t1/rules"}


def test_second_writer_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    code = """
import sys; from pathlib import Path
from webdancer.records import Verdict; from webdancer.store import RecordWriter
from webdancer.errors import StoreError
try:
    RecordWriter(Path(sys.argv[1]), Verdict)
except StoreError as error:
    print(error)
else:
    print("no error")
"""
    with RecordWriter(path, Verdict) as writer:
        writer.append(verdict(1))
        other = run_python(code, str(path))
        said, _ = other.communicate(timeout=30)
        assert said.strip() == (f"{path}: another process is writing it; stop that run or choose another folder")
        writer.append(verdict(2))
    other = run_python(code, str(path))
    assert other.communicate(timeout=30)[0].strip() == "no error"
    assert ids(path) == ["t1/rules", "t2/rules"]


def test_second_writer_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    with RecordWriter(path, Verdict), pytest.raises(StoreError, match="another process is writing it"):
        RecordWriter(path, Verdict)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a file system is not allowed here; the file-size limit stands in for it")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_until_refused(writer: RecordWriter[Verdict], *, step: int = 1000) -> tuple[int, StoreError]:
    """Append records until one is refused. Returns how many were taken, and the error."""
    for number in range(1000):
        try:
            writer.append(verdict(number, "x" * step))
        except StoreError as error:
            return number, error
    raise AssertionError("the disk never filled")


def test_full_disk_loses_nothing_and_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 20_000)
    path = small_disk / "v.jsonl"
    with RecordWriter(path, Verdict) as writer:
        num_taken, error = fill_until_refused(writer)
        assert 0 < num_taken < 60
        assert f"{path}: could not append id 't{num_taken}/rules': No space left on device" in str(error)
        assert "free some space and run the same command again" in str(error)
        taken = [f"t{number}/rules" for number in range(num_taken)]
        assert ids(path) == taken
        assert path.read_bytes().endswith(b"\n")
        ballast.unlink()
        writer.append(verdict(num_taken))  # the same record, now that there is space
    assert ids(path) == [*taken, f"t{num_taken}/rules"]


def test_full_disk_leaves_the_older_whole_file(small_disk: Path) -> None:
    path = small_disk / "summary.json"
    write_json(path, {"ok": 1})
    with pytest.raises(StoreError, match="could not be written: No space left on device; free some space"):
        write_json(path, {"big": "x" * 200_000})
    assert path.read_text() == '{\n  "ok": 1\n}\n'
    assert [p.name for p in small_disk.iterdir()] == ["summary.json"]


def test_file_size_limit_cuts_a_line_in_the_middle_and_the_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with RecordWriter(path, Verdict) as writer:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
            num_taken, error = fill_until_refused(writer)
            size = path.stat().st_size
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, previous)
        assert "File too large" in str(error)
        assert size == num_taken * len(verdict(0, "x" * 1000).model_dump_json() + "\n")
        assert num_taken == 8  # each line holds some 1,120 bytes
        writer.append(verdict(num_taken))
    assert ids(path) == [f"t{number}/rules" for number in range(num_taken + 1)]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened for writing"):
        RecordWriter(tmp_path / "file" / "v.jsonl", Verdict)
    with pytest.raises(StoreError, match="could not be written"):
        write_json(tmp_path / "file" / "x.json", 1)


def test_half_surrogate_pairs_do_not_stop_a_run(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    step = Step(thought="a\ud83d b", tool="search", arguments={"query": ["\ude00", "桥"]})
    trajectory = Trajectory(
        id="t", qa_id="q", question="?", model="m", seed=0, steps=(step,), answer=None, status="step_limit"
    )
    with RecordWriter(path, Trajectory) as writer:
        writer.append(trajectory)
    (read,) = read_records(path, Trajectory)
    assert read.steps[0].thought == "a? b"
    assert read.steps[0].arguments == {"query": ["?", "桥"]}
    write_json(tmp_path / "x.json", {"a": "\ud83d"})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": "?"\n}\n'


WRITER = """
import sys; from pathlib import Path
from webdancer.records import Verdict; from webdancer.store import RecordWriter
with RecordWriter(Path(sys.argv[1]), Verdict) as writer:
    number = len(writer.ids)
    print("open", flush=True)
    while True:
        writer.append(Verdict(id=f"t{number}/rules", trajectory_id=f"t{number}", stage="rules", keep=True,
                              reason="passed", detail="x" * (number * 37 % 5000)))
        number += 1
        if number % 10 == 0:
            print(number, flush=True)
"""


def test_kill_9_during_appends_loses_no_record(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    for life in range(3):
        process = run_python(WRITER, str(path))
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(0.05 + 0.04 * life)
        os.kill(process.pid, signal.SIGKILL)
        said = process.stdout.read().split()
        process.stdout.close()
        assert process.wait(timeout=30) == -signal.SIGKILL
        found = ids(path)
        assert found == [f"t{number}/rules" for number in range(len(found))]
        assert len(found) >= int(said[-1])  # all that the process said it had appended
    with RecordWriter(path, Verdict) as writer:
        assert len(writer.ids) == len(found)
