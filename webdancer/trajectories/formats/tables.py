"""Trajectories and questions as Arrow tables for parquet: columns for `datasets`, and verl's.

verl's columns (its page "Prepare data for post-training"; `RLHFDataset` reads them): `data_source`, by which it chooses a reward
function; `prompt`, chat messages that its tokenizer's template renders; `ability`; `reward_model` with `style` and
`ground_truth`; `extra_info`. The style is `rule`: where it is `model`, verl skips validation. Since no reward function of
verl's knows the source `webdancer`, name one in `custom_reward_function`.

pyarrow is an extra (`pip install 'webdancer[export]'`) and loaded only here, when a table is made or read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from webdancer.errors import ConfigError, StoreError
from webdancer.llm.protocol import Message
from webdancer.records import QA, Trajectory
from webdancer.trajectories.formats.chat_rows import message_rows
from webdancer.trajectories.formats.conversation import Conversation
from webdancer.trajectories.formats.imported import Entry

if TYPE_CHECKING:
    import pyarrow as pa

DATA_SOURCE = "webdancer"
_BATCH_ROWS = 256
"""Rows that are held as Python objects at once when a file is read."""


def check_pyarrow() -> None:
    """Make sure that parquet can be written.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ConfigError(
            "parquet needs pyarrow, which is not installed; install it with: pip install 'webdancer[export]'"
        ) from None


def trajectory_table(
    conversations: Sequence[Conversation], trajectories: Sequence[Trajectory], qas: dict[str, QA]
) -> "pa.Table":
    """Trajectories as `datasets` and its users read them; `reference` is null where the question is not known."""
    import pyarrow as pa

    text = pa.string()
    schema = pa.schema(
        [
            ("id", text),
            ("qa_id", text),
            ("question", text),
            ("answer", text),
            ("reference", text),
            ("kind", text),
            ("model", text),
            ("mode", text),
            ("status", text),
            ("num_tool_calls", pa.int64()),
            ("messages", _messages_type()),
            ("origin", text),
        ]
    )
    rows = [_trajectory_row(*pair, qas) for pair in zip(conversations, trajectories, strict=True)]
    return pa.Table.from_pylist(rows, schema=schema)


_TOLD = {"id", "qa_id", "question", "answer", "model", "mode", "status"}
"""Fields of a trajectory that are columns as they are."""


def _trajectory_row(conversation: Conversation, trajectory: Trajectory, qas: dict[str, QA]) -> dict[str, JsonValue]:
    row: dict[str, JsonValue] = trajectory.model_dump(mode="json", include=_TOLD)
    qa = qas.get(trajectory.qa_id)
    row["reference"] = None if qa is None else qa.answer
    row["kind"] = None if qa is None else qa.kind.value
    row["num_tool_calls"] = sum(step.tool is not None for step in trajectory.steps)
    row["messages"] = message_rows(conversation.messages)
    row["origin"] = conversation.origin
    return row


def question_table(qas: Sequence[QA], prompts: Sequence[Sequence[Message]] | None = None) -> "pa.Table":
    """Questions as `datasets` and its users read them, with the `prompt` that a policy is given, if wanted."""
    import pyarrow as pa

    fields = _question_fields()
    rows = [qa.model_dump(mode="json") for qa in qas]
    if prompts is not None:
        fields.append(("prompt", _messages_type()))
        for row, prompt in zip(rows, prompts, strict=True):
            row["prompt"] = message_rows(prompt)
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def verl_table(qas: Sequence[QA], prompts: Sequence[Sequence[Message]], *, split: str) -> "pa.Table":
    """Questions as verl reads them. `split` is verl's: train or test."""
    import pyarrow as pa

    text = pa.string()
    fields = [("qa_split" if name == "split" else name, kind) for name, kind in _question_fields()]
    schema = pa.schema(
        [
            ("data_source", text),
            ("prompt", _messages_type()),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct([("split", text), ("index", pa.int64()), *fields])),
        ]
    )
    rows: list[dict[str, JsonValue]] = []
    for index, (qa, prompt) in enumerate(zip(qas, prompts, strict=True)):
        known: dict[str, JsonValue] = qa.model_dump(mode="json")
        rows.append(
            {
                "data_source": DATA_SOURCE,
                "prompt": message_rows(prompt),
                "ability": "web_search",
                "reward_model": {"style": "rule", "ground_truth": qa.answer},
                "extra_info": {**known, "qa_split": known["split"], "split": split, "index": index},
            }
        )
    return pa.Table.from_pylist(rows, schema=schema)


def _question_fields() -> "list[tuple[str, pa.DataType]]":
    """The fields of a QA record."""
    import pyarrow as pa

    return [
        ("id", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("kind", pa.string()),
        ("evidence_urls", pa.list_(pa.string())),
        ("parent_id", pa.string()),
        ("num_rewrites", pa.int64()),
        ("split", pa.string()),
    ]


def _messages_type() -> "pa.DataType":
    import pyarrow as pa

    return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def write_table(table: "pa.Table", path: Path) -> None:
    """Write a parquet file."""
    import pyarrow.parquet as pq

    pq.write_table(table, path)


def read_table(file: Path) -> Iterator[Entry]:
    """The rows of a parquet file.

    Raises:
        ConfigError: pyarrow is not installed.
        StoreError: the file cannot be read.
    """
    check_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        for batch in pq.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS):
            rows: list[JsonValue] = batch.to_pylist()
            for row in rows:
                number += 1
                yield Entry(f"{file}, row {number}", number, row)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot read {file}: {error}") from None
