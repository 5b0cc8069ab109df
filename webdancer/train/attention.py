"""Causal attention for training in bfloat16 on a CPU, where torch's fused kernel takes half of a small model's time.

Blocks of queries, each against the keys up to its end, with plain matrix products, which CPUs with bfloat16 instructions
do fast; heads that share their keys are one product. The probabilities are kept for the backward pass (the fused kernel
computes them again), so memory grows with B·heads·T²: from `_MAX_LENGTH` tokens on the fused kernel is taken.

    queries 0-63    against keys 0-63      (lower triangle)
    queries 64-127  against keys 0-127     (all of 0-63, lower triangle of 64-127)
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BLOCKED = "webdancer_blocked"
"""Name of this attention for `attn_implementation`."""

_BLOCK = 64
"""Queries in a block; 64 to 128 were fastest."""
_MAX_LENGTH = 4096
_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose attention is nothing but causal softmax attention."""


def use_blocked_attention(model: PreTrainedModel) -> bool:
    """Let a model on a CPU use this attention, where its family allows; says whether it does."""
    fits = model.config.model_type in _FAMILIES
    if fits:
        model.set_attn_implementation(BLOCKED)
    return fits


class _BlockedCausal(torch.autograd.Function):
    """Query [B, G, R, T, D] (R heads for each of G key heads), key and value [B, G, T, D] → [B, G, R, T, D]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        batch, groups, repeats, length, size = query.shape
        scaled = query * scale
        keys, values = key.reshape(-1, length, size), value.reshape(-1, length, size)
        out = torch.empty_like(scaled)
        probabilities = []
        for start in range(0, length, _BLOCK):
            end = min(length, start + _BLOCK)
            rows = scaled[:, :, :, start:end].reshape(batch * groups, -1, size)
            scores = torch.bmm(rows, keys[:, :end].transpose(1, 2)).view(-1, repeats, end - start, end)
            scores[..., start:] += _future(end - start, scores.dtype)
            shares = torch.softmax(scores, dim=-1).view(batch * groups, -1, end)
            mixed = torch.bmm(shares, values[:, :end])
            out[:, :, :, start:end] = mixed.view(batch, groups, repeats, end - start, size)
            probabilities.append(shares)
        ctx.save_for_backward(scaled, keys, values, *probabilities)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (grad,) = gradients
        scaled, keys, values, *probabilities = ctx.saved_tensors
        batch, groups, repeats, length, size = scaled.shape
        grad_query = torch.empty_like(scaled)
        grad_key = torch.zeros(keys.shape, dtype=torch.float32)
        grad_value = torch.zeros(values.shape, dtype=torch.float32)
        for number, shares in enumerate(probabilities):
            start, end = number * _BLOCK, min(length, (number + 1) * _BLOCK)
            rows = scaled[:, :, :, start:end].reshape(batch * groups, -1, size)
            grad_rows = grad[:, :, :, start:end].reshape(batch * groups, -1, size)
            grad_value[:, :end] += torch.bmm(shares.transpose(1, 2), grad_rows)
            grad_shares = torch.bmm(grad_rows, values[:, :end].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_shares, shares, -1, shares.dtype)
            grad_key[:, :end] += torch.bmm(grad_scores.transpose(1, 2), rows)
            mixed = torch.bmm(grad_scores, keys[:, :end]) * ctx.scale
            grad_query[:, :, :, start:end] = mixed.view(batch, groups, repeats, end - start, size)
        shape = (batch, groups, length, size)
        return grad_query, grad_key.to(keys.dtype).view(shape), grad_value.to(values.dtype).view(shape), None


def _future(length: int, dtype: torch.dtype) -> Tensor:
    """[length, length]: -inf where the key comes after the query."""
    return torch.full((length, length), float("-inf"), dtype=dtype).triu(1)


def blocked_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as transformers calls it: query [B, H, T, D], key and value [B, G, T, D] → [B, T, H, D].

    Anything but plain causal attention in bfloat16 on a CPU goes to torch's own.
    """
    batch, heads, length, size = query.shape
    plain = attention_mask is None and dropout == 0.0 and key.shape[2] == length and value.shape[3] == size
    window = kwargs.get("sliding_window")
    plain &= getattr(module, "is_causal", False) and kwargs.get("is_causal") is not False
    plain &= window is None or window >= length
    plain &= query.dtype == torch.bfloat16 and query.device.type == "cpu" and length <= _MAX_LENGTH
    if not plain:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    groups = key.shape[1]
    out = _BlockedCausal.apply(  # type: ignore[no-untyped-call]
        query.reshape(batch, groups, heads // groups, length, size), key, value, scaling or size**-0.5
    )
    return out.view(batch, heads, length, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(BLOCKED, blocked_attention)
# As torch's own: no mask at all where causality says everything, the full one for padding on the left.
AttentionMaskInterface.register(BLOCKED, sdpa_mask)
