"""Blocked attention against attention written out, and when it steps aside."""

import pytest
import torch
from rl_toys import toy_model
from sft_toys import toy_examples
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from webdancer.train.attention import _BlockedCausal, blocked_attention, use_blocked_attention
from webdancer.train.batches import make_batch
from webdancer.train.model import token_logprobs


class Causal(nn.Module):
    is_causal = True


def written_out(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Softmax over the keys up to the query's own, heads sharing keys spelt out; [B, G, R, T, D]."""
    length = query.shape[-2]
    scores = torch.einsum("bgrtd,bgsd->bgrts", query, key) * scale
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    return torch.einsum("bgrts,bgsd->bgrtd", scores.softmax(-1), value)


# Lengths around the borders of blocks of 64.
@pytest.mark.parametrize("length", [1, 63, 64, 65, 130])
def test_values_and_gradients_in_float32(length: int) -> None:
    torch.manual_seed(length)
    shapes = [(2, 2, 3, length, 8), (2, 2, length, 8), (2, 2, length, 8)]
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    weights = torch.randn(shapes[0])
    found = []
    for function in (written_out, _BlockedCausal.apply):
        out = function(*inputs, 0.3)
        found.append([out, *torch.autograd.grad((out * weights).sum(), inputs)])
    for mine, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_about_as_exact_as_torchs_kernel() -> None:
    torch.manual_seed(0)
    exact = [torch.randn(2, heads, 200, 16) for heads in (4, 2, 2)]
    rounded = [tensor.bfloat16().requires_grad_() for tensor in exact]
    reference = [tensor.detach().float().requires_grad_() for tensor in rounded]
    groups = reference[0].view(2, 2, 2, 200, 16)
    expected = written_out(groups, reference[1], reference[2], 0.25).view(2, 4, 200, 16)
    theirs = nn.functional.scaled_dot_product_attention(*rounded, is_causal=True, enable_gqa=True, scale=0.25)
    ours = blocked_attention(Causal(), *rounded, None, scaling=0.25)[0].transpose(1, 2)
    assert ours.dtype == torch.bfloat16
    assert not torch.equal(ours, theirs)  # another computation, not the kernel again
    errors = [(out.float() - expected).norm() / expected.norm() for out in (ours, theirs)]
    assert errors[0] < 2 * errors[1] < 0.01  # scores and probabilities are rounded to bfloat16
    gradients = [
        torch.autograd.grad(out.float().sum(), inputs)
        for out, inputs in ((ours, rounded), (theirs, rounded), (expected, reference))
    ]
    for mine, other, exact_gradient in zip(*gradients, strict=True):
        error, limit = ((g.float() - exact_gradient).norm() for g in (mine, other))
        assert error < 2 * limit + 0.01 * exact_gradient.norm()


def test_steps_aside_for_masks_and_float32() -> None:
    """With padding on the left, and in float32, the result is torch's own, bit for bit."""
    inputs = [torch.randn(1, 2, 5, 8, dtype=torch.bfloat16) for _ in range(3)]
    mask = torch.ones(1, 1, 5, 5).tril().bool()
    mask[..., :2] = False
    mask[:, :, :2] = True
    got = blocked_attention(Causal(), *inputs, mask, scaling=0.5)[0].transpose(1, 2)
    assert torch.equal(got, nn.functional.scaled_dot_product_attention(*inputs, attn_mask=mask, scale=0.5))
    floats = [tensor.float() for tensor in inputs]
    got = blocked_attention(Causal(), *floats, None, scaling=0.5)[0].transpose(1, 2)
    assert torch.equal(got, nn.functional.scaled_dot_product_attention(*floats, is_causal=True, scale=0.5))


def test_whole_model_says_the_same() -> None:
    model = toy_model().bfloat16()
    batch = make_batch(toy_examples(4), [0, 1, 2, 3])
    before = token_logprobs(model, batch)
    assert use_blocked_attention(model)
    after = token_logprobs(model, batch)
    assert not torch.equal(after, before)
    assert (after - before).abs().mean() < 0.03
    # A mask that a caller gives (padding on the left) is still heeded.
    ids = torch.tensor([[5, 6, 7, 8]])
    padded = torch.tensor([[0, 0, 5, 6, 7, 8]])
    heeded = model(padded, attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1]])).logits[0, -1]
    assert (heeded - model(ids).logits[0, -1]).abs().max() < 0.1
    assert (heeded - model(padded).logits[0, -1]).abs().max() > 0.2


def test_other_families_keep_their_own() -> None:
    assert not use_blocked_attention(GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1)))
