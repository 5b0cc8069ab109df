"""The forward pass of training on CPUs, for Qwen2 and Qwen3 (paper, section 3.3: the loss is of the policy's own tokens alone).

It gives the numbers of transformers but for rounding (in bfloat16 its errors are those of transformers with `eager` attention),
and takes less time: norms, rotation and attention are functions with a backward pass of their own, which read and write memory
fewer times, and behind the keys and values of the last layer it goes on only where a token of the policy is predicted.

One row of tokens, of which the policy wrote those at 2, 3 and 5, and one of which it wrote that at 1:

    mask     0 0 1 1 0 1 | 0 1 0 0 0 0
    predicts 0 1 1 0 1 0 | 1 0 0 0 0 0       position t-1 predicts token t
    chosen   1 2 4       | 0 1 2             as many in each row; here two too many in the second, which are dropped at the end
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

from webdancer.train.attention import QueryBlock, attend, query_blocks
from webdancer.train.batches import ROUND, Batch

_MAX_KEPT_BYTES = 1 << 30
"""Of attention's probabilities, in all layers together. Torch's attention, which keeps none, takes batches with more."""


def can_run(model: nn.Module, batch: Batch) -> bool:
    """Whether `hidden_states` is made for the model and the batch.

    It is not for other families and variants, for adapters, shards, checkpointed activations, or another device than the CPU.
    """
    if type(model) not in (Qwen2ForCausalLM, Qwen3ForCausalLM) or batch.token_ids.device.type != "cpu":
        return False
    causal: Any = model
    config, layers = causal.config, causal.model.layers
    is_plain = (
        config.hidden_act == "silu"
        and not config.attention_dropout
        and getattr(config, "is_causal", True)
        and set(config.layer_types) == {"full_attention"}
    )
    attentions = [layer.self_attn for layer in layers]
    projections = [projection for each in attentions for projection in (each.q_proj, each.k_proj, each.v_proj)]
    return (
        is_plain
        and not causal.is_activation_checkpointing
        and not any(isinstance(layer, FSDPModule) for layer in layers)
        and all(type(projection) is nn.Linear for projection in projections)
    )


class _Shared(NamedTuple):
    """What the layers of a pass have in common."""

    cos: Tensor  # [T, d]
    sin: Tensor  # [T, d], its first half negative
    eps: float
    num_heads: int
    num_kv_heads: int
    head_dim: int


class _Chosen(NamedTuple):
    """The positions at which the last layer goes on."""

    rows: Tensor  # [B, 1]
    positions: Tensor  # [B, n]
    is_wanted: Tensor  # [B, n]; False where a row has fewer

    @classmethod
    def of(cls, mask: Tensor) -> "_Chosen":
        predicts = mask.roll(-1, 1)  # a first token is nobody's
        counts = predicts.sum(1, keepdim=True)
        num = min(mask.shape[1], -(-int(counts.max()) // ROUND) * ROUND)
        positions = predicts.sort(dim=1, descending=True, stable=True).indices[:, :num]
        return cls(torch.arange(len(mask))[:, None], positions, torch.arange(num) < counts)


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """[N, hidden] behind the last norm, where the batch's masked tokens are predicted, row by row."""
    body: Any = model.model
    config: Any = model.config
    num_rows, length = batch.token_ids.shape
    x = body.embed_tokens(batch.token_ids)  # [B, T, hidden]
    positions = torch.arange(length)[None]
    cos, sin = body.rotary_emb(x, positions)  # [1, T, d] each, twice the same half
    half = sin.shape[-1] // 2
    *layers, last = body.layers
    shared = _Shared(
        cos=cos[0],
        sin=torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1),
        eps=config.rms_norm_eps,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=last.self_attn.head_dim,
    )
    num_bytes = num_rows * shared.num_heads * length * x.element_size()  # of a query's probabilities
    blocks = None
    if len(body.layers) * num_bytes * length <= _MAX_KEPT_BYTES and not _torch_attends_better(x.dtype):
        blocks = query_blocks(positions, num_keys=length, dtype=x.dtype)
    for layer in layers:
        x = x + layer.self_attn.o_proj(_attention(layer, x, shared, blocks))
        x = x + _feed_forward(layer, x, shared.eps)
    chosen = _Chosen.of(batch.mask)
    blocks = None
    if num_bytes * chosen.positions.shape[1] <= _MAX_KEPT_BYTES:
        blocks = query_blocks(chosen.positions, num_keys=length, dtype=x.dtype)
    attended = _attention(last, x, shared, blocks, chosen)
    x = x[chosen.rows, chosen.positions] + last.self_attn.o_proj(attended)
    x = x + _feed_forward(last, x, shared.eps)
    return _rms_norm(x[chosen.is_wanted], body.norm.weight, shared.eps)


def _torch_attends_better(dtype: torch.dtype) -> bool:
    """In float32 it is as fast as ours and keeps less; in bfloat16 ours is faster, with AMX and far more so without."""
    return dtype != torch.bfloat16


