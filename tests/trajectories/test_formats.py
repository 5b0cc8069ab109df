"""The formats that are JSON lines: what they look like to those who read them, and that nothing is lost on the way back."""

import json
import re
from pathlib import Path

import pytest
from format_records import conversation, make_records, make_trajectory, trajectories
from hypothesis import given, settings

from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.agent.transcript import replay
from webdancer.errors import ConfigError, StoreError
from webdancer.records import Status, Step, Trajectory, Usage, Verdict
from webdancer.store import read_records
from webdancer.trajectories.formats import DataFormat, ExportSplit
from webdancer.trajectories.formats.chat_rows import (
    chatml_row,
    openai_row,
    parse_messages,
    parse_sharegpt,
    sharegpt_row,
)
from webdancer.trajectories.formats.conversation import read_turns, rendered_turns, to_conversation
from webdancer.trajectories.formats.reading import import_file
from webdancer.trajectories.formats.writing import ExportCounts, RunRecords, write_export
from webdancer.trajectories.import_release import parse_released, released_row

ANSWER = "<think>\nSo it was.\n</think>\n<answer>\n1901\n</answer>"
CHAT_FORMATS = (DataFormat.WEBDANCER, DataFormat.SHAREGPT, DataFormat.CHATML, DataFormat.OPENAI)


def export(
    out: Path, format: DataFormat, records: RunRecords | None = None, split: ExportSplit = ExportSplit.ALL
) -> ExportCounts:
    return write_export(
        records or make_records(), out, format=format, split=split, prompt="agent", schemas=TOOL_SCHEMAS
    )


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def tight(turn: str) -> str:
    """A turn without the free white space around its parts."""
    return re.sub(r"\s*(</?(?:think|tool_call|answer)>)\s*", r"\1", turn)


def through_json(row: object) -> object:
    return json.loads(json.dumps(row, ensure_ascii=False).encode())


@settings(deadline=None)  # the first example pays for imports
@given(trajectories())
def test_every_trajectory_comes_back_the_same(trajectory: Trajectory) -> None:
    written = conversation(trajectory)
    for row, parse in (
        (sharegpt_row(written), parse_sharegpt),
        (chatml_row(written), parse_messages),
        (released_row(written, trajectory, None), parse_released),
    ):
        assert read_turns(parse(through_json(row), default_id="file-00001")) == trajectory


@settings(deadline=None)  # the first example pays for imports
@given(trajectories())
def test_without_origin_turns_and_answer_come_back(trajectory: Trajectory) -> None:
    """OpenAI's rows hold the messages alone."""
    row = openai_row(conversation(trajectory))
    assert set(row) == {"messages"}
    back = read_turns(parse_messages(through_json(row), default_id="file-00001"))
    assert back.id == "file-00001"
    contents = [message.content for message in replay(trajectory, TOOL_SCHEMAS).messages]
    ends_with_model = len(contents) % 2 == 1
    expected = contents[2 : None if ends_with_model else -1]
    assert [tight(turn) for turn in rendered_turns(back)] == [tight(turn) for turn in expected]
    assert len(back.steps) == len(trajectory.steps)


