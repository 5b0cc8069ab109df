"""Pre-trains the tiny base model from nothing on documents that the caller gives.

Not in the paper, whose base models come trained. What matters here is that the model copies names reliably before it ever
sees a trajectory: neither SFT nor RL can teach that within minutes. Matrices are trained with Muon, all else with AdamW.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from webdancer.config import PretrainSettings
from webdancer.errors import TrainError
from webdancer.train.batches import Batch, micro_batches
from webdancer.train.checkpoint import fingerprint, read_values, write_values
from webdancer.train.model import save_checkpoint, token_logprobs

_CHUNK = 2000
"""Documents that are sorted by length among themselves."""
_HEAD_DIM = 64
_BETAS = (0.9, 0.95)
_STATE = "pretrain_state.pt"


class Exercise(NamedTuple):
    """One document: all its tokens, and which of them the model learns to predict."""

    token_ids: Sequence[int]
    mask: Sequence[int]


def new_model(settings: PretrainSettings, *, vocab_size: int, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 of the settings' size with random weights."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.hidden_size // _HEAD_DIM,
        num_key_value_heads=settings.hidden_size // _HEAD_DIM,  # heads that share keys copy worse
        head_dim=_HEAD_DIM,
        intermediate_size=settings.intermediate_size,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    config._attn_implementation = "sdpa"
    return Qwen3ForCausalLM(config)


def pretrain(
    exercises: Sequence[Exercise],
    validation: Sequence[Exercise],
    tokenizer: PreTrainedTokenizerFast,
    *,
    settings: PretrainSettings,
    out: Path,
    seed: int,
    on_step: Callable[[dict[str, float]], None] = lambda numbers: None,
) -> dict[str, float]:
    """Train for `settings.num_steps` steps into `out`; an interrupted training goes on from its last saved state.

    Returns:
        Of the last step its number, loss and tokens per second, and validation loss and accuracy per token; of a training
        that was finished before the number alone.

    Raises:
        TrainError: `out` holds the state of a training with another seed or other settings; it may be made longer.
        StoreError: a state cannot be written or read.
    """
    out.mkdir(parents=True, exist_ok=True)
    model = new_model(settings, vocab_size=len(tokenizer), seed=seed)
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    learner, whose = _Learner(model, settings), fingerprint(settings, seed=seed)
    done = learner.resume(out / _STATE, whose)
    tokens, began = 0, time.monotonic()
    numbers: dict[str, float] = {"step": done}
    unseen = unseen_ids(exercises, len(tokenizer))
    stream = _batches(exercises, settings.batch_tokens, seed)
    for step, batch in enumerate(islice(stream, done, settings.num_steps), done + 1):
        tokens += batch.num_tokens
        numbers = {"step": step, "loss": learner.step(batch, step)}
        if step % settings.eval_every_steps == 0 or step == settings.num_steps:
            seconds = time.monotonic() - began
            numbers |= {"tokens_per_second": tokens / seconds} | evaluate(learner.working, validation)
            with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(numbers) + "\n")
            # The state last: who is killed between the two makes these steps again rather than keep an old checkpoint.
            save_checkpoint(with_fresh_rows(learner.model, unseen, seed=seed), tokenizer, out)
            learner.save(out / _STATE, step, whose)
        on_step(numbers)
    return numbers


def unseen_ids(exercises: Sequence[Exercise], vocab_size: int) -> list[int]:
    """The ids that no document holds, the tags' among them."""
    seen = {id_ for exercise in exercises for id_ in exercise.token_ids}
    return [id_ for id_ in range(vocab_size) if id_ not in seen]


def with_fresh_rows(model: Qwen3ForCausalLM, unseen: Sequence[int], *, seed: int) -> Qwen3ForCausalLM:
    """A copy in which the embeddings of `unseen` ids are drawn from the distribution of the others.

    All that training told of them is that they never come: their rows end as one and the same, very unlikely, token, which
    a later training would first have to undo and tell apart.
    """
    fresh = deepcopy(model)
    rows = fresh.model.embed_tokens.weight.data
    others = rows[[id_ for id_ in range(len(rows)) if id_ not in set(unseen)]]
    noise = torch.randn(len(unseen), rows.shape[1], generator=torch.Generator().manual_seed(seed))
    rows[list(unseen)] = others.mean(dim=0) + noise * others.std(dim=0)
    return fresh


