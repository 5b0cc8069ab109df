"""Lists of questions and answers of one's own."""

import json
from pathlib import Path

import pytest
from format_records import make_records

from webdancer.errors import StoreError
from webdancer.records import QA
from webdancer.store import read_records
from webdancer.trajectories.formats import DataFormat
from webdancer.trajectories.formats.imported import QuestionCounts
from webdancer.trajectories.formats.reading import import_file


def read(tmp_path: Path, *entries: object) -> list[QA]:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    counts = import_file(DataFormat.QA, tmp_path / "mine.jsonl", tmp_path / "out")
    assert isinstance(counts, QuestionCounts)
    assert counts.num_questions + counts.num_duplicates == len(entries)
    return list(read_records(tmp_path / "out/qa.jsonl", QA))


def test_a_question_and_an_answer_are_enough(tmp_path) -> None:
    first, second = read(
        tmp_path, {"question": "谁建了灯塔？", "answer": "Orsk"}, {"question": "When?", "answer": 1904}
    )
    assert (first.question, first.answer, first.kind, first.evidence_urls) == (
        "谁建了灯塔？",
        "Orsk",
        "multi_hop",
        (),
    )
    assert (second.answer, second.split) == ("1904", None)
    assert first.id != second.id
    assert first.id.startswith("q-")


def test_the_same_entry_twice_is_one_question(tmp_path) -> None:
    entry = {"question": "When?", "answer": "1904"}
    assert len(read(tmp_path, entry, entry)) == 1


def test_our_own_records_come_back(tmp_path) -> None:
    qas = make_records().train
    assert read(tmp_path, *(qa.model_dump(mode="json") for qa in qas)) == qas


def test_the_tag_of_the_release_is_a_kind(tmp_path) -> None:
    (qa,) = read(tmp_path, {"question": "When?", "answer": "1904", "tag": "e2hqa"})
    assert qa.kind == "easy_to_hard"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"question": "When?"}, "line 1: no question with its answer: answer: got .* Field required"),
        ({"question": " ", "answer": "x"}, "line 1: .*got an empty question, expected a text"),
        ({"question": "When?", "answer": ["x"]}, "line 1: .*answer"),
        ({"question": "When?", "answer": True}, "line 1: .*answer"),
        (
            {"question": "When?", "answer": "x", "kind": "riddle"},
            "line 1: .*kind: got 'riddle': Input should be 'count'",
        ),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, entry, problem) -> None:
    with pytest.raises(StoreError, match=problem):
        read(tmp_path, entry)


def test_one_id_for_two_questions_is_named(tmp_path) -> None:
    with pytest.raises(StoreError, match=r"line 2: got the id .* again with other content, which .*line 1 has"):
        read(tmp_path, {"question": "When?", "answer": "1904"}, {"question": "When?", "answer": "1905"})
