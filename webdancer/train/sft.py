"""Supervised fine-tuning, the cold start (paper, section 3.3): masked loss over the turns that the policy wrote.

    L = -(1 / Σ_i 1[x_i ≠ o]) Σ_i 1[x_i ≠ o] · log π_θ(x_i | task context, x_<i)

Both sums run over all sequences of one optimizer step, over its micro-batches and over all processes. The paper does not
tell the learning rate, the number of epochs or the batch: they are settings.

The plan of all steps follows from the seed, and the random stream of a step from the seed, the step and the process. So
position in the data and random state are one number, the step, and a run that was killed ends with the same weights, bit
for bit, as one that was not.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.utils import gather_object
from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from webdancer.config import PolicySettings, SftSettings
from webdancer.errors import TrainError
from webdancer.records import Trajectory
from webdancer.synth.seeds import derive_seed
from webdancer.train.batches import Batch, micro_batches, share_out
from webdancer.train.checkpoint import fingerprint, read_state, start_of, write_state
from webdancer.train.learner import Learner, open_learner
from webdancer.train.metrics import MetricsLog
from webdancer.train.model import cosine_share
from webdancer.train.sft_data import Example, SplitExamples, plan_steps, split_examples
from webdancer.train.tokens import ChatTokens, encode_trajectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SftResult:
    """What a training came to."""

    out: Path
    """Folder of the Hugging Face checkpoint with the best weights."""
    num_examples: int
    """Trained on."""
    num_validation: int
    num_too_long: int
    """Dropped because they are longer than `policy.max_context`."""
    num_steps: int
    """Optimizer steps made."""
    best_step: int
    """The step whose weights were kept; 0 are those of the start."""
    loss: float
    """Of the last step."""
    validation_loss: float | None
    """Of the kept weights; None without validation."""
    num_tokens: int
    """Tokens read in training, padding not counted."""
    seconds: float
    stopped_early: bool


class SftProgress(NamedTuple):
    """How far a training is."""

    step: int
    num_steps: int
    loss: float
    validation_loss: float | None


def train_sft(
    trajectories: Sequence[Trajectory],
    *,
    base: Path,
    out: Path,
    settings: SftSettings,
    policy: PolicySettings,
    prompt: str,
    schemas: Sequence[dict[str, JsonValue]],
    seed: int,
    may_keep_start: bool = False,
    on_progress: Callable[[SftProgress], None] = lambda progress: None,
) -> SftResult:
    """Fine-tune the model at `base` on trajectories and write it to `out`; a second call goes on where the first was cut off.

    `out` gets the checkpoint with its tokenizer, `metrics.jsonl`, `tensorboard/` and `state/`.

    Args:
        prompt: name of the system prompt that the policy will be run with.
        schemas: the tools named in that prompt.
        may_keep_start: validate before the first step too; where nothing later is better, `out` gets the weights of `base`.

    Raises:
        TrainError: no trajectories (or all too long), one without a token of the policy, a loss that is no number, or a
            state in `out` of another training.
        ConfigError: there is no model at `base`, it has no ChatML tokenizer or one that it does not fit, or the device is
            missing.
        StoreError: a state cannot be written or read.
    """
    tokens = ChatTokens.load(base)
    examples = []
    for trajectory in trajectories:
        token_ids, mask = encode_trajectory(tokens, trajectory, schemas, prompt=prompt)
        examples.append(Example(trajectory.id, trajectory.qa_id, token_ids, mask))
    return train_on_examples(
        examples,
        base=base,
        tokenizer=tokens.tokenizer,
        out=out,
        settings=settings,
        policy=policy,
        seed=seed,
        may_keep_start=may_keep_start,
        on_progress=on_progress,
    )


def train_on_examples(
    examples: Sequence[Example],
    *,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    settings: SftSettings,
    policy: PolicySettings,
    seed: int,
    may_keep_start: bool = False,
    on_progress: Callable[[SftProgress], None] = lambda progress: None,
) -> SftResult:
    """As `train_sft`, from token sequences.

    Raises:
        TrainError, ConfigError, StoreError: as there.
    """
    data = split_examples(examples, max_context=policy.max_context, share=settings.validation_share, seed=seed)
    learner = open_learner(base, tokenizer, policy=policy, settings=settings, seed=seed)
    training = _Training(data, learner, settings, out, seed, on_progress)
    shown = map(repr, [*data.train, "validation", *data.validation])
    whose = fingerprint(settings, seed=seed, start=start_of(base, policy), data=shown)
    training.run(fingerprint=whose, may_keep_start=may_keep_start)
    learner.save_checkpoint(tokenizer, out)
    return training.result()


class EarlyStop:
    """Watches the validation loss: remembers the best, and says when it has not improved `patience` times in a row."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best_loss = math.inf
        self.num_worse = 0

    def improves(self, loss: float) -> bool:
        """Take the next validation's loss: is it the best so far?"""
        if loss < self.best_loss:
            self.best_loss, self.num_worse = loss, 0
            return True
        self.num_worse += 1
        return False

    @property
    def is_over(self) -> bool:
        """Patience is spent."""
        return self.num_worse >= self.patience


