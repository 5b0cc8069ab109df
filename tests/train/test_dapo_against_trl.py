"""The same batch through TRL's GRPO trainer (loss_type="dapo"): same advantages, loss, gradients, weights after a step of SGD."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from tests.train.rl_toys import step_by_sgd, toy_model, toy_samples, toy_tokenizer
from webdancer.config import RlSettings
from webdancer.records import Sample
from webdancer.train.dapo import group_advantages
from webdancer.train.learner import Learner
from webdancer.train.update import Updater

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from trl import GRPOConfig, GRPOTrainer

REWARDS = [[1.0, 0.1, 0.1, 0.0], [1.0, 0.0, 1.0, 0.1]]


def drifted_samples() -> list[Sample]:
    """Samples whose old log-probabilities differ from the model's by up to 0.5, so that all clip cases occur."""
    from tests.train.test_update import with_model_logprobs

    torch.manual_seed(5)
    samples = []
    for sample in with_model_logprobs(toy_samples(REWARDS)):
        drift = torch.empty(len(sample.mask)).uniform_(-0.5, 0.5).tolist()
        logprobs = tuple(
            p + d if written else 0.0 for p, d, written in zip(sample.logprobs, drift, sample.mask, strict=True)
        )
        samples.append(sample.model_copy(update={"logprobs": logprobs}))
    return samples


def trl_trainer(folder: Path, model: torch.nn.Module, **more: Any) -> GRPOTrainer:
    config = GRPOConfig(
        output_dir=str(folder),
        loss_type="dapo",
        epsilon=0.2,
        epsilon_high=0.28,
        beta=0.0,
        temperature=1.0,
        num_generations=4,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_dropout=False,
        gradient_checkpointing=False,
    )
    return GRPOTrainer(
        model=model,
        reward_funcs=more.pop("reward_funcs", lambda completions, **_: [0.0 for _ in completions]),
        args=config,
        train_dataset=datasets.Dataset.from_list([{"prompt": "x"}] * 8),
        processing_class=toy_tokenizer(),
        **more,
    )


def trl_inputs(samples: list[Sample], advantages: Tensor) -> dict[str, Tensor]:
    """The samples as TRL wants them: the first token as the prompt, observations left out by its tool mask."""
    length = max(len(sample.token_ids) for sample in samples) - 1
    rows = len(samples)
    completion = torch.zeros((rows, length), dtype=torch.int64)
    completion_mask, tool_mask = torch.zeros_like(completion), torch.zeros_like(completion)
    old = torch.zeros((rows, length))
    for row, sample in enumerate(samples):
        num = len(sample.token_ids) - 1
        completion[row, :num] = torch.tensor(sample.token_ids[1:])
        completion_mask[row, :num] = 1
        tool_mask[row, :num] = torch.tensor(sample.mask[1:]).long()
        old[row, :num] = torch.tensor(sample.logprobs[1:])
    return {
        "prompt_ids": torch.tensor([[sample.token_ids[0]] for sample in samples]),
        "prompt_mask": torch.ones((rows, 1), dtype=torch.int64),
        "completion_ids": completion,
        "completion_mask": completion_mask,
        "tool_mask": tool_mask,
        "old_per_token_logps": old,
        "advantages": advantages,
        "num_items_in_batch": (completion_mask * tool_mask).sum(),
    }


@pytest.fixture(scope="module")
def trl_advantages(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """What TRL makes of the rewards, given rollouts of a token each."""

    def roll(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        num = len(prompts)
        return {"prompt_ids": [[5]] * num, "completion_ids": [[6]] * num, "logprobs": [[0.0]] * num}

    rewards = [reward for group in REWARDS for reward in group]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl_trainer(
            tmp_path_factory.mktemp("advantages"), toy_model(), reward_funcs=lambda **_: rewards, rollout_func=roll
        )
        found: Tensor = trainer._generate_and_score_completions([{"prompt": "x"}] * len(rewards))["advantages"]
    return found


@pytest.fixture(scope="module")
def trl_step(
    trl_advantages: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """TRL's loss, gradients, and weights after one step of SGD at a learning rate of 0.1."""
    model = toy_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl_trainer(tmp_path_factory.mktemp("trl"), model)
        trainer.current_gradient_accumulation_steps = 1
        model.train()
        loss = trainer._compute_loss(model, trl_inputs(drifted_samples(), trl_advantages))
        loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return loss.item(), gradients, {name: weight.detach().clone() for name, weight in model.named_parameters()}


def our_step() -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """The same by the trainer of this project; the gradients are read off the step of SGD."""
    model = toy_model()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    accelerator = Accelerator(cpu=True)
    learner = Learner(model, accelerator, dtype=torch.float32, weight_decay=0.0, max_grad_norm=1e9)
    gradients = step_by_sgd(learner, model)
    settings = RlSettings(micro_batch_tokens=90)  # in several micro-batches, where TRL has one
    result = Updater(learner, settings=settings, accelerator=accelerator).update([drifted_samples()], learning_rate=0.1)
    assert result.metrics["clip_low_share"] > 0
    assert result.metrics["clip_high_share"] > 0
    weights = learner.weights()
    assert set(gradients) == set(before)
    return result.metrics["loss"], gradients, weights


def test_advantages_are_those_of_trl(trl_advantages: Tensor):
    ours = [advantage for group in REWARDS for advantage in group_advantages(group)]
    assert ours == pytest.approx(trl_advantages.tolist(), rel=1e-5)


def test_loss_gradients_and_weights_are_those_of_trl(trl_step: tuple[float, dict[str, Tensor], dict[str, Tensor]]):
    loss, gradients, weights = trl_step
    our_loss, our_gradients, our_weights = our_step()
    assert our_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        scale = gradient.abs().max().item()
        assert (our_gradients[name] - gradient).abs().max().item() <= 1e-5 * scale, name
    for name, weight in weights.items():
        assert (our_weights[name] - weight).abs().max().item() <= 1e-5 * weight.abs().max().item(), name
    start = dict(toy_model().named_parameters())
    assert max((weights[name] - start[name]).abs().max().item() for name in weights) > 1e-3
