"""Optimizer steps on one batch of rollouts (paper, section 4.1), in one process or in several with uneven shares.

The batch is split by groups into as many mini-batches as there are optimizer steps; each has its own normaliser, the number of
its sampled tokens over all processes, so that every token of a mini-batch weighs the same wherever it is computed. From the
second step on the policy is no longer the one that sampled: there the clip begins to matter.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from webdancer.config import RlSettings
from webdancer.errors import TrainError
from webdancer.records import Sample
from webdancer.train.batches import Batch, micro_batches
from webdancer.train.dapo import TokenSums, clipped_token_loss, importance_weights, token_sums
from webdancer.train.learner import Learner


class UpdateResult(NamedTuple):
    """What the optimizer steps on one batch did, over all processes."""

    num_updates: int
    num_tokens: int
    """Sampled tokens trained on."""
    metrics: dict[str, float]
    """Empty where there was nothing to train on."""


def split_groups(positions: Sequence[int], *, num_parts: int) -> list[list[int]]:
    """The groups of each optimizer step: as many parts as possible up to `num_parts`, in order, sizes differing by at most 1."""
    num_parts = min(num_parts, len(positions))
    bounds = [len(positions) * part // num_parts for part in range(num_parts + 1)] if num_parts else [0]
    return [list(positions[start:end]) for start, end in itertools.pairwise(bounds)]


class Updater:
    """Trains a policy on samples; every process has one, and all call it together."""

    def __init__(self, learner: Learner, *, settings: RlSettings, accelerator: Accelerator) -> None:
        self._learner, self._settings, self._accelerator = learner, settings, accelerator
        # The engine's numbers are those of the nucleus where top_p cuts, so there the trainer's own must stand below the ratio.
        self._recomputes = settings.recompute_logprobs or settings.importance_cap is not None or settings.top_p < 1

    def update(self, parts: Sequence[Sequence[Sample]], *, learning_rate: float) -> UpdateResult:
        """One optimizer step for each part, except where the gradient is not finite: there nothing changes.

        Args:
            parts: this process's share of each step's samples; a share may be empty, the number of parts is the same everywhere.

        Raises:
            TrainError: there is a gradient for some part, but for none a finite one.
        """
        batches = [self._batches(samples) for samples in parts]
        olds = [self._old_logprobs(samples, each) for samples, each in zip(parts, batches, strict=True)]
        sums, gap_max = TokenSums(), 0.0
        losses: list[float] = []
        norms: list[float] = []
        skipped: list[float] = []
        for number, samples in enumerate(parts):
            num_tokens = int(self._total([float(sum(batch.num_masked for batch in batches[number]))])[0])
            if num_tokens == 0:
                continue  # episodes that were full before the policy's first word
            part_sums, part_gap = self._accumulate(
                samples, batches[number], olds[number], num_tokens=num_tokens, is_first=not norms
            )
            norm = self._learner.step(learning_rate)
            if not math.isfinite(norm):
                skipped.append(norm)
                continue
            norms.append(norm)
            part_sums = TokenSums(*self._total(list(part_sums)))
            losses.append(part_sums.loss)
            sums, gap_max = sums.plus(part_sums), max(gap_max, part_gap)
        gap_max = float(self._accelerator.gather(torch.tensor([gap_max], device=self._accelerator.device)).max())
        if skipped and not norms:
            names = ", ".join(sample.id for samples in parts for sample in samples[:1])
            raise TrainError(
                f"none of this step's {len(skipped)} gradients is finite, their norms are {skipped}; the first rollouts of each: "
                f"{names}; look at them, or lower rl.learning_rate"
            )
        if not norms:
            return UpdateResult(0, 0, {})
        metrics = {
            **sums.metrics(),
            "logprob_gap_max": gap_max,
            "loss": sum(losses) / len(losses),
            "grad_norm": sum(norms) / len(norms),
            "updates_not_finite": len(skipped),
            "learning_rate": learning_rate,
        }
        return UpdateResult(len(norms), int(sums.num_tokens), metrics)

    def _batches(self, samples: Sequence[Sample]) -> Sequence[Batch]:
        found = micro_batches(samples, max_tokens=self._settings.micro_batch_tokens)
        return self._learner.evened([batch.to(self._accelerator.device) for batch in found if batch.num_masked])

    def _old_logprobs(self, samples: Sequence[Sample], batches: Sequence[Batch]) -> list[Tensor] | None:
        """The trainer's log-probabilities before the first optimizer step, where the settings ask for them."""
        if not self._recomputes:
            return None
        with torch.no_grad():
            return [self._logprobs(batch) for batch in batches]

    def _logprobs(self, batch: Batch) -> Tensor:
        return self._learner.logprobs(batch, temperature=self._settings.temperature)

    def _accumulate(
        self,
        samples: Sequence[Sample],
        batches: Sequence[Batch],
        olds: Sequence[Tensor] | None,
        *,
        num_tokens: int,
        is_first: bool,
    ) -> tuple[TokenSums, float]:
        """Add up this process's gradients of one optimizer step; its sums, and the widest gap between sampler and trainer."""
        sums, gap_max = TokenSums(), 0.0
        advantages = [sample.advantage for sample in samples]
        sampled_logprobs = [sample.logprobs for sample in samples]
        for number, batch in enumerate(batches):
            sampler = batch.masked(sampled_logprobs)
            old = sampler if olds is None else olds[number]
            logprobs = self._logprobs(batch)
            cap = self._settings.importance_cap
            result = clipped_token_loss(
                logprobs,
                old,
                batch.per_token(advantages),
                num_tokens=num_tokens,
                clip_low=self._settings.clip_low,
                clip_high=self._settings.clip_high,
                weights=None if cap is None else importance_weights(old, sampler, cap=cap),
            )
            self._learner.backward(result.loss)
            # Before the first optimizer step the trainer still has the sampler's weights: what differs is rounding.
            trainer = logprobs.detach() if is_first and olds is None else None if olds is None else old
            sums = sums.plus(token_sums(result, sampler, trainer))
            if trainer is not None and batch.num_masked:
                gap_max = max(gap_max, float((trainer - sampler).abs().max()))
        return sums, gap_max

    def _total(self, values: list[float]) -> list[float]:
        """The sums of values over all processes."""
        if self._accelerator.num_processes == 1:
            return values
        summed = self._accelerator.reduce(
            torch.tensor(values, dtype=torch.float64, device=self._accelerator.device), reduction="sum"
        )
        return [float(value) for value in summed]