def _attention(
    layer: Any, x: Tensor, shared: _Shared, blocks: Sequence[QueryBlock] | None, chosen: _Chosen | None = None
) -> Tensor:
    """What the heads read [B, n, H d], at all positions of x [B, T, hidden] or at the chosen ones.

    Args:
        blocks: of the queries; None for torch's attention.
    """
    attention = layer.self_attn
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([projection.weight for projection in projections])
    bias = None if attention.q_proj.bias is None else torch.cat([projection.bias for projection in projections])
    qkv = F.linear(_rms_norm(x, layer.input_layernorm.weight, shared.eps), weight, bias)
    is_normed = hasattr(attention, "q_norm")
    q_norm, k_norm = (attention.q_norm.weight, attention.k_norm.weight) if is_normed else (None, None)
    q, k, v = _split_heads(qkv, q_norm, k_norm, shared)
    group = shared.num_heads // shared.num_kv_heads
    if group > 1:
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    if chosen is not None and blocks is not None:
        q = q[:, chosen.rows, chosen.positions]
    if blocks is not None:
        attended = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), blocks).view(q.shape)
    else:
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
        if chosen is not None:
            attended = attended[:, chosen.rows, chosen.positions]
    return attended.permute(1, 2, 0, 3).flatten(2)


def _feed_forward(layer: Any, x: Tensor, eps: float) -> Tensor:
    mlp = layer.mlp
    x = _rms_norm(x, layer.post_attention_layernorm.weight, eps)
    output: Tensor = mlp.down_proj(F.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    return output


class _Normed(NamedTuple):
    values: Tensor
    """x over the root mean square of its last dimension, [..., d]."""
    inverse: Tensor
    """What x was multiplied with, [..., 1]."""


def _normed(x: Tensor, eps: float) -> _Normed:
    """Worked out in float32 at least."""
    wide_type = torch.promote_types(x.dtype, torch.float32)
    wide = x.to(wide_type, copy=True, memory_format=torch.contiguous_format)
    squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
    inverse = squares.div_(x.shape[-1]).add_(eps).rsqrt_()
    return _Normed(wide.mul_(inverse).to(x.dtype), inverse.to(x.dtype))


def _grad_through_norm(grad: Tensor, normed: _Normed) -> Tensor:
    """The gradient of x from that of `normed.values`, in whose place it is written."""
    along = (grad * normed.values).mean(-1, keepdim=True)
    return grad.sub_(normed.values * along).mul_(normed.inverse)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed = _normed(x, eps)
        ctx.save_for_backward(*normed, weight)
        return normed.values * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        *saved, weight = ctx.saved_tensors
        normed = _Normed(*saved)
        grad_weight = (grad * normed.values).flatten(0, -2).sum(0)
        return _grad_through_norm(grad * weight, normed), grad_weight, None


_rms_norm: Callable[[Tensor, Tensor, float], Tensor] = _RmsNorm.apply
"""x [..., d] over its root mean square, times the weight [d]."""


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, shared: _Shared
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_q, num_kv = shared.num_heads, shared.num_kv_heads
        heads = qkv.view(*qkv.shape[:2], -1, shared.head_dim).permute(2, 0, 1, 3)  # [H + 2K, B, T, d]
        qk, scale = heads[: num_q + num_kv], shared.head_dim**-0.5
        if q_norm is not None and k_norm is not None:
            normed = _normed(qk, shared.eps)
            weight = torch.stack([q_norm * scale] * num_q + [k_norm] * num_kv)[:, None, None]
            ctx.save_for_backward(*normed, weight)
            qk = normed.values * weight
        rotated = _rotated(qk, shared.cos, shared.sin)
        q, k = rotated[:num_q], rotated[num_q:]
        if q_norm is None:
            q.mul_(scale)
        ctx.shared, ctx.shape = shared, qkv.shape
        return q, k, heads[num_q + num_kv :].contiguous()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        shared: _Shared = ctx.shared
        num_q, scale = shared.num_heads, shared.head_dim**-0.5
        grad_qk = torch.empty((num_q + len(grad_k), *grad_q.shape[1:]), dtype=grad_q.dtype)
        _rotated(grad_q, shared.cos, -shared.sin, out=grad_qk[:num_q])
        _rotated(grad_k, shared.cos, -shared.sin, out=grad_qk[num_q:])
        grad_q_norm = grad_k_norm = None
        if ctx.saved_tensors:
            *saved, weight = ctx.saved_tensors
            normed = _Normed(*saved)
            grad_weight = (grad_qk * normed.values).sum((1, 2))  # [H + K, d]
            grad_q_norm, grad_k_norm = grad_weight[:num_q].sum(0) * scale, grad_weight[num_q:].sum(0)
            grad_qk = _grad_through_norm(grad_qk.mul_(weight), normed)
        else:
            grad_qk[:num_q] *= scale
        grad_qkv = torch.empty(ctx.shape, dtype=grad_q.dtype)
        grad_heads = grad_qkv.view(*ctx.shape[:2], -1, shared.head_dim).permute(2, 0, 1, 3)
        grad_heads[: len(grad_qk)] = grad_qk
        grad_heads[len(grad_qk) :] = grad_v
        return grad_qkv, grad_q_norm, grad_k_norm, None


_split_heads: Callable[[Tensor, Tensor | None, Tensor | None, _Shared], tuple[Tensor, Tensor, Tensor]] = (
    _SplitHeads.apply
)
"""The joint projection [B, T, (H + 2K) d] to q [H, B, T, d], k and v [K, B, T, d].

Queries and keys are normed where there are weights [d] for it, and rotated; queries are scaled for attention.
"""


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor | None = None) -> Tensor:
    """Rotary embedding: x [..., T, d], whose pairs are its halves, turned by the angles of `_Shared`'s cos and sin."""
    swapped = x.roll(x.shape[-1] // 2, -1)
    return torch.mul(x, cos, out=out).addcmul_(swapped, sin)
