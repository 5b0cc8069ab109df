"""A decoder of the Qwen2 and Qwen3 families, built for generation from the weights of a Hugging Face model.

It computes what `transformers` computes, with fewer and larger operations: one projection for queries, keys and values, one
for gate and up, the query heads of a key-value head folded into one matrix product, the rotary embedding as one complex product.
One pass takes two kinds of tokens, all packed end to end: queries, one or a few of each decoding row, whose logits are wanted,
and pieces of prompts, which only fill the cache.

For the complex product the two halves of each query and key head are interleaved, in weights, biases and norms alike. Scores
are inner products of queries and keys, so they do not notice.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from webdancer.errors import ConfigError
from webdancer.train.kv_cache import KVCache
from webdancer.train.packing import Block, Ints, Layout, Piece, Queries, all_tokens, lay_out

_FAMILIES = ("qwen2", "qwen3")
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Those whose angles depend on the position alone."""
_MAX_SCORES = 1 << 25
"""Attention scores of one piece of a prefill at once (64 MB in bfloat16)."""


class _Layer(NamedTuple):
    """Weights of one layer; H query heads, K key-value heads of width d."""

    input_norm: Tensor
    qkv: Tensor  # [(H + 2K) d, hidden]
    qkv_bias: Tensor | None
    head_norm: Tensor | None  # [H + K, d] float32
    out: Tensor
    post_norm: Tensor
    gate_up: Tensor  # [2 intermediate, hidden]
    down: Tensor


class _Weights(NamedTuple):
    embedding: Tensor
    layers: list[_Layer]
    norm: Tensor
    head: Tensor
    rope: Tensor  # [positions, 1, d/2] complex


