"""The dataset card: a README whose YAML head tells `datasets` which parquet files are which config and split.

The keys are those of the Hub's "Manual configuration" page (`configs`) and of what `datasets` itself writes (`dataset_info`:
features, sizes in bytes in memory and on disk, number of records).
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_SIZE_NAMES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "n>1M")
_DESCRIPTIONS = {
    "sft": "trajectories that passed the whole funnel, for supervised fine-tuning. `messages` is what the policy read and wrote "
    "(put the loss on `assistant` alone), `answer` its answer, `reference` the right one, `origin` what the messages do not tell "
    "(JSON; `webdancer import --format hf` reads it).",
    "rl": "questions for reinforcement learning, with the `prompt` that the policy is given. `test` are held-out ones.",
    "qa": "all questions with their reference answers and the pages that prove them. `test` are held-out ones.",
}


class CardSplit(NamedTuple):
    """One parquet file of a config."""

    config: str
    split: str
    file: str
    num_rows: int
    memory_bytes: int
    file_bytes: int
    schema: "pa.Schema"


def dataset_card(splits: Sequence[CardSplit], *, prompt_name: str, prompt: str) -> str:
    """The README of an exported folder. Splits of one config stand together and have one schema."""
    configs = list(dict.fromkeys(split.config for split in splits))
    total = sum(split.num_rows for split in splits)
    head = [
        "---",
        'pretty_name: "Trajectories and questions of a web agent"',
        "task_categories:",
        "- question-answering",
        "- text-generation",
        "tags:",
        "- agent",
        "- tool-use",
        "- webdancer",
        "size_categories:",
        f'- "{_SIZE_NAMES[sum(total >= size for size in _SIZES)]}"',
        "configs:",
    ]
    for config in configs:
        head += [f"- config_name: {config}", *(["  default: true"] if config == configs[0] else []), "  data_files:"]
        for split in splits:
            if split.config == config:
                head += [f"  - split: {split.split}", f"    path: {json.dumps(split.file)}"]
    head.append("dataset_info:")
    for config in configs:
        head += _info(config, [split for split in splits if split.config == config])
    return "\n".join([*head, "---", "", _text(splits, prompt_name, prompt)])


def _info(config: str, splits: Sequence[CardSplit]) -> list[str]:
    """The `dataset_info` of one config."""
    lines = [f"- config_name: {config}", "  features:"]
    for field in splits[0].schema:
        lines += [f"  - name: {field.name}", *_type(field.type, "    ")]
    lines.append("  splits:")
    for split in splits:
        lines += [
            f"  - name: {split.split}",
            f"    num_bytes: {split.memory_bytes}",
            f"    num_examples: {split.num_rows}",
        ]
    return [
        *lines,
        f"  download_size: {sum(split.file_bytes for split in splits)}",
        f"  dataset_size: {sum(split.memory_bytes for split in splits)}",
    ]


def _type(kind: "pa.DataType", indent: str) -> list[str]:
    """An Arrow type as `datasets` spells it in YAML."""
    import pyarrow as pa

    if not pa.types.is_list(kind):
        return [f"{indent}dtype: {kind}"]
    if not pa.types.is_struct(kind.value_type):
        return [f"{indent}list: {kind.value_type}"]
    lines = [f"{indent}list:"]
    for field in kind.value_type:
        lines += [f"{indent}- name: {field.name}", *_type(field.type, indent + "  ")]
    return lines


def _text(splits: Sequence[CardSplit], prompt_name: str, prompt: str) -> str:
    rows = "\n".join(f"| `{split.config}` | `{split.split}` | {split.num_rows:,} |" for split in splits)
    configs = dict.fromkeys(split.config for split in splits)
    described = "\n".join(f"- `{config}`: {_DESCRIPTIONS[config]}" for config in configs)
    return f"""# Trajectories and questions of a web agent

Written by `webdancer export --format hf` from a run of webdancer (an implementation of WebDancer, arXiv 2505.22648).

| config | split | records |
|---|---|---|
{rows}

{described}

Load one with `datasets.load_dataset(FOLDER, CONFIG)`. Observations quote web pages, whose rights stay with their owners: look at
what you have before you publish it, and add a licence.

The system prompt is `{prompt_name}`:

~~~~text
{prompt}
~~~~
"""
