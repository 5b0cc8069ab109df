"""DAPO without any input or output: advantages, the dynamic-sampling filter, the clipped token loss (paper, section 4).

    J = E[ 1/Σ|o_i| · Σ_i Σ_t min( r_it·A_i , clip(r_it, 1-ε_low, 1+ε_high)·A_i ) ],   subject to 0 < #right < G

r_it is the ratio of the trained policy to the one that sampled token t; A_i is rollout i's reward against its group's. No KL
term, no entropy bonus. Departures from the formula, both as TRL computes it (verl: 1e-6 in place of 1e-4): the standard
deviation is the sample's (G - 1 in the denominator), because a group is a sample of what the policy would earn, and 1e-4 is
added to it, so that a group without any spread has the advantage 0.

Tokens are flat vectors [N]: the N tokens that the policy sampled, of all rollouts of a micro-batch one after the other.
Worked example, ε 0.2/0.28 (the same as in the tests; a dash where the gradient is cut):

    ratio        0.5     0.9     1.2     1.5
    A = +1       0.5     0.9     1.2     1.28 -     going up too far is cut
    A = -1      -0.8 -  -0.9    -1.2    -1.5        going down too far is cut; a step the wrong way never is
"""

import statistics
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

STD_EPSILON = 1e-4
"""Added to a group's standard deviation, as in TRL."""


def group_advantages(rewards: Sequence[float]) -> list[float]:
    """(R - mean R) / (std R + 1e-4) of each rollout of one group; all 0 where the rewards do not differ.

    Raises:
        ValueError: fewer than two rollouts; they have no spread to be measured by.
    """
    if len(rewards) < 2:
        raise ValueError(f"got a group of {len(rewards)} rollouts, expected at least 2")
    if max(rewards) == min(rewards):
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    spread = statistics.stdev(rewards) + STD_EPSILON
    return [(reward - mean) / spread for reward in rewards]


class GroupSignal(StrEnum):
    """What the answers of one group can teach."""

    MIXED = "mixed"
    ALL_RIGHT = "all_right"
    ALL_WRONG = "all_wrong"


def group_signal(is_right: Sequence[bool]) -> GroupSignal:
    """Whether 0 < #right < G. It goes by the answers alone: rewards may differ by format or length where no answer does."""
    if all(is_right):
        return GroupSignal.ALL_RIGHT
    return GroupSignal.MIXED if any(is_right) else GroupSignal.ALL_WRONG


def overlong_punishment(num_tokens: int, *, max_tokens: int, buffer: int) -> float:
    """DAPO's soft overlong punishment, added to the reward: 0 up to `max_tokens - buffer`, then down to -1 at `max_tokens`."""
    over = num_tokens - (max_tokens - buffer)
    return -min(1.0, max(0.0, over / buffer))


def importance_weights(old_logprobs: Tensor, sampler_logprobs: Tensor, *, cap: float) -> Tensor:
    """Truncated importance weights min(π_trainer_old / π_sampler, cap) [N], without gradient.

    They correct for an engine whose numbers differ from the trainer's at the same weights.
    """
    return torch.exp(old_logprobs - sampler_logprobs).clamp(max=cap).detach()


class TokenLoss(NamedTuple):
    """The loss of one micro-batch, and what it did to each token."""

    loss: Tensor
    """[]: this micro-batch's share of the optimizer step's loss; shares add up."""
    ratios: Tensor
    """[N] without gradient: π_θ / π_θ_old."""
    is_clipped_low: Tensor
    """[N] bool: the ratio is below 1 - ε_low and the advantage negative, so that the token has no gradient."""
    is_clipped_high: Tensor
    """[N] bool: the ratio is above 1 + ε_high and the advantage positive."""


def clipped_token_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    num_tokens: int,
    clip_low: float,
    clip_high: float,
    weights: Tensor | None = None,
) -> TokenLoss:
    """The negative of the paper's objective over one micro-batch's sampled tokens.

    Args:
        logprobs: [N] of the policy in training, with gradient.
        old_logprobs: [N] of the policy that sampled.
        advantages: [N], each token its rollout's.
        num_tokens: the one normaliser: sampled tokens of the whole optimizer step, over all micro-batches and processes.
        weights: [N] importance weights, if any.
    """
    ratios = torch.exp(logprobs - old_logprobs.detach())
    clipped = ratios.clamp(1 - clip_low, 1 + clip_high)
    gains = torch.minimum(ratios * advantages, clipped * advantages)
    if weights is not None:
        gains = gains * weights
    loss = -gains.sum() / num_tokens
    ratios = ratios.detach()
    return TokenLoss(
        loss,
        ratios,
        is_clipped_low=(ratios < 1 - clip_low) & (advantages < 0),
        is_clipped_high=(ratios > 1 + clip_high) & (advantages > 0),
    )


class TokenSums(NamedTuple):
    """Sums over sampled tokens, so that micro-batches and processes add up to the metrics of a step."""

    num_tokens: float = 0.0
    loss: float = 0.0
    ratio: float = 0.0
    clipped_low: float = 0.0
    clipped_high: float = 0.0
    surprise: float = 0.0
    """Of -log π_sampler(token); its mean estimates the entropy of the distributions that the tokens were drawn from."""
    num_compared: float = 0.0
    """Tokens whose log-probability the trainer has computed at the sampler's weights."""
    gap: float = 0.0
    """Of |log π_trainer_old - log π_sampler| over those."""

    def plus(self, other: "TokenSums") -> "TokenSums":
        """Both together."""
        return TokenSums(*(a + b for a, b in zip(self, other, strict=True)))

    def metrics(self) -> dict[str, float]:
        """Means per token; the clip shares count the tokens that lost their gradient to the clip."""
        tokens, compared = max(1.0, self.num_tokens), max(1.0, self.num_compared)
        return {
            "ratio_mean": self.ratio / tokens,
            "clip_low_share": self.clipped_low / tokens,
            "clip_high_share": self.clipped_high / tokens,
            "entropy": self.surprise / tokens,
            "logprob_gap_mean": self.gap / compared,
        }


def token_sums(result: TokenLoss, sampler_logprobs: Tensor, old_logprobs: Tensor | None) -> TokenSums:
    """The sums of one micro-batch; `old_logprobs` are the trainer's at the sampler's weights, where it has them."""
    gap = torch.zeros(()) if old_logprobs is None else (old_logprobs.detach() - sampler_logprobs).abs().sum()
    return TokenSums(
        num_tokens=float(result.ratios.numel()),
        loss=float(result.loss.detach()),
        ratio=float(result.ratios.sum()),
        clipped_low=float(result.is_clipped_low.sum()),
        clipped_high=float(result.is_clipped_high.sum()),
        surprise=-float(sampler_logprobs.sum()),
        num_compared=0.0 if old_logprobs is None else float(old_logprobs.numel()),
        gap=float(gap),
    )
