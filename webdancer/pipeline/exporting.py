"""Exports what a run has made, in the formats of other projects."""

from pathlib import Path

from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.errors import ConfigError
from webdancer.pipeline.run_folder import read_manifest
from webdancer.records import QA, Trajectory
from webdancer.store import read_records
from webdancer.trajectories.formats import DataFormat, ExportSplit
from webdancer.trajectories.formats.writing import ExportCounts, RunRecords, write_export


def export_run(run: Path, *, format: DataFormat, out: Path, split: ExportSplit) -> ExportCounts:
    """Write the records of a run into the folder `out`, under the system prompt and the tools that its SFT trains on.

    Raises:
        ConfigError: there is no run, or the format cannot hold that split.
        StoreError: there is nothing to write, or `out` holds something else.
    """
    manifest = read_manifest(run)
    if manifest is None:
        raise ConfigError(f"{run} holds no run; start one with: webdancer run {run}")
    records = RunRecords(
        sft=list(read_records(run / "sft.jsonl", Trajectory)),
        train=list(read_records(run / "qa.jsonl", QA)),
        rl=list(read_records(run / "rl_qa.jsonl", QA)),
        heldout=list(read_records(run / "heldout_qa.jsonl", QA)),
    )
    return write_export(
        records, out, format=format, split=split, prompt=manifest.config.agent.prompt, schemas=TOOL_SCHEMAS
    )
