"""Causal attention of training on CPUs, in blocks of queries by plain matrix products (part of `cpu_forward.py`).

Its probabilities are kept for the backward pass, where torch's own attention works them out anew. A block of queries is
multiplied with the keys up to its last query; scores of keys that come behind a query are masked. Queries may be any of a
row's positions. Two rows, keys at 0 to 5, queries at 1 2 4 and at 0 3 5, blocks of two:

    block 0: queries 1 2 | 0 3, reads keys 0 to 3, of which 0 to 3 are masked:   0 0 - - | 0 - - -
                                                                                 0 0 0 - | 0 0 0 0
    block 1: queries 4 | 5, reads keys 0 to 5, of which 4 and 5 are masked:      0 - | 0 0
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from webdancer.train.batches import ROUND

_BLOCK = 256
"""Queries of a block."""


class QueryBlock(NamedTuple):
    """Queries `start` to `end`, which read the first `num_keys` keys."""

    start: int
    end: int
    num_keys: int
    mask: Tensor
    """[B, end - start, m], added to the scores of the last m of those keys: -inf where the key comes behind the query."""


def query_blocks(positions: Tensor, *, num_keys: int, dtype: torch.dtype) -> list[QueryBlock]:
    """The blocks of queries at `positions` [B, n]; B may be 1 for any number of rows with the same.

    A block's keys are rounded up to a multiple of `ROUND`, for there had better be few shapes.
    """
    blocks = []
    for start in range(0, positions.shape[1], _BLOCK):
        own = positions[:, start : start + _BLOCK]
        first, last = int(own.min()), int(own.max())
        end = min(num_keys, -(-(last + 1) // ROUND) * ROUND)
        is_behind = torch.arange(first, end) > own[:, :, None]
        mask = torch.zeros(is_behind.shape, dtype=dtype).masked_fill_(is_behind, -torch.inf)
        blocks.append(QueryBlock(start, start + own.shape[1], end, mask))
    return blocks


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: Sequence[QueryBlock]) -> Tensor:
        attended, kept = torch.empty_like(q), []
        for start, end, num_keys, mask in blocks:
            scores = torch.bmm(q[:, start:end], k[:, :num_keys].mT)  # [R, end - start, num_keys]
            scores.view(-1, *mask.shape[:2], num_keys)[..., num_keys - mask.shape[-1] :] += mask
            probabilities = scores.softmax(-1)
            attended[:, start:end] = torch.bmm(probabilities, v[:, :num_keys])
            if any(ctx.needs_input_grad):
                kept.append(probabilities)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.blocks = blocks
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (start, end, num_keys, _), probabilities in zip(ctx.blocks, kept, strict=True):
            grad_attended = grad[:, start:end].contiguous()  # both products below would make it so
            grad_probabilities = torch.bmm(grad_attended, v[:, :num_keys].mT)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_probabilities, probabilities, -1, q.dtype)
            grad_q[:, start:end] = torch.bmm(grad_scores, k[:, :num_keys])
            grad_k[:, :num_keys] += torch.bmm(grad_scores.mT, q[:, start:end])
            grad_v[:, :num_keys] += torch.bmm(probabilities.mT, grad_attended)
        return grad_q, grad_k, grad_v, None


attend: Callable[[Tensor, Tensor, Tensor, Sequence[QueryBlock]], Tensor] = _BlockAttention.apply
"""Queries [R, n, d], already scaled, keys and values [R, T, d] and the blocks of the queries to what these read [R, n, d].

R is of heads and rows, the rows varying fastest.
"""
