"""Optimizer steps on fixed samples: normalisers, old log-probabilities, and the same numbers as TRL's trainer."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from tests.train.rl_toys import run_processes, toy_model, toy_samples
from webdancer.config import RlSettings
from webdancer.errors import TrainError
from webdancer.records import Sample
from webdancer.train.batches import micro_batches
from webdancer.train.learner import Learner
from webdancer.train.model import token_logprobs
from webdancer.train.update import Updater, UpdateResult, split_groups

REWARDS = [[1.0, 0.1, 0.1], [1.0, 0.0, 1.0, 0.1], [0.9, 0.1]]


def updated(
    samples: list[list[Sample]], *, learning_rate: float = 1e-3, sgd: bool = False, **settings: object
) -> tuple[UpdateResult, dict[str, torch.Tensor]]:
    """What one call of `Updater.update` gives, and the weights after it.

    Args:
        sgd: plain steps along the gradient. AdamW makes steps of one size of large and of tiny gradients, and so of rounding.
    """
    learner = Learner(toy_model(), Accelerator(cpu=True), dtype=torch.float32, weight_decay=0.0, max_grad_norm=1e9)
    if sgd:
        learner._optimizer = torch.optim.SGD(learner.model.parameters(), lr=0.0)  # type: ignore[assignment]
    rl = RlSettings.model_validate({"micro_batch_tokens": 90, **settings})
    result = Updater(learner, settings=rl, accelerator=Accelerator(cpu=True)).update(
        samples, learning_rate=learning_rate
    )
    return result, learner.weights()


def with_model_logprobs(samples: list[Sample]) -> list[Sample]:
    """The samples with the log-probabilities that the toy model itself gives their tokens."""
    found = []
    for sample in samples:
        (batch,) = micro_batches([sample], max_tokens=1000)
        values = iter(token_logprobs(toy_model(), batch).tolist())
        logprobs = tuple(next(values) if written else 0.0 for written in sample.mask)
        found.append(sample.model_copy(update={"logprobs": logprobs}))
    return found


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    return max((left[name] - right[name]).abs().max().item() for name in left)


@pytest.mark.parametrize(
    ("num_groups", "num_parts", "parts"),
    [
        (5, 2, [[0, 1], [2, 3, 4]]),
        (4, 2, [[0, 1], [2, 3]]),
        (1, 3, [[0]]),
        (0, 2, []),
    ],
)
def test_groups_are_split_evenly_over_the_optimizer_steps(num_groups: int, num_parts: int, parts: list[list[int]]):
    assert split_groups(range(num_groups), num_parts=num_parts) == parts


def test_the_cut_into_micro_batches_changes_nothing():
    samples = toy_samples(REWARDS)
    small, small_weights = updated([samples], sgd=True, learning_rate=1.0, micro_batch_tokens=40)
    large, large_weights = updated([samples], sgd=True, learning_rate=1.0, micro_batch_tokens=4096)
    assert small.metrics == pytest.approx(large.metrics, rel=1e-4, abs=1e-6)
    assert largest_difference(small_weights, large_weights) < 2e-6


def test_on_the_sampling_policy_itself_ratios_are_one_and_nothing_is_clipped():
    samples = with_model_logprobs(toy_samples(REWARDS))
    result, _ = updated([samples])
    assert result.num_updates == 1
    assert result.num_tokens == sum(sum(sample.mask) for sample in samples)
    assert result.metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert result.metrics["clip_low_share"] == result.metrics["clip_high_share"] == 0.0
    assert result.metrics["logprob_gap_max"] < 1e-5
    # Σ over tokens of the advantages, weighed by each rollout's length, divided by the number of tokens, negated.
    total = sum(sample.advantage * sum(sample.mask) for sample in samples)
    assert result.metrics["loss"] == pytest.approx(-total / result.num_tokens, abs=1e-5)


def test_each_optimizer_step_has_its_own_normaliser():
    """Two steps of learning rate 0 have the mean of the losses that each has alone."""
    samples = with_model_logprobs(toy_samples(REWARDS))
    both, _ = updated([samples[:3], samples[3:]], learning_rate=0.0)
    alone = [updated([part], learning_rate=0.0)[0].metrics["loss"] for part in (samples[:3], samples[3:])]
    assert both.num_updates == 2
    assert both.metrics["loss"] == pytest.approx(sum(alone) / 2, abs=1e-6)


def test_the_second_step_is_measured_against_the_policy_that_sampled():
    samples = with_model_logprobs(toy_samples(REWARDS))
    result, _ = updated([samples, samples], learning_rate=0.05)
    assert result.metrics["clip_low_share"] > 0
    assert result.metrics["clip_high_share"] > 0


def test_recomputed_logprobs_replace_the_engine_s():
    samples = toy_samples(REWARDS)  # their log-probabilities are not the model's
    result, weights = updated([samples], sgd=True, learning_rate=1.0, recompute_logprobs=True)
    right, right_weights = updated([with_model_logprobs(samples)], sgd=True, learning_rate=1.0)
    assert result.metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-6)
    assert largest_difference(weights, right_weights) < 2e-6
    assert result.metrics["logprob_gap_mean"] > 0.1
    assert right.metrics["logprob_gap_mean"] < 1e-5


def test_importance_correction_weighs_tokens_by_trainer_over_engine():
    """An engine that says e^-1 less of every token: all weights are min(e, 2) = 2, so loss and gradient double."""
    right = with_model_logprobs(toy_samples(REWARDS))
    wrong = [
        sample.model_copy(
            update={"logprobs": tuple(p - 1 if m else 0.0 for p, m in zip(sample.logprobs, sample.mask, strict=True))}
        )
        for sample in right
    ]
    plain, _ = updated([right])
    corrected, _ = updated([wrong], importance_cap=2.0)
    assert corrected.metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-6)
    assert corrected.metrics["loss"] == pytest.approx(2 * plain.metrics["loss"], abs=1e-5)
    assert corrected.metrics["grad_norm"] == pytest.approx(2 * plain.metrics["grad_norm"], rel=1e-4)
    assert corrected.metrics["logprob_gap_mean"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("first", [True, False])
def test_a_gradient_that_is_not_finite_is_no_update_and_leaves_the_metrics_finite(first: bool):
    samples = with_model_logprobs(toy_samples(REWARDS))
    good, broken = samples[:3], [sample.model_copy(update={"advantage": float("inf")}) for sample in samples[3:]]
    result, weights = updated([broken, good] if first else [good, broken])
    alone, alone_weights = updated([good])
    assert (result.num_updates, result.metrics.pop("updates_not_finite")) == (1, 1)
    assert alone.metrics.pop("updates_not_finite") == 0
    assert result.metrics == alone.metrics
    assert largest_difference(weights, alone_weights) == 0.0
    json.dumps(result.metrics, allow_nan=False)


def test_a_step_without_a_finite_gradient_is_an_error_that_names_its_rollouts():
    broken = [sample.model_copy(update={"advantage": float("nan")}) for sample in toy_samples(REWARDS)]
    with pytest.raises(TrainError, match=r"none of this step's 2 gradients is finite.*g0-r0, g1-r0.*rl\.learning_rate"):
        updated([broken[:3], broken[3:]])


def test_a_step_without_a_sampled_token_is_left_out():
    empty = [s.model_copy(update={"mask": (False,) * len(s.mask)}) for s in toy_samples(REWARDS[:1])]
    result, weights = updated([empty])
    assert (result.num_updates, result.num_tokens) == (0, 0)
    assert largest_difference(weights, dict(toy_model().named_parameters())) == 0.0


_TWO_PROCESSES = """
import sys
import torch
from accelerate import Accelerator
from tests.train.rl_toys import toy_samples
from tests.train.test_update import REWARDS, one_update

accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
group = lambda n: [s for s in toy_samples(REWARDS) if s.group_id == f"g{n}"]
parts = [[], group(2)] if accelerator.process_index == 0 else [group(0), group(1)]
reduce, sizes = torch.distributed.all_reduce, []

def watched(tensor, *arguments, **options):
    sizes.append(tensor.numel())
    return reduce(tensor, *arguments, **options)

torch.distributed.all_reduce = watched
metrics, weights = one_update(parts, accelerator)
values = {"weights": weights, "metrics": metrics, "sizes": sizes}
torch.save(values, f"{sys.argv[1]}/{accelerator.process_index}.pt")
"""


def one_update(parts: list[list[Sample]], accelerator: Accelerator) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    learner = Learner(toy_model(), accelerator, dtype=torch.float32, weight_decay=0.0, max_grad_norm=1.0)
    settings = RlSettings(micro_batch_tokens=60, recompute_logprobs=True)
    result = Updater(learner, settings=settings, accelerator=accelerator).update(parts, learning_rate=1e-2)
    return result.metrics, learner.weights()


def test_two_processes_with_uneven_shares_step_as_one(tmp_path: Path):
    """Steps of group 0 and of groups 1 and 2; the first process has nothing of the first step and group 2 of the second."""
    script = tmp_path / "script.py"
    script.write_text(_TWO_PROCESSES)
    run_processes(script, str(tmp_path), num_processes=2)
    samples = toy_samples(REWARDS)
    metrics, weights = one_update([samples[:3], samples[3:]], Accelerator(cpu=True))
    first, second = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert largest_difference(weights, first["weights"]) < 1e-6
    assert largest_difference(first["weights"], second["weights"]) == 0.0
    assert metrics == pytest.approx(first["metrics"], rel=1e-5, abs=1e-7)
    assert first["metrics"] == second["metrics"]
    assert max(first["sizes"]) == max(weight.numel() for weight in weights.values())  # no copy of all gradients in one
    assert largest_difference(weights, dict(toy_model().named_parameters())) > 1e-3


def test_embeddings_may_learn_more_slowly_than_the_rest():
    """AdamW's first step moves every weight by the learning rate, whatever its gradient."""
    moved = {}
    for share in (1.0, 0.25):
        model = toy_model()
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        accelerator = Accelerator(cpu=True)
        learner = Learner(
            model,
            accelerator,
            dtype=torch.float32,
            weight_decay=0.0,
            max_grad_norm=1e9,
            embedding_rate_share=share,
        )
        settings = RlSettings.model_validate({"updates_per_step": 1})
        Updater(learner, settings=settings, accelerator=accelerator).update([toy_samples(REWARDS)], learning_rate=1e-3)
        moved[share] = {name: (learner.weights()[name] - before[name]).abs().max().item() for name in before}
    ends = {"model.embed_tokens.weight", "lm_head.weight"} & set(moved[1.0])
    assert ends
    for name, distance in moved[1.0].items():
        expected = 0.25e-3 if name in ends else 1e-3
        assert distance == pytest.approx(1e-3, rel=0.01), name
        assert moved[0.25][name] == pytest.approx(expected, rel=0.01), name
