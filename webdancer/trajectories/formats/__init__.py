"""Trajectories and questions in the formats of other projects, written and read.

`conversation` stands in the middle: a trajectory as the chat messages that SFT trains on, and back. `chat_rows` lays these out
as JSON lines, `tables` as parquet; `writing` and `reading` put files together and take them apart.
"""

from enum import StrEnum


class DataFormat(StrEnum):
    """A layout of files; each reads what it writes."""

    WEBDANCER = "webdancer"
    """The authors' release."""
    SHAREGPT = "sharegpt"
    """LLaMA-Factory."""
    CHATML = "chatml"
    """ms-swift, and whatever reads lists of `messages`."""
    OPENAI = "openai"
    """OpenAI's fine-tuning API."""
    HF = "hf"
    """A folder for Hugging Face `datasets`."""
    VERL = "verl"
    """Prompts for verl's RL."""
    QA = "qa"
    """Lines with a question and an answer; read only."""


class ExportSplit(StrEnum):
    """What of a run is written."""

    SFT = "sft"
    """The trajectories that SFT trains on."""
    RL = "rl"
    """The questions that RL trains on."""
    HELDOUT = "heldout"
    """The held-out questions."""
    ALL = "all"
    """Of these, all that the run has and the format can hold."""
