"""What SFT trains on and in which order: length limit, validation set, the plan of all optimizer steps (paper, section 3.3).

All of it follows from the sequences and the seed alone.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from webdancer.errors import TrainError
from webdancer.synth.seeds import derive_rng, derive_seed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to train on. `token_ids` and `mask` have one length."""

    id: str
    group: str
    """Its question: all examples of a group are trained on, or all are held out for validation."""
    token_ids: Sequence[int]
    mask: Sequence[bool]
    """True where the policy wrote the token."""


class SplitExamples(NamedTuple):
    """The examples by use."""

    train: list[Example]
    validation: list[Example]
    num_too_long: int


def split_examples(examples: Sequence[Example], *, max_context: int, share: float, seed: int) -> SplitExamples:
    """Drop what is too long and hold out a share of the questions, with all their examples.

    Which questions follows from the seed and their names. With a share above 0 at least one question is held out where
    there are two.

    Raises:
        TrainError: nothing is left, or an example has no token of the policy.
    """
    fitting = [example for example in examples if len(example.token_ids) <= max_context]
    num_too_long = len(examples) - len(fitting)
    if num_too_long:
        logger.warning(
            "%d of %d trajectories are longer than %d tokens and left out", num_too_long, len(examples), max_context
        )
    if not fitting:
        raise TrainError(
            f"nothing to train on: got {len(examples)} trajectories, {num_too_long} of them longer than "
            f"policy.max_context = {max_context} tokens; sample more trajectories, or raise policy.max_context"
        )
    if silent := [example.id for example in fitting if not any(example.mask)]:
        raise TrainError(
            f"{len(silent)} trajectories hold no token that the policy wrote, so there is no loss: {', '.join(silent[:5])}"
        )
    groups = sorted({example.group for example in fitting}, key=lambda group: derive_seed("validation", seed, group))
    num_held_out = min(len(groups) - 1, max(1, round(share * len(groups)))) if share else 0
    held_out = set(groups[:num_held_out])
    return SplitExamples(
        [example for example in fitting if example.group not in held_out],
        [example for example in fitting if example.group in held_out],
        num_too_long,
    )


class Plan(NamedTuple):
    """All optimizer steps of a training."""

    steps: list[list[int]]
    """Indices of the sequences of each step."""
    steps_per_epoch: int


def plan_steps(lengths: Sequence[int], *, batch_tokens: int, num_epochs: float, seed: int) -> Plan:
    """Shuffle each epoch anew and cut it into steps of about equally many tokens, `batch_tokens` at most on average.

    Sequences are never cut. A fraction of an epoch is that share of its steps; at least one step is planned.
    """
    num_cuts = math.ceil(sum(lengths) / batch_tokens)
    tokens_per_step = sum(lengths) / num_cuts
    epochs: list[list[list[int]]] = []
    for epoch in range(math.ceil(num_epochs)):
        order = list(range(len(lengths)))
        derive_rng("order", seed, epoch).shuffle(order)
        steps: list[list[int]] = [[] for _ in range(num_cuts)]
        position = 0.0
        for index in order:  # a sequence belongs to the step that its middle falls into
            steps[min(num_cuts - 1, int((position + lengths[index] / 2) / tokens_per_step))].append(index)
            position += lengths[index]
        epochs.append([step for step in steps if step])
    last_share = num_epochs - (len(epochs) - 1)
    epochs[-1] = epochs[-1][: max(1, round(last_share * len(epochs[-1])))]
    return Plan([step for epoch in epochs for step in epoch], len(epochs[0]))
