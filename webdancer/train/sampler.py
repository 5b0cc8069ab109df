"""Sampling of tokens: temperature and nucleus, from random streams that are each request's own.

The random number of a token is a hash of (seed of the request, number of the token): what a request draws does not depend on
which others run beside it, and a step costs one vectorised hash. A number picks its token from the cumulative distribution.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_NUM_TOP = 128
"""The nucleus is looked for among so many tokens first; sorting a whole vocabulary is slow."""
_RUN = 64
"""Places of a cumulative sum that are summed first."""
_GREEDY_BELOW = 1e-5
"""A temperature so low leaves no choice, and scores divided by it leave the range of float32."""
_NUM_AT_ONCE = 32
"""Rows, so that their logits stay in the CPU's cache."""


class Sampled(NamedTuple):
    """One token per row."""

    ids: Tensor  # [B] int64
    logprobs: Tensor  # [B] float32, under the distribution that the token was drawn from


def mix(value: int) -> int:
    """A hash of 64 bits (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def turn_seed(seed: int, turn: int) -> int:
    """The seed of an episode's turn `turn` (from 0)."""
    return mix(mix(seed) ^ turn)


def uniforms(keys: npt.NDArray[np.uint64], counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    """Numbers in [0, 1), multiples of 2^-23: the `counters`-th of the streams `keys`."""
    value = keys + (counters + np.uint64(1)) * np.uint64(_GOLDEN)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    numbers: npt.NDArray[np.float32] = np.multiply(value >> np.uint64(41), 2.0**-23, dtype=np.float32)
    return numbers


@torch.inference_mode()
def sample(
    logits: Tensor,
    temperatures: npt.NDArray[np.float32],
    top_ps: npt.NDArray[np.float32],
    numbers: npt.NDArray[np.float32],
) -> Sampled:
    """One token per row of `logits` [B, V].

    Args:
        temperatures: [B]; 0 (below 1e-5) takes the likeliest token, whose log-probability is then that at temperature 1.
        top_ps: [B]; the smallest set of likeliest tokens that holds so much probability is sampled from.
        numbers: [B] from `uniforms`.
    """
    ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(len(logits), device=logits.device)
    kinds = np.where(temperatures < _GREEDY_BELOW, 0, np.where(top_ps < 1, 2, 1))
    for kind in range(3):
        chosen = (kinds == kind).nonzero()[0]
        for start in range(0, len(chosen), _NUM_AT_ONCE):
            rows = chosen[start : start + _NUM_AT_ONCE]
            at = torch.from_numpy(rows).to(logits.device)
            scores = logits[at].float()
            uniform = torch.from_numpy(numbers[rows]).to(logits.device)
            if kind and (temperatures[rows] != 1).any():
                scores /= torch.from_numpy(temperatures[rows]).to(logits.device)[:, None]
            p = scores.softmax(-1)
            if kind == 2:
                ids[at], logprobs[at] = _from_nucleus(p, uniform, torch.from_numpy(top_ps[rows]).to(logits.device))
            else:
                picked = _pick(p, uniform) if kind else p.argmax(-1, keepdim=True)
                ids[at], logprobs[at] = picked[:, 0], p.gather(1, picked)[:, 0].log()
    return Sampled(ids, logprobs)


def _from_nucleus(p: Tensor, uniform: Tensor, top_p: Tensor) -> Sampled:
    """The nucleus is what has less than `top_p` of probability before it, in falling order; the likeliest always is."""
    top = p.topk(min(_NUM_TOP, p.shape[1]), dim=-1)
    if bool((top.values.sum(-1) < top_p).any()):
        top = p.topk(p.shape[1], dim=-1)
    before = top.values.cumsum(-1) - top.values
    nucleus = top.values.masked_fill(before >= top_p[:, None], 0)
    nucleus[:, 0] = top.values[:, 0]
    places = _pick(nucleus, uniform)
    logprobs = (nucleus.gather(1, places)[:, 0] / nucleus.sum(-1)).log()
    return Sampled(top.indices.gather(1, places)[:, 0], logprobs)


def _pick(p: Tensor, uniform: Tensor) -> Tensor:
    """[B, 1]: the first place where the cumulative sum exceeds `uniform` times the total; one without probability never.

    Runs of places are summed first and one of them is chosen: a cumulative sum over a whole vocabulary is slow.
    """
    runs = F.pad(p, (0, -p.shape[1] % _RUN)).view(len(p), -1, _RUN)
    sums = runs.sum(-1)
    cumulative = sums.cumsum(-1)
    # `uniform` is at most 1 - 2^-23, so that its product with the total is less than the total, also in float32.
    target = uniform[:, None] * cumulative[:, -1:]
    run = torch.searchsorted(cumulative, target, right=True)
    within = runs.gather(1, run[:, :, None].expand(-1, -1, _RUN))[:, 0].cumsum(-1)
    rest = target - cumulative.gather(1, run) + sums.gather(1, run)
    # Sums of different order round differently: what is left is kept within the run.
    rest = rest.clamp_(min=0).minimum(within[:, -1:] * (1 - 2**-23))
    return run * _RUN + torch.searchsorted(within, rest, right=True)