@dataclass(slots=True)
class _Progress:
    """What a state file holds beside the learner and the best weights."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    num_worse: int = 0
    loss: float = math.nan
    num_tokens: int = 0
    seconds: float = 0.0
    done: bool = False
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    """Of a sharded model on the first process alone."""

    @property
    def has_best(self) -> bool:
        """A validation found weights to keep; the same on all processes."""
        return self.best_loss < math.inf


class _Training:
    """The loop over the planned steps."""

    def __init__(
        self,
        data: SplitExamples,
        learner: Learner,
        settings: SftSettings,
        out: Path,
        seed: int,
        on_progress: Callable[[SftProgress], None],
    ) -> None:
        self._data, self._learner, self._accelerator = data, learner, learner.accelerator
        self._settings, self._out, self._seed, self._on_progress = settings, out, seed, on_progress
        lengths = [len(example.token_ids) for example in data.train]
        self._plan = plan_steps(lengths, batch_tokens=settings.batch_tokens, num_epochs=settings.num_epochs, seed=seed)
        self._eval_every = math.ceil(self._plan.steps_per_epoch / settings.evals_per_epoch)
        self._stop = EarlyStop(settings.patience)
        self._progress = _Progress()

    def run(self, *, fingerprint: str, may_keep_start: bool) -> None:
        """Go through the steps that are left; afterwards the model has the best weights."""
        self._resume(fingerprint)
        progress, steps = self._progress, self._plan.steps
        if may_keep_start and progress.step == 0 and self._data.validation:
            self._validate()
        log = MetricsLog(self._out, resume_step=progress.step) if self._accelerator.is_main_process else None
        try:
            while not progress.done:
                metrics = self._step(steps[progress.step])
                progress.step += 1
                progress.done = progress.step == len(steps)
                if self._data.validation and (progress.step % self._eval_every == 0 or progress.done):
                    metrics["validation_loss"] = self._validate()
                    progress.done |= self._stop.is_over
                if log:
                    log.write(progress.step, metrics)
                if progress.done or progress.step % self._settings.save_every_steps == 0:
                    self._save(fingerprint)
                self._on_progress(SftProgress(progress.step, len(steps), progress.loss, metrics.get("validation_loss")))
        finally:
            if log:
                log.close()
        if progress.has_best:
            self._learner.load_weights(progress.best_weights)

    def _step(self, rows: list[int]) -> dict[str, float]:
        """One optimizer step over the sequences at `rows`, dealt out to the processes."""
        start = time.perf_counter()
        progress, settings, examples = self._progress, self._settings, self._data.train
        torch.manual_seed(derive_seed("step", self._seed, progress.step, self._accelerator.process_index))
        share = cosine_share(
            progress.step,
            num_steps=len(self._plan.steps),
            warmup_steps=round(settings.warmup_share * len(self._plan.steps)),
            min_share=settings.min_learning_rate_share,
        )
        num_tokens = sum(len(examples[row].token_ids) for row in rows)
        # Every process knows the whole step, so that the one normaliser of the formula needs no exchange.
        num_loss_tokens = sum(sum(examples[row].mask) for row in rows)
        loss = self._backward(rows, num_loss_tokens)
        norm = self._learner.step(settings.learning_rate * share)
        if not math.isfinite(norm):
            raise TrainError(
                f"step {progress.step + 1}: the gradient's norm is {norm} at a loss of {loss:.4g}; trajectories "
                f"{', '.join(examples[row].id for row in rows[:20])}; lower sft.learning_rate or look at them"
            )
        seconds = time.perf_counter() - start
        progress.loss, progress.num_tokens = loss, progress.num_tokens + num_tokens
        progress.seconds += seconds
        return {
            "loss": loss,
            "learning_rate": settings.learning_rate * share,
            "grad_norm": norm,
            "tokens": num_tokens,
            "loss_tokens": num_loss_tokens,
            "tokens_per_s": num_tokens / seconds,
            "seconds": progress.seconds,
        }

    def _backward(self, rows: list[int], num_loss_tokens: int) -> float:
        """Add the step's gradients on this process; the loss over all processes.

        Raises:
            TrainError: it is no number; names the trajectories of the micro-batches where it is not.
        """
        examples = self._data.train
        total = torch.zeros((), device=self._accelerator.device)
        broken: list[str] = []
        for batch in self._micro_batches(examples, rows):
            logprobs = self._learner.logprobs(batch.to(self._accelerator.device))
            loss = -logprobs.sum() / num_loss_tokens
            if not math.isfinite(loss.item()):
                broken += [examples[row].id for row in batch.rows]
            self._learner.backward(loss)
            total += loss.detach()
        loss_value = float(self._sum(total))
        if not math.isfinite(loss_value):
            raise TrainError(
                f"step {self._progress.step + 1}: the loss is {loss_value}; it came from the trajectories "
                f"{', '.join(gather_object(broken))}; look at them, or lower sft.learning_rate"
            )
        return loss_value

    def _validate(self) -> float:
        """Mean loss per token of the policy over the held-out examples; keeps the weights if they are the best so far."""
        start = time.perf_counter()
        progress, examples, device = self._progress, self._data.validation, self._accelerator.device
        total = torch.zeros((), dtype=torch.float64, device=device)
        self._learner.model.eval()
        with torch.no_grad():
            for batch in self._micro_batches(examples, range(len(examples))):
                total -= self._learner.logprobs(batch.to(device)).sum()
        self._learner.model.train()
        loss = float(self._sum(total)) / sum(sum(example.mask) for example in examples)
        if self._stop.improves(loss):
            progress.best_step, progress.best_weights = progress.step, self._learner.weights()
        progress.best_loss, progress.num_worse = self._stop.best_loss, self._stop.num_worse
        progress.seconds += time.perf_counter() - start
        return loss

    def _micro_batches(self, examples: Sequence[Example], rows: Sequence[int]) -> Sequence[Batch]:
        """Those of this process."""
        shares = share_out([len(examples[row].token_ids) for row in rows], num_shares=self._accelerator.num_processes)
        own = [rows[index] for index in shares[self._accelerator.process_index]]
        return self._learner.evened(micro_batches(examples, rows=own, max_tokens=self._settings.micro_batch_tokens))

    def _sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        total: torch.Tensor = self._accelerator.reduce(value, reduction="sum")
        return total

    def _save(self, fingerprint: str) -> None:
        learner = self._learner.state_dict()
        if self._accelerator.is_main_process:
            values = {
                **{name: getattr(self._progress, name) for name in _Progress.__slots__},
                "learner": learner,
                "fingerprint": fingerprint,
            }
            write_state(self._out / "state", self._progress.step, values)
        self._accelerator.wait_for_everyone()

    def _resume(self, fingerprint: str) -> None:
        """Take up the newest state, if there is one."""
        saved = read_state(self._out / "state", mapped=self._learner.is_sharded)
        if saved is None:
            return
        values = saved.values
        if values.pop("fingerprint") != fingerprint:
            raise TrainError(
                f"{self._out / 'state'} holds a training of other trajectories or settings; choose another folder, or "
                "remove it to start anew"
            )
        self._learner.load_state_dict(values.pop("learner"))
        self._progress = _Progress(**values)
        self._stop.best_loss, self._stop.num_worse = self._progress.best_loss, self._progress.num_worse
        logger.info("training goes on after step %d of %d", self._progress.step, len(self._plan.steps))

    def result(self) -> SftResult:
        """What it came to."""
        progress = self._progress
        return SftResult(
            out=self._out,
            num_examples=len(self._data.train),
            num_validation=len(self._data.validation),
            num_too_long=self._data.num_too_long,
            num_steps=progress.step,
            best_step=progress.best_step if progress.has_best else progress.step,
            loss=progress.loss,
            validation_loss=progress.best_loss if self._data.validation else None,
            num_tokens=progress.num_tokens,
            seconds=progress.seconds,
            stopped_early=progress.step < len(self._plan.steps),
        )
