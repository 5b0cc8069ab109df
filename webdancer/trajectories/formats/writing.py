"""Puts the records of a run into a folder, in the format of another project.

| format | trajectories | questions for RL | held-out questions |
|---|---|---|---|
| webdancer, chatml | `sft.jsonl` | `rl.jsonl` | `heldout.jsonl` |
| sharegpt, openai | `sft.jsonl` | | |
| hf | config `sft` | configs `rl`, `qa`: `train` | configs `rl`, `qa`: `test` |
| verl | | `train.parquet` | `test.parquet` |
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from webdancer.agent.transcript import Transcript, system_prompt
from webdancer.errors import ConfigError, StoreError
from webdancer.llm.protocol import Message
from webdancer.records import QA, Record, Trajectory
from webdancer.trajectories.formats import DataFormat, ExportSplit
from webdancer.trajectories.formats.card import CardSplit, dataset_card
from webdancer.trajectories.formats.chat_rows import (
    JsonRow,
    chatml_row,
    llama_factory_info,
    openai_row,
    prompt_row,
    sharegpt_row,
)
from webdancer.trajectories.formats.conversation import Conversation, to_conversation
from webdancer.trajectories.formats.folder import ExportFolder, ExportManifest
from webdancer.trajectories.formats.tables import (
    check_pyarrow,
    question_table,
    trajectory_table,
    verl_table,
    write_table,
)
from webdancer.trajectories.import_release import released_question, released_row

if TYPE_CHECKING:
    import pyarrow as pa

_SFT_ALONE = (ExportSplit.SFT,)
_QUESTIONS = (ExportSplit.RL, ExportSplit.HELDOUT)
HOLDS: dict[DataFormat, tuple[ExportSplit, ...]] = {
    DataFormat.WEBDANCER: (*_SFT_ALONE, *_QUESTIONS),
    DataFormat.SHAREGPT: _SFT_ALONE,
    DataFormat.CHATML: (*_SFT_ALONE, *_QUESTIONS),
    DataFormat.OPENAI: _SFT_ALONE,
    DataFormat.HF: (*_SFT_ALONE, *_QUESTIONS),
    DataFormat.VERL: _QUESTIONS,
}
"""What each format can hold; those that are not named are read only."""
_OPENAI_MIN_EXAMPLES = 10
_OPENAI_MAX_BYTES = 512_000_000
"""Limits of OpenAI's fine-tuning guide and of its files API."""


class RunRecords(NamedTuple):
    """What of a run can be exported."""

    sft: Sequence[Trajectory]
    """The trajectories that SFT trains on."""
    train: Sequence[QA]
    """All training questions."""
    rl: Sequence[QA]
    heldout: Sequence[QA]


class ExportCounts(Record):
    """What an export wrote."""

    format: DataFormat
    folder: str
    system_prompt: str
    """Its name; its text stands in `export.json`."""
    files: dict[str, int]
    """Records by file."""
    warnings: tuple[str, ...] = ()


def write_export(
    records: RunRecords,
    out: Path,
    *,
    format: DataFormat,
    split: ExportSplit,
    prompt: str,
    schemas: Sequence[dict[str, JsonValue]],
) -> ExportCounts:
    """Write what `split` names of the records.

    Args:
        prompt: the name of the system prompt that the records run under.
        schemas: the tools, for the system prompt.

    Raises:
        ConfigError: the format cannot hold that, or pyarrow is missing.
        StoreError: there is nothing to write, a trajectory is no conversation, or the folder holds something else.
    """
    writer = _Writer(records, _chosen(records, format, split), prompt, schemas)
    if format in (DataFormat.HF, DataFormat.VERL):
        check_pyarrow()
    conversations = writer.conversations()  # whatever is wrong with one is found before a file is touched
    text = system_prompt(prompt, schemas)
    folder = ExportFolder(out, ExportManifest(format=format, system_prompt_name=prompt, system_prompt=text))
    match format:
        case DataFormat.HF:
            writer.write_hf(folder, conversations)
        case DataFormat.VERL:
            writer.write_verl(folder)
        case _:
            writer.write_json_lines(folder, conversations)
    files = {name: number for name, number in folder.finish().files.items() if number is not None}
    warnings = _openai_warnings(out / "sft.jsonl", conversations) if format is DataFormat.OPENAI else ()
    return ExportCounts(format=format, folder=str(out), system_prompt=prompt, files=files, warnings=warnings)


def _chosen(records: RunRecords, format: DataFormat, split: ExportSplit) -> set[ExportSplit]:
    """The splits that are there and that the format can hold."""
    can_hold = HOLDS.get(format, ())
    if not can_hold:
        raise ConfigError(f"--format: {format.value!r} is read only; expected one of {', '.join(HOLDS)}")
    if split is not ExportSplit.ALL and split not in can_hold:
        able = [name.value for name, splits in HOLDS.items() if split in splits]
        raise ConfigError(
            f"--split: the format {format.value!r} cannot hold {split.value!r}, only {', '.join(can_hold)}; for "
            f"{split.value!r} take --format {' or '.join(able)}"
        )
    wanted = can_hold if split is ExportSplit.ALL else (split,)
    sizes = {ExportSplit.SFT: records.sft, ExportSplit.RL: records.rl, ExportSplit.HELDOUT: records.heldout}
    chosen = {name for name in wanted if sizes[name]}
    if not chosen:
        raise StoreError(
            f"nothing to export: the run holds no records for {' or '.join(wanted)}; run its stages crawl, synth and sample first"
        )
    return chosen


