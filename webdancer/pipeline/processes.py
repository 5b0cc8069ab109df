"""Which of several processes this is, as `accelerate launch` and `torchrun` tell it, without loading torch."""

import os


def num_processes() -> int:
    """Processes that run this command together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the one that speaks and writes what they have in common."""
    return process_number() == 0


def process_number() -> int:
    """Which of the processes this is, from 0."""
    return int(os.environ.get("RANK", "0"))