class _Learner:
    """Float32 weights and their optimizers, and a bfloat16 copy of them that computes."""

    def __init__(self, model: Qwen3ForCausalLM, settings: PretrainSettings) -> None:
        self._settings = settings
        self.model = model
        self.working = Qwen3ForCausalLM(model.config).bfloat16()
        self._pairs = list(zip(self.working.parameters(), model.parameters(), strict=True))
        self._publish()
        matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
        rate = settings.learning_rate
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=10 * rate, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=rate, betas=_BETAS, weight_decay=0.0),
        ]
        self._rates = (10 * rate, rate)

    def step(self, batch: Batch, step: int) -> float:
        """One optimizer step (`step` counts from 1); returns the mean loss per token, in nats."""
        loss = -token_logprobs(self.working, batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        for copy, weight in self._pairs:
            assert copy.grad is not None
            weight.grad, copy.grad = copy.grad.float(), None
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        share = _share(step, self._settings)
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * share
            optimizer.step()
        self._publish()
        return float(loss.detach())

    @torch.no_grad()
    def _publish(self) -> None:
        for copy, weight in self._pairs:
            copy.copy_(weight)

    def save(self, path: Path, step: int, whose: str) -> None:
        """Write all that is needed to go on, and the fingerprint of the training whose it is."""
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        values = {"step": step, "model": self.model.state_dict(), "optimizers": optimizers, "fingerprint": whose}
        write_values(path, values)

    def resume(self, path: Path, whose: str) -> int:
        """Take up a saved state, if there is one; returns its step.

        Raises:
            TrainError: it is another training's.
        """
        if not path.exists():
            return 0
        state = read_values(path)
        if state.get("fingerprint") != whose:
            raise TrainError(
                f"{path} is of a training with another seed or other settings (only num_steps and eval_every_steps may "
                "change); choose another folder, or remove it to start anew"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._publish()
        return int(state["step"])


def _share(step: int, settings: PretrainSettings) -> float:
    """Share of the learning rate: warm-up, a plateau, then linearly down to nothing over the last `decay_share`."""
    left = (settings.num_steps - step) / max(1.0, settings.decay_share * settings.num_steps)
    return min(1.0, step / settings.warmup_steps, left)


def _batches(exercises: Sequence[Exercise], batch_tokens: int, seed: int) -> Iterator[Batch]:
    """Batches of documents of like lengths without end, each epoch in an order of its own."""
    epoch = 0
    while True:
        rng = random.Random(f"pretrain/{seed}/{epoch}")
        order = rng.sample(range(len(exercises)), len(exercises))
        for start in range(0, len(order), _CHUNK):
            batches = micro_batches(exercises, max_tokens=batch_tokens, rows=order[start : start + _CHUNK])
            rng.shuffle(batches)
            yield from batches
        epoch += 1


@torch.no_grad()
def evaluate(model: nn.Module, exercises: Sequence[Exercise]) -> dict[str, float]:
    """Mean loss in nats, and the share of documents' tokens that greedy prediction gets right."""
    total, num_right, num = 0.0, 0, 0
    for batch in micro_batches(exercises, max_tokens=8192):
        hidden: Tensor = model.get_decoder()(input_ids=batch.token_ids, use_cache=False).last_hidden_state  # type: ignore[operator]
        logits = model.get_output_embeddings()(hidden[:, :-1][batch.mask[:, 1:]]).float()  # type: ignore[operator]
        targets = batch.token_ids[batch.mask]
        total += float(nn.functional.cross_entropy(logits, targets, reduction="sum"))
        num_right += int((logits.argmax(dim=-1) == targets).sum())
        num += batch.num_masked
    return {"validation_loss": total / num, "validation_accuracy": num_right / num}
