"""The same tokens through TRL's SFT trainer: the same loss, and the same weights after one step of SGD."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from rl_toys import toy_model, toy_tokenizer
from sft_toys import toy_examples

from webdancer.train.batches import micro_batches
from webdancer.train.learner import Learner
from webdancer.train.model import token_logprobs

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")

RATE = 0.5


@pytest.mark.filterwarnings("ignore")  # TRL's and datasets' own
def test_same_loss_and_weights_after_one_step(tmp_path: Path) -> None:
    """Four sequences of unlike numbers of trained tokens, in two micro-batches on either side."""
    examples = toy_examples(4)
    theirs = toy_model()
    before = {name: weight.detach().clone() for name, weight in theirs.named_parameters()}
    columns = {
        "input_ids": [list(example.token_ids) for example in examples],
        "labels": [
            [token if written else -100 for token, written in zip(example.token_ids, example.mask, strict=True)]
            for example in examples
        ],
    }
    config = trl.SFTConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=1,
        learning_rate=RATE, lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0, logging_steps=1,
        dataset_kwargs={"skip_prepare_dataset": True}, bf16=False, use_cpu=True, report_to="none", save_strategy="no",
        gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=theirs, args=config, train_dataset=datasets.Dataset.from_dict(columns), processing_class=toy_tokenizer()
    )
    trainer.train()
    their_loss = trainer.state.log_history[0]["loss"]

    ours = toy_model()
    learner = Learner(ours, Accelerator(cpu=True), dtype=torch.float32, weight_decay=0.0, max_grad_norm=1.0)
    batches = micro_batches(examples, max_tokens=60)
    total = sum(batch.num_masked for batch in batches)
    losses = [-token_logprobs(ours, batch).sum() / total for batch in batches]
    for loss in losses:
        learner.backward(loss)
    assert len(batches) > 1
    assert sum(loss.item() for loss in losses) == pytest.approx(their_loss, rel=1e-4)  # TRL rounds what it logs
    changes = []
    for name, weight in ours.named_parameters():
        assert weight.grad is not None
        mine, other = -RATE * weight.grad, dict(theirs.named_parameters())[name].detach() - before[name]
        assert (mine - other).norm() <= 1e-5 * before[name].norm(), name
        assert (mine - other).norm() <= 1e-3 * other.norm(), (
            name
        )  # of the change alone; the rest is rounding of the sum
        changes.append(other.norm())
    assert all(change > 0 for change in changes)
