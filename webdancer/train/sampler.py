"""Sampling of tokens: temperature and nucleus, from random streams that are each request's own.

The random number of a token is a hash of (seed of the request, number of the token): what a request draws does not depend on
which others run beside it, and a step costs one vectorised hash. A number picks its token from the cumulative distribution.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_NUM_TOP = 128
"""The nucleus is looked for among so many tokens first; sorting a whole vocabulary is slow."""


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
        temperatures: [B]; 0 takes the likeliest token, whose log-probability is then that at temperature 1.
        top_ps: [B]; the smallest set of likeliest tokens that holds so much probability is sampled from.
        numbers: [B] from `uniforms`.
    """
    greedy, nucleus = temperatures == 0, top_ps < 1
    scale = torch.from_numpy(np.where(greedy, np.float32(1), temperatures)).to(logits.device)
    uniform = torch.from_numpy(numbers).to(logits.device)
    log_p = (logits / scale[:, None]).log_softmax(-1)
    kinds = ((greedy, _likeliest), (~greedy & ~nucleus, _from_all))
    ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(len(logits), device=logits.device)
    for chosen, draw in kinds:
        if chosen.all():
            return draw(log_p, uniform)
        if chosen.any():
            rows = torch.from_numpy(chosen.nonzero()[0]).to(logits.device)
            ids[rows], logprobs[rows] = draw(log_p[rows], uniform[rows])
    chosen = ~greedy & nucleus
    if chosen.any():
        rows = torch.from_numpy(chosen.nonzero()[0]).to(logits.device)
        bounds = torch.from_numpy(top_ps[chosen]).to(logits.device)
        ids[rows], logprobs[rows] = _from_nucleus(log_p[rows], uniform[rows], bounds)
    return Sampled(ids, logprobs)


def _likeliest(log_p: Tensor, uniform: Tensor) -> Sampled:
    best = log_p.max(-1)
    return Sampled(best.indices, best.values)


def _from_all(log_p: Tensor, uniform: Tensor) -> Sampled:
    ids = _pick(log_p.exp(), uniform)
    return Sampled(ids[:, 0], log_p.gather(1, ids)[:, 0])


def _from_nucleus(log_p: Tensor, uniform: Tensor, top_p: Tensor) -> Sampled:
    """The nucleus is what has less than `top_p` of probability before it, in falling order."""
    top = log_p.topk(min(_NUM_TOP, log_p.shape[1]), dim=-1)
    if bool((top.values.exp().sum(-1) < top_p).any()):
        top = log_p.topk(log_p.shape[1], dim=-1)
    p = top.values.exp()
    before = p.cumsum(-1) - p
    p = p.masked_fill(before >= top_p[:, None], 0)
    places = _pick(p, uniform)
    logprobs = top.values.gather(1, places)[:, 0] - p.sum(-1).log()
    return Sampled(top.indices.gather(1, places)[:, 0], logprobs)


def _pick(p: Tensor, uniform: Tensor) -> Tensor:
    """[B, 1]: the first place where the cumulative sum exceeds `uniform` times the total; one without probability never."""
    cumulative = p.cumsum(-1)
    # `uniform` is at most 1 - 2^-23, so that its product with the total is less than the total, also in float32.
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
