"""Reads a file or folder in the format of another project into our records.

Conversations become `trajectories.jsonl` and `verdicts.jsonl` (validity), questions `qa.jsonl`. A folder that `--format hf` wrote
becomes all that it holds, each under the name that it has in a run.
"""

from dataclasses import dataclass
from pathlib import Path

from webdancer.errors import StoreError
from webdancer.records import QA, Record
from webdancer.trajectories.formats import DataFormat
from webdancer.trajectories.formats.chat_rows import parse_messages, parse_sharegpt
from webdancer.trajectories.formats.conversation import ForeignTurns
from webdancer.trajectories.formats.imported import (
    ImportCounts,
    Placed,
    QuestionCounts,
    parse_rows,
    read_json_rows,
    write_questions,
    write_trajectories,
)
from webdancer.trajectories.formats.questions import parse_question, parse_verl
from webdancer.trajectories.formats.tables import read_table
from webdancer.trajectories.import_release import import_webdancer

_HF_FILES = {
    "sft/train.parquet": "trajectories.jsonl",
    "qa/train.parquet": "qa.jsonl",
    "qa/test.parquet": "heldout_qa.jsonl",
    "rl/train.parquet": "rl_qa.jsonl",
}
"""What of an exported folder becomes which file. `rl/test` says nothing that `qa/test` does not."""


class FolderCounts(Record):
    """What an import of a folder brought, by file."""

    files: dict[str, ImportCounts | QuestionCounts]


def import_file(format: DataFormat, file: Path, out: Path) -> Record:
    """Read `file` and write its records into the folder `out`; gives the counts.

    Raises:
        ConfigError: pyarrow is missing, for parquet.
        StoreError: the file cannot be read, or an entry of it is wrong; nothing is written then.
    """
    match format:
        case DataFormat.WEBDANCER:
            return import_webdancer(file, out)
        case DataFormat.SHAREGPT:
            return write_trajectories(read_json_rows(file, parse_sharegpt, what="ShareGPT conversation"), out)
        case DataFormat.CHATML | DataFormat.OPENAI:
            return write_trajectories(read_json_rows(file, parse_messages, what="list of messages"), out)
        case DataFormat.QA:
            rows = read_json_rows(file, parse_question, what="question with its answer")
            return write_questions(rows, out / "qa.jsonl")
        case DataFormat.VERL:
            verl = parse_rows(read_table(file), parse_verl, stem=file.stem, what="prompt for verl")
            return write_questions(verl, out / "qa.jsonl")
        case DataFormat.HF:
            return _import_folder(file, out) if file.is_dir() else _read_table(file).write(out, "qa.jsonl")


def _import_folder(folder: Path, out: Path) -> FolderCounts:
    """All files of a folder that `--format hf` wrote."""
    there = {folder / source: name for source, name in _HF_FILES.items() if (folder / source).is_file()}
    if not there:
        raise StoreError(
            f"{folder}: got none of {', '.join(_HF_FILES)}, expected the folder of an export; give a parquet file by itself"
        )
    readings = {name: _read_table(file) for file, name in there.items()}  # all, before anything is written
    return FolderCounts(files={name: reading.write(out, name) for name, reading in readings.items()})


@dataclass(frozen=True)
class _Reading:
    """What a parquet file holds: one of the two."""

    conversations: list[Placed[ForeignTurns]] | None = None
    questions: list[Placed[QA]] | None = None

    def write(self, out: Path, name: str) -> ImportCounts | QuestionCounts:
        """Write it; questions under `name`."""
        if self.conversations is not None:
            return write_trajectories(self.conversations, out)
        return write_questions(self.questions or [], out / name)


def _read_table(file: Path) -> _Reading:
    """A parquet file: conversations where it has `messages`, else questions."""
    entries = list(read_table(file))
    if entries and isinstance(entries[0].value, dict) and "messages" in entries[0].value:
        return _Reading(conversations=parse_rows(entries, parse_messages, stem=file.stem, what="list of messages"))
    return _Reading(questions=parse_rows(entries, parse_question, stem=file.stem, what="question with its answer"))
