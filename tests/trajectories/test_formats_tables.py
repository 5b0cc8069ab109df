"""The formats that are parquet: read back with pyarrow, with `datasets` as a user would, and by our own import."""

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_records import conversation, make_records, make_trajectory, trajectories
from hypothesis import given, settings

from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.errors import ConfigError, StoreError
from webdancer.llm.protocol import Message
from webdancer.records import QA, Trajectory
from webdancer.store import read_records
from webdancer.train.tokens import ChatTokens
from webdancer.trajectories.formats import DataFormat, ExportSplit
from webdancer.trajectories.formats.chat_rows import parse_messages
from webdancer.trajectories.formats.conversation import read_turns
from webdancer.trajectories.formats.reading import import_file
from webdancer.trajectories.formats.tables import question_table, trajectory_table
from webdancer.trajectories.formats.writing import ExportCounts, RunRecords, write_export

BASE = Path(str(resources.files("webdancer.train"))) / "base"
AS_A_USER = """
import json, sys
import datasets
found = {}
for config in (None, *sys.argv[2:]):
    loaded = datasets.load_dataset(sys.argv[1]) if config is None else datasets.load_dataset(sys.argv[1], config)
    for split, data in loaded.items():
        arrow = datasets.Features.from_arrow_schema(data.data.schema)
        found[f"{config} {split}"] = {
            "rows": list(data), "num": data.info.splits[split].num_examples, "same": arrow == data.features,
        }
print(json.dumps(found))
"""


def export(
    out: Path, format: DataFormat, records: RunRecords | None = None, split: ExportSplit = ExportSplit.ALL
) -> ExportCounts:
    return write_export(
        records or make_records(), out, format=format, split=split, prompt="agent", schemas=TOOL_SCHEMAS
    )


def load_as_a_user(folder: Path, home: Path, *configs: str) -> dict:
    """`datasets.load_dataset(folder, config)` in a process of its own that may not reach the Hub."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", AS_A_USER, str(folder), *configs],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_datasets_loads_every_config_offline(tmp_path) -> None:
    records = make_records()
    counts = export(tmp_path / "out", DataFormat.HF, records)
    assert counts.files == {
        "sft/train.parquet": 2,
        "rl/train.parquet": 2,
        "rl/test.parquet": 1,
        "qa/train.parquet": 4,
        "qa/test.parquet": 1,
    }
    found = load_as_a_user(tmp_path / "out", tmp_path / "home", "sft", "rl", "qa")
    assert {name: (len(part["rows"]), part["num"]) for name, part in found.items()} == {
        "None train": (2, 2),  # the default config
        "sft train": (2, 2),
        "rl train": (2, 2),
        "rl test": (1, 1),
        "qa train": (4, 4),
        "qa test": (1, 1),
    }
    assert all(part["same"] for part in found.values())  # the card's features are those of the files
    first = found["sft train"]["rows"][0]
    assert (first["reference"], first["kind"], first["num_tool_calls"]) == ("1901", "easy_to_hard", 2)
    assert [(m["role"], m["content"]) for m in first["messages"]] == [
        (m.role, m.content) for m in conversation(records.sft[0]).messages
    ]
    assert [QA.model_validate(row) for row in found["qa train"]["rows"]] == records.train
    prompt = found["rl train"]["rows"][0]["prompt"]
    assert [m["role"] for m in prompt] == ["system", "user"]
    assert prompt[1]["content"] == "When was lighthouse 3 of <b>Velm</b> built?"


def test_one_split_alone_is_a_whole_folder(tmp_path) -> None:
    counts = export(tmp_path / "out", DataFormat.HF, split=ExportSplit.HELDOUT)
    assert list(counts.files) == ["rl/test.parquet", "qa/test.parquet"]
    found = load_as_a_user(tmp_path / "out", tmp_path / "home", "qa")
    assert {name: len(part["rows"]) for name, part in found.items()} == {"None test": 1, "qa test": 1}


def test_the_card_says_what_is_there(tmp_path) -> None:
    export(tmp_path, DataFormat.HF, make_records(sft=range(1, 1200)))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert '- "1K<n<10K"' in card
    assert "| `sft` | `train` | 1,199 |" in card
    assert "Role: agent" in card
    size = sum((tmp_path / name).stat().st_size for name in ("qa/train.parquet", "qa/test.parquet"))
    assert f"  download_size: {size}\n" in card


def test_a_folder_for_datasets_reads_back(tmp_path) -> None:
    records = make_records()
    export(tmp_path / "out", DataFormat.HF, records)
    counts = import_file(DataFormat.HF, tmp_path / "out", tmp_path / "back")
    assert {name: next(iter(part.values())) for name, part in counts.model_dump()["files"].items()} == {
        "trajectories.jsonl": 2,
        "qa.jsonl": 4,
        "heldout_qa.jsonl": 1,
        "rl_qa.jsonl": 2,
    }
    assert list(read_records(tmp_path / "back/trajectories.jsonl", Trajectory)) == records.sft
    assert list(read_records(tmp_path / "back/qa.jsonl", QA)) == records.train
    assert list(read_records(tmp_path / "back/rl_qa.jsonl", QA)) == records.rl
    assert list(read_records(tmp_path / "back/heldout_qa.jsonl", QA)) == records.heldout


@settings(deadline=None)  # the first example pays for imports
@given(trajectories())
def test_every_trajectory_comes_back_the_same_through_arrow(trajectory: Trajectory) -> None:
    (row,) = trajectory_table([conversation(trajectory)], [trajectory], {}).to_pylist()
    assert read_turns(parse_messages(row, default_id="x")) == trajectory


def test_questions_have_a_column_for_each_field() -> None:
    assert set(question_table([]).schema.names) == set(QA.model_fields)


def test_verl_reads_its_columns(tmp_path) -> None:
    """The five fields of verl's "Prepare data for post-training"; `RLHFDataset` loads the file by `datasets` and puts each prompt
    through the tokenizer's template."""
    records = make_records()
    counts = export(tmp_path, DataFormat.VERL, records)
    assert counts.files == {"train.parquet": 2, "test.parquet": 1}
    table = pq.read_table(tmp_path / "train.parquet")
    assert table.schema.names == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    row = table.to_pylist()[1]
    assert (row["data_source"], row["ability"]) == ("webdancer", "web_search")
    assert row["reward_model"] == {"style": "rule", "ground_truth": "1904"}
    assert {key: row["extra_info"][key] for key in ("split", "index", "id", "qa_split", "kind")} == {
        "split": "train",
        "index": 1,
        "id": "qa-4",
        "qa_split": "rl",
        "kind": "multi_hop",
    }
    (held,) = pq.read_table(tmp_path / "test.parquet").to_pylist()
    assert (held["extra_info"]["split"], held["extra_info"]["index"]) == ("test", 0)
    tokens = ChatTokens.load(BASE)
    rendered = tokens.tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    assert rendered == tokens.decode(tokens.prompt([Message(m["role"], m["content"]) for m in row["prompt"]]))


