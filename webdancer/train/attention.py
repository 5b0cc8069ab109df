"""Causal attention of training in blocks of queries, by plain matrix products.

On processors that multiply bfloat16 without AMX it takes half the time of torch's own, which makes the probabilities again in
the backward pass; here they are kept. A block sees the keys up to its last query; scores of later ones are masked.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK = 256
"""Queries of a block."""


class Block(NamedTuple):
    """Queries `start` to `end`, which read the first `num_keys` keys."""

    start: int
    end: int
    num_keys: int
    mask: Tensor
    """[P, end - start, m], added to the scores of the last m of those keys: -inf where the key comes behind the query."""


def blocks_of(positions: Tensor, *, num_keys: int, dtype: torch.dtype, multiple_of: int) -> list[Block]:
    """The blocks of queries at `positions` [P, n], where rows take turns: row r has the positions of row r modulo P.

    Args:
        multiple_of: the keys of a block are rounded up to it.
    """
    blocks = []
    for start in range(0, positions.shape[1], _BLOCK):
        own = positions[:, start : start + _BLOCK]
        first, last = int(own.min()), int(own.max())
        end = min(num_keys, -(-(last + 1) // multiple_of) * multiple_of)
        hidden = torch.arange(first, end) > own[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)
        blocks.append(Block(start, start + own.shape[1], end, mask))
    return blocks


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: Sequence[Block]) -> Tensor:
        mixed, kept = torch.empty_like(q), []
        for start, end, num_keys, mask in blocks:
            scores = torch.bmm(q[:, start:end], k[:, :num_keys].mT)  # [R, end - start, num_keys]
            scores.view(-1, *mask.shape[:2], num_keys)[..., num_keys - mask.shape[-1] :] += mask
            probabilities = scores.softmax(-1)
            mixed[:, start:end] = torch.bmm(probabilities, v[:, :num_keys])
            kept.append(probabilities)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.blocks = blocks
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (start, end, num_keys, _), probabilities in zip(ctx.blocks, kept, strict=True):
            of_mixed = gradient[:, start:end]
            of_probabilities = torch.bmm(of_mixed, v[:, :num_keys].mT)
            of_scores = torch._softmax_backward_data(of_probabilities, probabilities, -1, q.dtype)
            of_q[:, start:end] = torch.bmm(of_scores, k[:, :num_keys])
            of_k[:, :num_keys] += torch.bmm(of_scores.mT, q[:, start:end])
            of_v[:, :num_keys] += torch.bmm(probabilities.mT, of_mixed)
        return of_q, of_k, of_v, None


attend: Callable[[Tensor, Tensor, Tensor, Sequence[Block]], Tensor] = _BlockAttention.apply
"""Queries [R, n, d], already scaled, keys and values [R, T, d] and the blocks of the queries to what these read [R, n, d]."""