class _Writer:
    """Writes the chosen splits of a run's records."""

    def __init__(
        self, records: RunRecords, chosen: set[ExportSplit], prompt: str, schemas: Sequence[dict[str, JsonValue]]
    ) -> None:
        self._prompt, self._schemas = prompt, schemas
        self._sft = records.sft if ExportSplit.SFT in chosen else ()
        self._rl = records.rl if ExportSplit.RL in chosen else ()
        self._heldout = records.heldout if ExportSplit.HELDOUT in chosen else ()
        self._train = records.train if ExportSplit.RL in chosen else ()
        self._by_id = {qa.id: qa for qa in (*records.train, *records.rl)}

    def conversations(self) -> list[Conversation]:
        """The trajectories as conversations."""
        return [to_conversation(trajectory, self._schemas, prompt=self._prompt) for trajectory in self._sft]

    def write_json_lines(self, folder: ExportFolder, conversations: Sequence[Conversation]) -> None:
        """The formats that are JSON lines."""
        format = folder.manifest.format
        if conversations:
            pairs = zip(conversations, self._sft, strict=True)
            folder.write_rows("sft.jsonl", (self._chat_row(format, *pair) for pair in pairs))
        question_row: Callable[[QA], JsonRow] = (
            released_question if format is DataFormat.WEBDANCER else lambda qa: prompt_row(qa, self._question(qa))
        )
        for name, qas in (("rl.jsonl", self._rl), ("heldout.jsonl", self._heldout)):
            if qas:
                folder.write_rows(name, map(question_row, qas))
        if format is DataFormat.SHAREGPT:
            folder.write_json("dataset_info.json", llama_factory_info("sft.jsonl"))

    def _chat_row(self, format: DataFormat, conversation: Conversation, trajectory: Trajectory) -> JsonRow:
        match format:
            case DataFormat.SHAREGPT:
                return sharegpt_row(conversation)
            case DataFormat.OPENAI:
                return openai_row(conversation)
            case DataFormat.WEBDANCER:
                return released_row(conversation, trajectory, self._by_id.get(trajectory.qa_id))
            case _:
                return chatml_row(conversation)

    def write_hf(self, folder: ExportFolder, conversations: Sequence[Conversation]) -> None:
        """A folder for `datasets.load_dataset`."""
        splits = []
        for config, split, table in self._hf_tables(conversations):
            name = f"{config}/{split}.parquet"
            with folder.writing(name, table.num_rows) as path:
                write_table(table, path)
            size = (folder.path / name).stat().st_size
            splits.append(CardSplit(config, split, name, table.num_rows, table.nbytes, size, table.schema))
        manifest = folder.manifest
        folder.write_text(
            "README.md", dataset_card(splits, prompt_name=manifest.system_prompt_name, prompt=manifest.system_prompt)
        )

    def _hf_tables(self, conversations: Sequence[Conversation]) -> "Iterator[tuple[str, str, pa.Table]]":
        """(config, split, table) of all that is not empty; the splits of a config behind each other."""
        if conversations:
            yield "sft", "train", trajectory_table(conversations, self._sft, self._by_id)
        for split, qas in (("train", self._rl), ("test", self._heldout)):
            if qas:
                yield "rl", split, question_table(qas, [self._question(qa) for qa in qas])
        for split, qas in (("train", self._train), ("test", self._heldout)):
            if qas:
                yield "qa", split, question_table(qas)

    def write_verl(self, folder: ExportFolder) -> None:
        """verl's two files."""
        for split, qas in (("train", self._rl), ("test", self._heldout)):
            if qas:
                with folder.writing(f"{split}.parquet", len(qas)) as path:
                    write_table(verl_table(qas, [self._question(qa) for qa in qas], split=split), path)

    def _question(self, qa: QA) -> tuple[Message, ...]:
        """What the policy reads before its first turn."""
        return Transcript(qa.question, self._schemas, prompt=self._prompt).messages


def _openai_warnings(file: Path, conversations: Sequence[Conversation]) -> tuple[str, ...]:
    """What OpenAI's fine-tuning may refuse or cut."""
    longest = max(conversations, key=lambda conversation: sum(len(m.content) for m in conversation.messages))
    num_chars = sum(len(message.content) for message in longest.messages)
    found = [
        f"the longest example, {longest.id}, has {num_chars:,} characters: an example beyond the model's limit of tokens "
        "is cut or refused"
    ]
    if len(conversations) < _OPENAI_MIN_EXAMPLES:
        found.append(f"got {len(conversations)} examples; OpenAI takes no fewer than {_OPENAI_MIN_EXAMPLES}")
    if file.stat().st_size > _OPENAI_MAX_BYTES:
        found.append(
            f"{file} has {file.stat().st_size:,} bytes; OpenAI takes no file of more than {_OPENAI_MAX_BYTES:,}"
        )
    return tuple(found)
