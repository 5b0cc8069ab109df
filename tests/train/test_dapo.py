"""Advantages, filter, clip cases and metrics against numbers worked out by hand."""

import math

import pytest
import torch

from webdancer.train.dapo import (
    GroupSignal,
    TokenSums,
    clipped_token_loss,
    group_advantages,
    group_signal,
    importance_weights,
    overlong_punishment,
    token_sums,
)


def test_advantages_are_measured_in_the_group_s_sample_standard_deviation():
    # mean 0.5, squared differences 0.25 + 0.25 + 0.25 + 0.25, divided by 3: std 0.577350; plus 0.0001
    assert group_advantages([1.0, 0.0, 1.0, 0.0]) == pytest.approx([0.8658754, -0.8658754] * 2, rel=1e-6)
    # mean 0.4, differences 0.6, -0.3, -0.3: variance 0.54 / 2 = 0.27, std 0.5196152
    assert group_advantages([1.0, 0.1, 0.1]) == pytest.approx([1.1544783, -0.5772392, -0.5772392], rel=1e-6)


def test_a_group_without_spread_has_no_advantage():
    assert group_advantages([0.1, 0.1, 0.1]) == [0.0, 0.0, 0.0]


def test_a_single_rollout_is_no_group():
    with pytest.raises(ValueError, match="got a group of 1"):
        group_advantages([1.0])


@pytest.mark.parametrize(
    ("is_right", "signal"),
    [
        ([True, True], GroupSignal.ALL_RIGHT),
        ([False, False, False], GroupSignal.ALL_WRONG),
        ([True, False, False], GroupSignal.MIXED),
        ([True, True, False], GroupSignal.MIXED),
    ],
)
def test_the_signal_of_a_group_goes_by_the_answers(is_right: list[bool], signal: GroupSignal):
    assert group_signal(is_right) is signal


@pytest.mark.parametrize(("num_tokens", "punishment"), [(700, 0), (768, 0), (832, -0.25), (1024, -1), (2000, -1)])
def test_soft_overlong_punishment_grows_over_the_buffer(num_tokens: int, punishment: float):
    assert overlong_punishment(num_tokens, max_tokens=1024, buffer=256) == punishment


def loss_of(ratio: float, advantage: float) -> tuple[float, float, bool, bool]:
    """Loss, gradient by the log-probability, clipped low, clipped high, of one token with a normaliser of 1."""
    old = torch.tensor([-2.0], dtype=torch.float64)
    new = (old + math.log(ratio)).requires_grad_()
    result = clipped_token_loss(
        new, old, torch.tensor([advantage], dtype=torch.float64), num_tokens=1, clip_low=0.2, clip_high=0.28
    )
    result.loss.backward()
    assert new.grad is not None
    return result.loss.item(), new.grad.item(), bool(result.is_clipped_low), bool(result.is_clipped_high)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "low", "high"),
    [
        # positive advantage: only a ratio above 1.28 is cut
        (0.5, 1.0, -0.5, -0.5, False, False),
        (0.9, 1.0, -0.9, -0.9, False, False),
        (1.2, 1.0, -1.2, -1.2, False, False),
        (1.27, 2.0, -2.54, -2.54, False, False),
        (1.5, 1.0, -1.28, 0.0, False, True),
        # negative advantage: only a ratio below 0.8 is cut
        (0.5, -1.0, 0.8, 0.0, True, False),
        (0.9, -1.0, 0.9, 0.9, False, False),
        (1.2, -1.0, 1.2, 1.2, False, False),
        (1.5, -1.0, 1.5, 1.5, False, False),
        # no advantage
        (1.5, 0.0, 0.0, 0.0, False, False),
    ],
)
def test_clip_cases(ratio: float, advantage: float, loss: float, gradient: float, low: bool, high: bool):
    got = loss_of(ratio, advantage)
    assert got[:2] == pytest.approx((loss, gradient), abs=1e-12)
    assert got[2:] == (low, high)


def test_one_normaliser_over_the_tokens_of_the_step():
    """Three tokens in two micro-batches: -(1.1·1 + 0.9·1) / 3 and -(1.28·-1 …): a long rollout weighs by its tokens."""
    old = torch.zeros(2)
    first = clipped_token_loss(
        torch.log(torch.tensor([1.1, 0.9])), old, torch.ones(2), num_tokens=3, clip_low=0.2, clip_high=0.28
    )
    second = clipped_token_loss(
        torch.log(torch.tensor([1.5])), old[:1], -torch.ones(1), num_tokens=3, clip_low=0.2, clip_high=0.28
    )
    assert float(first.loss) == pytest.approx(-2.0 / 3)
    assert float(second.loss) == pytest.approx(1.5 / 3)
    whole = clipped_token_loss(
        torch.log(torch.tensor([1.1, 0.9, 1.5])),
        torch.zeros(3),
        torch.tensor([1.0, 1.0, -1.0]),
        num_tokens=3,
        clip_low=0.2,
        clip_high=0.28,
    )
    assert float(whole.loss) == pytest.approx(float(first.loss + second.loss))


def test_importance_weights_are_capped_and_without_gradient():
    old = torch.log(torch.tensor([0.5, 0.2, 0.9])).requires_grad_()
    sampler = torch.log(torch.tensor([0.25, 0.4, 0.1]))
    weights = importance_weights(old, sampler, cap=3.0)
    assert weights.tolist() == pytest.approx([2.0, 0.5, 3.0])
    assert not weights.requires_grad


def test_importance_weights_multiply_each_token_s_gain():
    logprobs = torch.log(torch.tensor([1.1, 1.5]))
    weights = torch.tensor([2.0, 0.5])
    result = clipped_token_loss(
        logprobs, torch.zeros(2), torch.ones(2), num_tokens=2, clip_low=0.2, clip_high=0.28, weights=weights
    )
    assert float(result.loss) == pytest.approx(-(1.1 * 2 + 1.28 * 0.5) / 2)


def test_metrics_are_means_over_all_tokens_of_all_micro_batches():
    sampler = torch.log(torch.tensor([0.5, 0.25, 0.5, 0.125]))
    old = sampler + torch.tensor([0.1, -0.1, 0.0, 0.2])
    new = old + torch.log(torch.tensor([0.5, 1.5, 1.0, 2.0]))
    advantages = torch.tensor([-1.0, 1.0, 1.0, -1.0])
    sums = TokenSums()
    for part in (slice(0, 1), slice(1, 4)):
        result = clipped_token_loss(new[part], old[part], advantages[part], num_tokens=4, clip_low=0.2, clip_high=0.28)
        sums = sums.plus(token_sums(result, sampler[part], old[part] if part.start else None))
    metrics = sums.metrics()
    assert metrics["clip_low_share"] == 0.25
    assert metrics["clip_high_share"] == 0.25
    assert metrics["ratio_mean"] == pytest.approx((0.5 + 1.5 + 1.0 + 2.0) / 4)
    assert metrics["entropy"] == pytest.approx(math.log(2) * (1 + 2 + 1 + 3) / 4)
    assert metrics["logprob_gap_mean"] == pytest.approx((0.1 + 0.0 + 0.2) / 3, rel=1e-5)  # the three that were compared
    assert sums.loss == pytest.approx(-(-0.8 + 1.28 + 1.0 - 2.0) / 4)