@settings(deadline=None)  # the first example pays for imports
@given(trajectories())
def test_roles_alternate_and_the_model_has_the_last_word(trajectory: Trajectory) -> None:
    """LLaMA-Factory's converter takes `human` at odd and `gpt` at even places and an even number of turns (its converter.py);
    ms-swift's `check_messages` wants user and assistant in turn, and no empty assistant's turn (its preprocessor/core.py)."""
    written = conversation(trajectory)
    turns = sharegpt_row(written)["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
    assert [set(turn) for turn in turns] == [{"from", "value"}] * len(turns)
    messages = chatml_row(written)["messages"]
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * (len(messages) // 2)]
    assert [turn["value"] for turn in turns] == [message["content"] for message in messages[1:]]


def test_a_conversation_is_what_the_policy_read() -> None:
    (system, *turns) = conversation(make_trajectory(1)).messages
    assert system.content.startswith("Role: agent")
    assert '"name": "visit"' in system.content
    assert [turn.content for turn in turns] == [
        "When was lighthouse 1 of <b>Velm</b> built?",
        "<think>\nI look. 先搜索。\n</think>\n<tool_call>\n"
        '{"name": "search", "arguments": {"query": ["lighthouse of Velm", "灯塔"]}}\n</tool_call>',
        '<tool_response>\nA search for "lighthouse of Velm" found 1 result:\n\n## Web Results\n1. [Velm](http://velm.example/)\n'
        "</tool_response>",
        '<think>\nI read the page.\n</think>\n<tool_call>\n{"name": "visit", "arguments": {"url": ["http://velm.example/"], '
        '"goal": "year"}}\n</tool_call>',
        "<tool_response>\n\n</tool_response>",
        ANSWER,
    ]


def test_origin_holds_only_what_the_messages_do_not_tell() -> None:
    assert json.loads(conversation(make_trajectory(1)).origin) == {
        "trajectory": {
            "qa_id": "qa-1",
            "model": "teacher",
            "seed": 1,
            "usage": Usage(prompt_tokens=100, completion_tokens=10, llm_calls=3, tool_calls=2).model_dump(),
            "num_tokens": 110,
        },
        "steps": {"0": {"seconds": 0.5}, "1": {"error": "tool_timeout", "seconds": 60.0}, "2": {"seconds": 1.0}},
    }


def test_a_forced_answer_is_told_by_the_demand_before_it() -> None:
    row = openai_row(conversation(make_trajectory(2, status=Status.FORCED_ANSWER)))
    demanded = row["messages"][-2]["content"]
    assert demanded.startswith("<tool_response>\n\n</tool_response>\n\nNo more tool calls are possible.")
    back = read_turns(parse_messages(row, default_id="x-1"))
    assert (back.status, back.answer, back.steps[1].observation) == (Status.FORCED_ANSWER, "1902", "")


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ({"steps": ()}, "trajectory qa-1-a1: got the roles system, expected"),
        (
            {"steps": (Step(thought="a", tool="search", arguments={"query": ["x"]}), Step(thought="b"))},
            "qa-1-a1: .*observ",
        ),
        ({"steps": (Step(thought="a </think> b"),)}, "qa-1-a1: cannot be written as a conversation: a tag"),
    ],
)
def test_a_trajectory_that_is_no_conversation_is_named_and_nothing_is_written(tmp_path, broken, problem) -> None:
    records = make_records()._replace(sft=[make_trajectory(1).model_copy(update=broken)])
    with pytest.raises(StoreError, match=problem):
        export(tmp_path / "out", DataFormat.CHATML, records)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", CHAT_FORMATS)
def test_an_export_reads_back(tmp_path, format) -> None:
    records = make_records()
    counts = export(tmp_path / "out", format, records)
    assert counts.files["sft.jsonl"] == 2
    back = import_file(format, tmp_path / "out/sft.jsonl", tmp_path / "back")
    assert back.model_dump() == {
        "num_trajectories": 2,
        "num_same": 2,
        "num_valid": 1,
        "reasons": {"not_answered": 1, "passed": 1},
    }
    found = list(read_records(tmp_path / "back/trajectories.jsonl", Trajectory))
    if format is DataFormat.OPENAI:
        assert [(t.id, t.question, t.answer, t.status) for t in found] == [
            (f"sft-0000{i}", t.question, t.answer, t.status) for i, t in enumerate(records.sft, 1)
        ]
    else:
        assert found == records.sft
    assert len(list(read_records(tmp_path / "back/verdicts.jsonl", Verdict))) == 2


