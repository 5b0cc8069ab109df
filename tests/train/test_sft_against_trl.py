"""The same tokens through TRL's SFT trainer: the same loss, gradients, and weights after one step of SGD."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from rl_toys import step_by_sgd, toy_model, toy_tokenizer
from sft_toys import toy_examples
from torch import Tensor

from webdancer.config import SftSettings
from webdancer.train.learner import Learner
from webdancer.train.sft import _Training
from webdancer.train.sft_data import SplitExamples

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    import transformers

RATE = 0.5


NUM = 4


def their_step(folder: Path) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """TRL's loss, gradients and weights of one step over all sequences, in two micro-batches."""
    examples = toy_examples(NUM)
    columns = {
        "input_ids": [list(example.token_ids) for example in examples],
        "labels": [
            [token if written else -100 for token, written in zip(example.token_ids, example.mask, strict=True)]
            for example in examples
        ],
    }
    config = trl.SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=1,
        learning_rate=RATE, lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0,
        dataset_kwargs={"skip_prepare_dataset": True}, bf16=False, use_cpu=True, report_to="none", save_strategy="no",
        gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    losses: list[float] = []
    gradients: dict[str, Tensor] = {}

    class Trainer(trl.SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
            return loss

    class Gradients(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
            gradients.update({n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None})

    model = toy_model()
    trainer = Trainer(
        model=model, args=config, train_dataset=datasets.Dataset.from_dict(columns), processing_class=toy_tokenizer(),
        callbacks=[Gradients()],
    )  # fmt: skip
    trainer.train()
    assert len(losses) == 2
    return sum(losses), gradients, {name: weight.detach().clone() for name, weight in model.named_parameters()}


def our_step(folder: Path) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """The same by a step of the trainer of this project, with SGD in AdamW's place; gradients are read off that step."""
    examples = toy_examples(NUM)
    model = toy_model()
    learner = Learner(model, Accelerator(cpu=True), dtype=torch.float32, weight_decay=0.0, max_grad_norm=1e9)
    gradients = step_by_sgd(learner, model)
    settings = SftSettings(num_epochs=1, batch_tokens=10_000, micro_batch_tokens=60, learning_rate=RATE, warmup_share=0)
    training = _Training(SplitExamples(examples, [], 0), learner, settings, folder, 0, lambda progress: None)
    assert len(training._micro_batches(examples, range(NUM))) > 1
    return training._step(list(range(NUM)))["loss"], gradients, learner.weights()


@pytest.mark.filterwarnings("ignore")  # TRL's and datasets' own
def test_loss_gradients_and_weights_are_those_of_trl(tmp_path: Path) -> None:
    """Sequences of unlike numbers of trained tokens: a mean of means would differ."""
    loss, gradients, weights = their_step(tmp_path / "theirs")
    our_loss, our_gradients, our_weights = our_step(tmp_path / "ours")
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert set(our_gradients) == set(gradients)
    for name, gradient in gradients.items():
        assert (our_gradients[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name
    start = dict(toy_model().named_parameters())
    for name, weight in weights.items():
        assert (our_weights[name] - weight).abs().max() <= 1e-5 * weight.abs().max(), name
        assert (weight - start[name]).norm() > 0, name