class Decoder:
    """The weights of a model in the layout of generation.

    Args:
        max_positions: how many positions may be computed.

    Raises:
        ConfigError: the model is of another family, or uses a variant that is not built here.
    """

    def __init__(self, model: PreTrainedModel, *, dtype: torch.dtype, device: torch.device, max_positions: int) -> None:
        config: Any = model.config
        check_architecture(config, max_positions)
        self.dtype, self.device = dtype, device
        self.vocab_size = int(config.vocab_size)
        self.num_layers = int(config.num_hidden_layers)
        self.num_heads = int(config.num_attention_heads)
        self.num_kv_heads = int(config.num_key_value_heads)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self._eps = float(config.rms_norm_eps)
        self._max_positions = max_positions
        # Queries are scaled while they are rotated, so that their scores need not be.
        self._scale = torch.ones(self.num_heads + self.num_kv_heads, 1, device=device)
        self._scale[: self.num_heads] = self.head_dim**-0.5
        self._w = self._read(model)

    @torch.inference_mode()
    def load(self, model: PreTrainedModel) -> None:
        """Take over the weights of `model`, which has the same shapes and ties; LoRA adapters of peft are merged in.

        They go into the tensors that are there, a layer at a time: there is never room needed for all of them twice.
        """
        causal, own = _causal(model), self._w
        for layer, new in zip(own.layers, causal.model.layers, strict=True):
            for tensor, value in zip(layer, self._read_layer(new), strict=True):
                if tensor is not None and value is not None:
                    tensor.copy_(value)
        own.norm.copy_(causal.model.norm.weight)
        own.embedding.copy_(_weight(causal.model.embed_tokens))
        if own.head is not own.embedding:
            own.head.copy_(_weight(causal.lm_head))

    def new_cache(self, num_rows: int) -> KVCache:
        """An empty cache that fits the model."""
        return KVCache(
            num_layers=self.num_layers,
            num_rows=num_rows,
            num_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            max_positions=self._max_positions,
            dtype=self.dtype,
            device=self.device,
        )

    @torch.inference_mode()
    def forward(self, queries: Queries, blocks: Sequence[Block], pieces: Sequence[Piece], cache: KVCache) -> Tensor:
        """Logits [N, vocabulary] behind each of the N queries; keys and values of all tokens are written to the cache.

        Args:
            queries: the earlier positions of their rows must be in the cache, which has room for all (`KVCache.fit`).
            blocks: what attention of the queries covers.
            pieces: of rows without queries; their earlier positions must be in the cache too.
        """
        num = len(queries.ids)
        all_ids, rows, at = all_tokens(queries, pieces)
        ids, positions = self._tensor(all_ids), self._tensor(at)
        parts = cache.parts(rows, at)
        ends = list(accumulate((len(piece.ids) for piece in pieces), initial=num))
        blocks = [block._replace(length=cache.reach(block.first, block.length)) for block in blocks]
        layout = lay_out(queries, blocks, self.device)
        masks = self._masks(layout, blocks)
        rope = self._w.rope[positions] * self._scale  # [N, H + K, d/2]
        x = F.embedding(ids, self._w.embedding)  # [N + tokens of pieces, hidden]
        for index, layer in enumerate(self._w.layers):
            q, k, v = self._qkv(layer, x, rope)
            cache.write(index, parts, k, v)
            if index == self.num_layers - 1:
                x, q, pieces = x[:num], q[:num], ()  # behind the last layer's keys and values nobody reads the pieces
            mixed = torch.empty_like(q)
            if num:
                mixed[:num] = self._attend_blocks(q[:num], cache, index, blocks, layout, masks)
            for piece, first, end in zip(pieces, ends, ends[1:], strict=False):
                mixed[first:end] = self._attend_piece(q[first:end], cache, index, piece)
            x = self._close_layer(layer, x, mixed.flatten(1))
        return F.linear(F.rms_norm(x, x.shape[-1:], self._w.norm, self._eps), self._w.head)

    def max_piece(self, start: int) -> int:
        """The most tokens that a piece from `start` may have, so that its scores stay small."""
        most = _MAX_SCORES // self.num_heads
        return max(16, min(int(most**0.5), most // (start + 1)))

    def _qkv(self, layer: _Layer, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, K, G, d] (G query heads for each of K), scaled, keys and values [N, K, d]; rotated where needed."""
        num_kv, head_dim = self.num_kv_heads, self.head_dim
        x = F.rms_norm(x, x.shape[-1:], layer.input_norm, self._eps)
        heads = F.linear(x, layer.qkv, layer.qkv_bias).view(len(x), -1, head_dim)
        qk, v = heads[:, :-num_kv], heads[:, -num_kv:]
        qk = qk.float()
        if layer.head_norm is not None:
            norm = torch.linalg.vector_norm(qk, dim=-1, keepdim=True)  # several times faster than F.rms_norm here
            qk = qk.mul_((norm.square_() / head_dim).add_(self._eps).rsqrt_()).mul_(layer.head_norm)
        pairs = torch.view_as_complex(qk.view(*qk.shape[:-1], -1, 2))
        qk = torch.view_as_real(pairs * rope).flatten(-2).to(self.dtype)
        q = qk[:, :-num_kv].reshape(len(x), num_kv, -1, head_dim)
        return q, qk[:, -num_kv:], v

    def _attend_blocks(
        self, q: Tensor, cache: KVCache, index: int, blocks: Sequence[Block], layout: Layout, masks: Sequence[Tensor]
    ) -> Tensor:
        """The queries [N, K, G, d] over the keys of their own rows; of each block [n K, W G, d] x [n K, d, T]."""
        placed = q[layout.sources]  # [P, K, G, d]
        start = 0
        for block, mask in zip(blocks, masks, strict=True):
            places = placed[start : start + block.num_places].view(-1, block.width, *q.shape[1:])  # [n, W, K, G, d]
            start += block.num_places
            keys, values = cache.block(index, block.first, block.end, block.length)
            folded = places.transpose(1, 2).reshape(len(keys), -1, self.head_dim)
            mixed = torch.bmm(torch.baddbmm(mask, folded, keys).softmax(-1), values)
            places.transpose(1, 2).copy_(mixed.view(-1, self.num_kv_heads, block.width, *q.shape[2:]))
        return placed[layout.places]

    def _attend_piece(self, q: Tensor, cache: KVCache, index: int, piece: Piece) -> Tensor:
        """The piece's queries [n, K, G, d] over all of its row up to each of them; the same shape."""
        num, num_kv, group, head_dim = q.shape
        length = piece.start + num
        folded = q.permute(1, 2, 0, 3).reshape(num_kv, group * num, head_dim)
        keys, values = cache.block(index, piece.row, piece.row + 1, length)
        scores = torch.bmm(folded, keys)
        future = torch.full((num, num), -torch.inf, dtype=self.dtype, device=self.device).triu_(1)
        scores.view(num_kv, group, num, length)[..., piece.start :] += future
        mixed = torch.bmm(scores.softmax(-1), values)
        return mixed.view(num_kv, group, num, head_dim).permute(2, 0, 1, 3)

    def _close_layer(self, layer: _Layer, x: Tensor, mixed: Tensor) -> Tensor:
        """Output projection, residual, feed-forward, residual."""
        x = x + F.linear(mixed, layer.out)
        gate, up = F.linear(F.rms_norm(x, x.shape[-1:], layer.post_norm, self._eps), layer.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, layer.down)

    def _masks(self, layout: Layout, blocks: Sequence[Block]) -> list[Tensor]:
        """Of each block [n K, W G, T]: 0 up to each query's position, -inf behind it."""
        masks = []
        start = 0
        for block in blocks:
            positions = layout.positions[start : start + block.num_places].view(-1, block.width)
            start += block.num_places
            hidden = torch.arange(block.length, device=self.device) > positions[:, :, None]
            mask = torch.zeros(hidden.shape, dtype=self.dtype, device=self.device).masked_fill_(hidden, -torch.inf)
            group = self.num_heads // self.num_kv_heads
            mask = mask[:, None, :, None].expand(-1, self.num_kv_heads, -1, group, -1)
            masks.append(mask.reshape(len(mask) * self.num_kv_heads, -1, block.length))
        return masks

    def _tensor(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    @torch.inference_mode()
    def _read(self, model: PreTrainedModel) -> _Weights:
        causal = _causal(model)
        body = causal.model
        rotary = body.rotary_emb
        inv_freq = rotary.inv_freq.to(self.device, torch.float32)
        angles = torch.arange(self._max_positions, device=self.device)[:, None].float() * inv_freq
        scaling = float(rotary.attention_scaling)
        # Rounded as the model rounds them, which matters in bfloat16.
        cos, sin = ((part * scaling).to(self.dtype).float() for part in (angles.cos(), angles.sin()))
        embedding, head = _weight(body.embed_tokens), _weight(causal.lm_head)
        own_embedding = self._own(embedding)
        return _Weights(
            embedding=own_embedding,
            layers=[self._read_layer(layer) for layer in body.layers],
            norm=self._own(body.norm.weight),
            head=own_embedding if head.data_ptr() == embedding.data_ptr() else self._own(head),
            rope=torch.complex(cos, sin)[:, None],
        )

    def _read_layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = [_bias(part) for part in parts]
        qkv = [_weight(part) for part in parts]
        head_norm = None
        if hasattr(attention, "q_norm"):
            q_norm, k_norm = (self._interleave(norm.weight) for norm in (attention.q_norm, attention.k_norm))
            head_norm = self._own(torch.stack([q_norm] * self.num_heads + [k_norm] * self.num_kv_heads)).float()
        has_bias = biases[0] is not None
        return _Layer(
            input_norm=self._own(layer.input_layernorm.weight),
            qkv=self._own(torch.cat([*(self._interleave(w) for w in qkv[:2]), qkv[2]])),
            qkv_bias=self._own(torch.cat([*(self._interleave(b) for b in biases[:2]), biases[2]]))
            if has_bias
            else None,
            head_norm=head_norm,
            out=self._own(_weight(attention.o_proj)),
            post_norm=self._own(layer.post_attention_layernorm.weight),
            gate_up=self._own(torch.cat([_weight(mlp.gate_proj), _weight(mlp.up_proj)])),
            down=self._own(_weight(mlp.down_proj)),
        )

    def _interleave(self, weight: Any) -> Tensor:
        """Along the first dimension, within each head: 0, d/2, 1, d/2 + 1, …"""
        halves: Tensor = weight.detach().unflatten(0, (-1, 2, self.head_dim // 2))
        return halves.transpose(1, 2).flatten(0, 2)

    def _own(self, weight: Tensor) -> Tensor:
        """A copy, since the trainer goes on changing the model's own."""
        return weight.detach().to(self.device, self.dtype, copy=True).contiguous()


def _causal(model: PreTrainedModel) -> Any:
    """The causal language model, which LoRA adapters of peft may be wrapped around."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _weight(module: Any) -> Tensor:
    """The weight of a linear layer or embedding, with the LoRA adapters that are on it."""
    weight: Tensor = getattr(module, "base_layer", module).weight.detach()
    for adapter in getattr(module, "active_adapters", ()):
        weight = weight + module.get_delta_weight(adapter).detach()
    return weight


def _bias(module: Any) -> Any:
    bias = getattr(module, "base_layer", module).bias
    return None if bias is None else bias.detach()


def check_architecture(config: Any, max_positions: int) -> None:
    """Refuse what would be computed wrongly.

    Raises:
        ConfigError: a model of this configuration (Hugging Face) is of another family, or uses a variant that is not built here.
    """
    problem = None
    rope = getattr(config, "rope_parameters", None) or {}
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if config.model_type not in _FAMILIES:
        problem = f"is of the architecture {config.model_type!r}, expected one of {', '.join(_FAMILIES)}"
    elif config.hidden_act != "silu":
        problem = f"uses the activation {config.hidden_act!r}, expected 'silu'"
    elif getattr(config, "attention_bias", False):
        problem = "has a bias in its output projection (attention_bias), expected none"
    elif windows and config.sliding_window < max_positions:
        problem = f"attends to the last {config.sliding_window} positions only, expected {max_positions}"
    elif rope.get("rope_type", "default") not in _ROPE_TYPES:
        problem = f"uses the rotary embedding {rope['rope_type']!r}, expected one of {', '.join(_ROPE_TYPES)}"
    if problem is not None:
        name = getattr(config, "name_or_path", "") or "the model"
        raise ConfigError(
            f"the generation engine cannot run {name}: it {problem}. SFT alone can train it (--until sft)"
        )
