"""Opens the checkpoints of a run as agents. torch is loaded only here, when one is opened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from webdancer.config import Config, PolicySettings
from webdancer.errors import ConfigError

if TYPE_CHECKING:
    from webdancer.train.policy import Policy

CHECKPOINTS = ("base", "sft", "sft_more", "rl")
"""The systems that are a checkpoint: the policy before training, after SFT, after further SFT on its own rollouts, after RL."""


def checkpoint_of(system: str, run: Path, config: Config) -> Path:
    """The folder of a checkpoint of a run.

    Raises:
        ConfigError: the base is no folder and cannot be had.
    """
    if system != "base":
        return run / system
    from webdancer.train.model import resolve_base

    return resolve_base(config.policy.base)


def check_base(config: Config, *, for_engine: bool) -> None:
    """Look at the base model before the stages that cost hours or money.

    Args:
        for_engine: it is also to be sampled from, in RL and evaluation, not only to be fine-tuned.

    Raises:
        ConfigError: it cannot be had, has no ChatML tokenizer, or is of an architecture that transformers does not know or
            the engine does not run.
    """
    from transformers import AutoConfig

    from webdancer.train.model import resolve_base
    from webdancer.train.qwen import check_architecture
    from webdancer.train.tokens import ChatTokens

    base = resolve_base(config.policy.base)
    ChatTokens.load(base)
    try:
        architecture = AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise ConfigError(f"policy.base: {base} has no config.json that transformers can read: {error}") from None
    if for_engine:
        check_architecture(architecture, config.policy.max_context)


@asynccontextmanager
async def open_policy(path: Path, settings: PolicySettings, *, name: str) -> AsyncIterator["Policy"]:
    """A checkpoint with its engine running; its episodes say that their model is `name`.

    Raises:
        ConfigError: the folder holds no checkpoint.
    """
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path}: no checkpoint here (there is no config.json); train one with: webdancer run RUN")
    from transformers.utils import logging as transformers_logging

    from webdancer.train.policy import Policy

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # our own bars are enough
    async with Policy(path, settings) as policy:
        policy.name = name  # where the checkpoint stands is no part of a record
        yield policy