def test_prompts_for_verl_read_back(tmp_path) -> None:
    records = make_records()
    export(tmp_path, DataFormat.VERL, records)
    import_file(DataFormat.VERL, tmp_path / "train.parquet", tmp_path / "back")
    assert list(read_records(tmp_path / "back/qa.jsonl", QA)) == records.rl


def test_prompts_of_others_for_verl_are_read(tmp_path) -> None:
    """As verl's own script writes GSM8K: no system prompt, and an answer in `extra_info` that is no reference."""
    row = {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": "How many?"}],
        "reward_model": {"style": "rule", "ground_truth": "18"},
        "extra_info": {"split": "train", "index": 0, "answer": "9 + 9 #### 18"},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "gsm8k.parquet")
    import_file(DataFormat.VERL, tmp_path / "gsm8k.parquet", tmp_path / "back")
    (qa,) = read_records(tmp_path / "back/qa.jsonl", QA)
    assert (qa.question, qa.answer, qa.split) == ("How many?", "18", None)


def test_a_wrong_row_or_file_is_named(tmp_path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(StoreError, match=r"cannot read .*text\.parquet"):
        import_file(DataFormat.HF, tmp_path / "text.parquet", tmp_path / "out")
    with pytest.raises(StoreError, match=r"cannot read .*none\.parquet"):
        import_file(DataFormat.VERL, tmp_path / "none.parquet", tmp_path / "out")
    pq.write_table(pa.table({"question": ["Who?", "When?"], "answer": ["Orsk", None]}), tmp_path / "mine.parquet")
    with pytest.raises(StoreError, match=r"mine\.parquet, row 2: no question with its answer: answer.*: got 'None'"):
        import_file(DataFormat.HF, tmp_path / "mine.parquet", tmp_path / "out")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"got none of sft/train\.parquet, .* expected the folder of an export"):
        import_file(DataFormat.HF, tmp_path / "folder", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", [DataFormat.HF, DataFormat.VERL])
def test_without_pyarrow_it_is_said_what_to_install(tmp_path, format, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"parquet needs pyarrow, .* pip install 'webdancer\[export\]'"):
        export(tmp_path / "out", format)
    with pytest.raises(ConfigError, match="parquet needs pyarrow"):
        import_file(format, tmp_path / "x.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_other_formats_do_not_load_pyarrow() -> None:
    code = (
        "import sys\nimport webdancer.pipeline.exporting, webdancer.trajectories.formats.reading\n"
        "print([name for name in ('pyarrow', 'datasets', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_trajectory_without_its_question_has_no_reference(tmp_path) -> None:
    export(tmp_path, DataFormat.HF, make_records()._replace(sft=[make_trajectory(8)]), ExportSplit.SFT)
    (row,) = pq.read_table(tmp_path / "sft/train.parquet").to_pylist()
    assert (row["reference"], row["kind"], row["answer"]) == (None, None, "1908")