def test_the_folder_tells_what_it_holds(tmp_path) -> None:
    counts = export(tmp_path, DataFormat.CHATML)
    assert counts.files == {"sft.jsonl": 2, "rl.jsonl": 2, "heldout.jsonl": 1}
    manifest = json.loads((tmp_path / "export.json").read_text())
    assert (manifest["format"], manifest["is_complete"], manifest["system_prompt_name"]) == ("chatml", True, "agent")
    assert manifest["files"] == counts.files
    assert {row["messages"][0]["content"] for name in counts.files for row in rows(tmp_path / name)} == {
        manifest["system_prompt"]
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.json", "heldout.jsonl", "rl.jsonl", "sft.jsonl"]
    assert "先搜索" in (tmp_path / "sft.jsonl").read_text(encoding="utf-8")


def test_llama_factory_finds_the_data(tmp_path) -> None:
    """`dataset_info.json` as LLaMA-Factory's data/README has it: columns messages and system, and five tags with defaults."""
    export(tmp_path, DataFormat.SHAREGPT)
    (entry,) = json.loads((tmp_path / "dataset_info.json").read_text()).values()
    assert (tmp_path / entry["file_name"]).is_file()
    assert entry["formatting"] == "sharegpt"
    for row in rows(tmp_path / entry["file_name"]):
        assert row[entry["columns"]["system"]].startswith("Role: agent")
        tags = entry["tags"]
        spoken = [(turn[tags["role_tag"]], turn[tags["content_tag"]]) for turn in row[entry["columns"]["messages"]]]
        assert {who for who, _ in spoken} == {tags["user_tag"], tags["assistant_tag"]}
        assert all(text.startswith("<think>\n") for who, text in spoken if who == tags["assistant_tag"])


def test_grpo_prompts_end_with_the_question_and_carry_the_solution(tmp_path) -> None:
    """ms-swift's Custom-dataset page: messages up to the user's, other fields go to the reward function."""
    export(tmp_path, DataFormat.CHATML, split=ExportSplit.RL)
    first = rows(tmp_path / "rl.jsonl")[0]
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert first["messages"][1]["content"] == "When was lighthouse 3 of <b>Velm</b> built?"
    assert (first["id"], first["solution"]) == ("qa-3", "1903")


def test_openai_rows_have_the_checked_shape_and_warnings_name_its_limits(tmp_path) -> None:
    """The checks of the OpenAI cookbook's "Data preparation and analysis for chat model fine-tuning", and the guide's minimum."""
    counts = export(tmp_path / "few", DataFormat.OPENAI)
    for row in rows(tmp_path / "few/sft.jsonl"):
        assert list(row) == ["messages"]
        for message in row["messages"]:
            assert set(message) == {"role", "content"}
            assert message["role"] in ("system", "user", "assistant")
            assert isinstance(message["content"], str)
        assert any(message["role"] == "assistant" for message in row["messages"])
    longest, few = counts.warnings
    assert longest.startswith("the longest example, qa-2-a1, has ")
    assert few == "got 2 examples; OpenAI takes no fewer than 10"
    enough = export(tmp_path / "enough", DataFormat.OPENAI, make_records(sft=range(10, 20)))
    assert len(enough.warnings) == 1


def test_a_weight_of_openai_is_read_over(tmp_path) -> None:
    row = openai_row(conversation(make_trajectory(1)))
    row["messages"][2]["weight"] = 0
    assert len(read_turns(parse_messages(row, default_id="x")).steps) == 3


def test_the_release_layout(tmp_path) -> None:
    export(tmp_path, DataFormat.WEBDANCER)
    first = rows(tmp_path / "sft.jsonl")[0]
    released = {"type", "task", "messages", "functions", "tool_calls", "answer", "tag"}
    assert set(first) == released | {"id", "origin"}
    assert (first["type"], first["task"], first["answer"], first["tag"]) == (
        "chatml",
        "agent/multiturn_search",
        [["1901"]],
        "e2hqa",
    )
    assert first["messages"][1]["content"] == "\n\nUser: When was lighthouse 1 of <b>Velm</b> built?"
    assert [function["name_for_model"] for function in first["functions"]] == ["search", "visit"]
    assert rows(tmp_path / "rl.jsonl")[0] == {
        "question": "When was lighthouse 3 of <b>Velm</b> built?",
        "answer": "1903",
        "tag": "crawlqa",
    }


def test_another_format_is_not_overwritten_and_the_same_one_is(tmp_path) -> None:
    export(tmp_path, DataFormat.CHATML)
    before = (tmp_path / "sft.jsonl").read_bytes()
    with pytest.raises(StoreError, match="holds an export in the format 'chatml'; give another folder for 'openai'"):
        export(tmp_path, DataFormat.OPENAI)
    assert (tmp_path / "sft.jsonl").read_bytes() == before
    export(tmp_path, DataFormat.CHATML, make_records(sft=(7,)), ExportSplit.SFT)
    assert [row["id"] for row in rows(tmp_path / "sft.jsonl")] == ["qa-7-a1"]
    assert not (tmp_path / "rl.jsonl").exists()  # of the earlier export
    assert json.loads((tmp_path / "export.json").read_text())["files"] == {"sft.jsonl": 1}


def test_a_folder_of_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(
        StoreError, match=r"is no export of this version: it holds thesis\.txt; give a folder that is new"
    ):
        export(tmp_path, DataFormat.CHATML)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_export_that_fails_in_the_middle_leaves_no_half_file_and_can_be_done_again(tmp_path, monkeypatch) -> None:
    export(tmp_path, DataFormat.CHATML)
    whole = (tmp_path / "sft.jsonl").read_bytes()
    calls = iter(range(10))

    def fail_at_the_second(conversation: object) -> dict:
        if next(calls):
            raise KeyboardInterrupt
        return {"messages": []}

    monkeypatch.setattr("webdancer.trajectories.formats.writing.chatml_row", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path, DataFormat.CHATML)
    assert (tmp_path / "sft.jsonl").read_bytes() == whole
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    assert json.loads((tmp_path / "export.json").read_text())["is_complete"] is False
    monkeypatch.undo()
    export(tmp_path, DataFormat.CHATML, split=ExportSplit.RL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.json", "rl.jsonl"]


@pytest.mark.parametrize(
    ("format", "split", "records", "problem"),
    [
        (DataFormat.OPENAI, ExportSplit.RL, None, "--split: the format 'openai' cannot hold 'rl', only sft"),
        (
            DataFormat.VERL,
            ExportSplit.SFT,
            None,
            "cannot hold 'sft', only rl, heldout; for 'sft' take --format webdancer or",
        ),
        (DataFormat.QA, ExportSplit.ALL, None, "--format: 'qa' is read only; expected one of webdancer, sharegpt"),
        (
            DataFormat.CHATML,
            ExportSplit.SFT,
            make_records(sft=()),
            "nothing to export: the run holds no records for sft",
        ),
        (DataFormat.VERL, ExportSplit.ALL, RunRecords([], [], [], []), "nothing to export: .* for rl or heldout"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path, format, split, records, problem) -> None:
    with pytest.raises((ConfigError, StoreError), match=problem):
        export(tmp_path / "out", format, records, split)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format", "text", "problem"),
    [
        (
            DataFormat.CHATML,
            '\n{"messages": 3}\n',
            "line 2: no list of messages: messages: got '3': Input should be a valid list",
        ),
        (DataFormat.CHATML, "{}", "line 1: no list of messages: messages: got '{}': Field required"),
        (
            DataFormat.OPENAI,
            json.dumps({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": None}]}),
            r"line 1: .* messages\.1\.content: got 'None': Input should be a valid string",
        ),
        (
            DataFormat.CHATML,
            json.dumps({"messages": [{"role": "user", "content": "?"}]}),
            r"got the roles \['user'\], expected system, then user and assistant in turn",
        ),
        (
            DataFormat.SHAREGPT,
            json.dumps([{"conversations": [{"from": "bing", "value": "?"}]}]),
            r"entry 1: no ShareGPT conversation: conversations\.0\.from: got 'bing': Input should be 'system', 'human'",
        ),
        (DataFormat.SHAREGPT, "[1", "neither JSON lines nor one JSON array"),
        (DataFormat.SHAREGPT, "nonsense", "line 1: no ShareGPT conversation: Expecting value"),
    ],
)
def test_bad_input_is_named_by_its_place(tmp_path, format, text, problem) -> None:
    (tmp_path / "file.jsonl").write_text(text)
    with pytest.raises(StoreError, match=problem):
        import_file(format, tmp_path / "file.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sharegpt_array_with_the_system_prompt_among_its_turns(tmp_path) -> None:
    turns = [("system", "S"), ("human", "When?"), ("gpt", ANSWER)]
    text = json.dumps([{"conversations": [{"from": who, "value": said} for who, said in turns]}], indent=1)
    (tmp_path / "mine.json").write_text(text)
    import_file(DataFormat.SHAREGPT, tmp_path / "mine.json", tmp_path)
    (found,) = read_records(tmp_path / "trajectories.jsonl", Trajectory)
    assert (found.id, found.question, found.answer, found.model) == ("mine-00001", "When?", "1901", "unknown")


def test_turns_that_were_changed_do_not_go_with_their_origin(tmp_path) -> None:
    row = chatml_row(conversation(make_trajectory(1)))
    del row["messages"][2:4]
    (tmp_path / "cut.jsonl").write_text(json.dumps(row))
    with pytest.raises(
        StoreError, match=r"line 1: 'origin' tells of step 3, but the conversation has 2 of them; leave"
    ):
        import_file(DataFormat.CHATML, tmp_path / "cut.jsonl", tmp_path / "out")


def test_two_trajectories_of_one_id_are_named(tmp_path) -> None:
    line = json.dumps(chatml_row(conversation(make_trajectory(1))))
    (tmp_path / "twice.jsonl").write_text(f"{line}\n{line}\n")
    with pytest.raises(StoreError, match=r"line 2: got the id 'qa-1-a1' again, which .*line 1 has"):
        import_file(DataFormat.CHATML, tmp_path / "twice.jsonl", tmp_path / "out")


def test_the_brief_prompt_is_named_and_written(tmp_path) -> None:
    counts = write_export(
        make_records(),
        tmp_path,
        format=DataFormat.OPENAI,
        split=ExportSplit.SFT,
        prompt="agent_brief",
        schemas=TOOL_SCHEMAS,
    )
    assert counts.system_prompt == "agent_brief"
    assert "Answer the question with what you read" in rows(tmp_path / "sft.jsonl")[0]["messages"][0]["content"]


@settings(deadline=None)  # the first example pays for imports
@given(trajectories())
def test_the_prompt_of_the_run_changes_the_system_message_alone(trajectory: Trajectory) -> None:
    full, brief = conversation(trajectory), to_conversation(trajectory, TOOL_SCHEMAS, prompt="agent_brief")
    assert full.messages[1:] == brief.messages[1:]
    assert full.origin == brief.origin
