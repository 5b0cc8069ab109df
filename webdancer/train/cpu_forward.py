"""The forward pass of training on CPUs, for Qwen2 and Qwen3 (paper, section 3.3: the loss is of the policy's own tokens alone).

The same numbers as transformers' but for rounding, in half the time: norms, rotation and attention each as one function with
a backward pass of its own, which read and write memory fewer times, and the last layer only where a token of the policy is
predicted, a third of the positions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

from webdancer.train.attention import Block, attend, blocks_of
from webdancer.train.batches import ROUND, Batch

_MAX_SCORES = 1 << 26
"""Of one layer, masked ones too: in bfloat16 64 MB of them are kept for the backward pass. Longer batches go to transformers."""


def can_run(model: nn.Module, batch: Batch) -> bool:
    """Whether `hidden_states` is made for the model and the batch; adapters, shards, checkpointing and windows are not."""
    if type(model) not in (Qwen2ForCausalLM, Qwen3ForCausalLM) or batch.token_ids.device.type != "cpu":
        return False
    config: Any = model.config
    rows, length = batch.token_ids.shape
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        return False
    if config.hidden_act != "silu" or config.attention_dropout or "sliding_attention" in config.layer_types:
        return False
    return not model.is_activation_checkpointing and rows * config.num_attention_heads * length**2 <= _MAX_SCORES


class _Shared(NamedTuple):
    """What the layers of a pass have in common."""

    cos: Tensor  # [T, d]
    sin: Tensor  # [T, d]
    eps: float
    num_heads: int
    num_kv_heads: int
    head_dim: int


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """[N, hidden] behind the last norm, where each of the batch's masked tokens is predicted, row by row."""
    body: Any = model.model
    config: Any = model.config
    length = batch.token_ids.shape[1]
    x = body.embed_tokens(batch.token_ids)  # [B, T, hidden]
    positions = torch.arange(length)[None]
    cos, sin = body.rotary_emb(x, positions)
    first = body.layers[0].self_attn
    heads = config.num_attention_heads, config.num_key_value_heads, first.head_dim
    shared = _Shared(cos[0], sin[0], config.rms_norm_eps, *heads)
    blocks = blocks_of(positions, num_keys=length, dtype=x.dtype, multiple_of=ROUND)
    *layers, last = body.layers
    for layer in layers:
        x = x + layer.self_attn.o_proj(_attention(layer, x, shared, blocks))
        x = x + _feed_forward(layer, x, shared.eps)
    # Position t-1 predicts token t. Rows with fewer such positions than the longest get others, which are dropped in the end.
    predicts = batch.mask.roll(-1, 1)
    counts = predicts.sum(1)
    most = min(length, -(-int(counts.max()) // ROUND) * ROUND)
    chosen = predicts.sort(dim=1, descending=True, stable=True).indices[:, :most]  # [B, n]
    blocks = blocks_of(chosen, num_keys=length, dtype=x.dtype, multiple_of=ROUND)
    rows = torch.arange(len(x))[:, None]
    mixed = _attention(last, x, shared, blocks, (rows, chosen))
    x = x[rows, chosen] + last.self_attn.o_proj(mixed)
    x = x + _feed_forward(last, x, shared.eps)
    return _rms_norm(x[torch.arange(most) < counts[:, None]], body.norm.weight, shared.eps)


def _attention(
    layer: Any, x: Tensor, shared: _Shared, blocks: Sequence[Block], chosen: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """What the heads read [B, n, H d], at all positions of x [B, T, hidden] or at the chosen ones."""
    part = layer.self_attn
    projections = (part.q_proj, part.k_proj, part.v_proj)
    weight = torch.cat([projection.weight for projection in projections])
    bias = None if part.q_proj.bias is None else torch.cat([projection.bias for projection in projections])
    joined = F.linear(_rms_norm(x, layer.input_layernorm.weight, shared.eps), weight, bias)
    q_norm, k_norm = (part.q_norm.weight, part.k_norm.weight) if hasattr(part, "q_norm") else (None, None)
    q, k, v = _split_heads(joined, q_norm, k_norm, shared)
    if chosen is not None:
        q = q[:, *chosen]
    group = shared.num_heads // shared.num_kv_heads
    if group > 1:
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    if chosen is None and _torch_attends_faster(x.dtype):
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    else:
        mixed = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), blocks).view(q.shape)
    return mixed.permute(1, 2, 0, 3).flatten(2)


def _torch_attends_faster(dtype: torch.dtype) -> bool:
    """Torch's attention is made for AMX; elsewhere ours takes half the time in bfloat16 and the same in float32."""
    return dtype == torch.bfloat16 and bool(torch.cpu.get_capabilities().get("amx_tile", False))


def _feed_forward(layer: Any, x: Tensor, eps: float) -> Tensor:
    mlp = layer.mlp
    x = _rms_norm(x, layer.post_attention_layernorm.weight, eps)
    read: Tensor = mlp.down_proj(F.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    return read


def _normed(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x over the root mean square of its last dimension, and the inverse of that; worked out in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
    squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide.dtype).square_()
    inverse = squares.div_(x.shape[-1]).add_(eps).rsqrt_()
    return wide.mul_(inverse).to(x.dtype), inverse.to(x.dtype)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, inverse = _normed(x, eps)
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, weight = ctx.saved_tensors
        of_weight = (gradient * normed).flatten(0, -2).sum(0)
        return _through_norm(gradient * weight, normed, inverse), of_weight, None


_rms_norm: Callable[[Tensor, Tensor, float], Tensor] = _RmsNorm.apply
"""x [..., hidden] over its root mean square, times the weight [hidden]."""


def _through_norm(gradient: Tensor, normed: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of x from that of `normed` = x · inverse(x), in place."""
    along = (gradient * normed).mean(-1, keepdim=True)
    return gradient.sub_(normed * along).mul_(inverse)


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, joined: Tensor, q_norm: Tensor | None, k_norm: Tensor | None, shared: _Shared
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_q, num_kv = shared.num_heads, shared.num_kv_heads
        heads = joined.view(*joined.shape[:2], -1, shared.head_dim).permute(2, 0, 1, 3)  # [H + 2K, B, T, d]
        qk = heads[: num_q + num_kv]
        if q_norm is not None and k_norm is not None:
            normed, inverse = _normed(qk, shared.eps)
            weight = torch.stack([q_norm] * num_q + [k_norm] * num_kv)[:, None, None]
            ctx.save_for_backward(normed, inverse, weight)
            qk = normed * weight
        ctx.shared, ctx.shape = shared, joined.shape
        rotated = _rotated(qk, shared.cos, shared.sin)
        q, k = rotated[:num_q], rotated[num_q:]
        return q.mul_(shared.head_dim**-0.5), k, heads[num_q + num_kv :].contiguous()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_q: Tensor, of_k: Tensor, of_v: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        shared: _Shared = ctx.shared
        num_q = shared.num_heads
        of_joined = torch.empty(ctx.shape, dtype=of_q.dtype)
        of_heads = of_joined.view(*ctx.shape[:2], -1, shared.head_dim).permute(2, 0, 1, 3)
        of_qk = torch.cat([of_q * shared.head_dim**-0.5, of_k])
        of_qk = _rotated(of_qk, shared.cos, -shared.sin)
        of_q_norm = of_k_norm = None
        if ctx.saved_tensors:
            normed, inverse, weight = ctx.saved_tensors
            of_weight = (of_qk * normed).sum((1, 2))  # [H + K, d]
            of_q_norm, of_k_norm = of_weight[:num_q].sum(0), of_weight[num_q:].sum(0)
            of_qk = _through_norm(of_qk * weight, normed, inverse)
        of_heads[: len(of_qk)] = of_qk
        of_heads[len(of_qk) :] = of_v
        return of_joined, of_q_norm, of_k_norm, None


_split_heads: Callable[[Tensor, Tensor | None, Tensor | None, _Shared], tuple[Tensor, Tensor, Tensor]] = _Heads.apply
"""The joint projection [B, T, (H + 2K) d] to q [H, B, T, d], k and v [K, B, T, d].

Queries and keys are normed where there are weights [d] for it, and rotated; queries are scaled for attention.
"""


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [H, B, T, d] with the pairs of its halves turned by the angles of cos and sin [T, d], whose halves are equal."""
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    cos, sin = cos[:, :half], sin[:, :half]
    turned = torch.empty(x.shape, dtype=x.dtype)
    torch.mul(left, cos, out=turned[..., :half]).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=turned[..., half:]).addcmul_(left, sin)
    return turned
