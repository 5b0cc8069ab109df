"""The forward pass on CPUs against transformers': log-probabilities, gradients, and what it leaves to it."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rl_toys import toy_tokenizer
from sft_toys import FP32, toy_base, toy_examples
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from webdancer.train import attention, cpu_forward
from webdancer.train.attention import QueryBlock
from webdancer.train.batches import Batch, make_batch
from webdancer.train.model import load_model, token_logprobs
from webdancer.train.sft_data import Example

VOCAB = 50
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "use_cache": False,
}  # fmt: skip
ROPE = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 128}
"""Scales cosines and sines."""


def a_model(name: str) -> Any:
    """A small random model in which no weight of a norm and no bias is what it was initialised with."""
    torch.manual_seed(0)
    if name == "qwen2":
        model: Any = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    elif name == "biased":
        model = Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, attention_bias=True, rope_parameters=ROPE))
    else:
        heads = {"num_key_value_heads": 4} if name == "as many keys" else {}
        model = Qwen3ForCausalLM(
            Qwen3Config(**{**SIZES, **heads}, head_dim=8, tie_word_embeddings=True, pad_token_id=0)
        )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight += 0.3 * torch.randn_like(weight)
    return model.train()


def examples_of(lengths: list[int]) -> list[Example]:
    """Sequences in which spans of tokens are the policy's."""
    rng = random.Random(1)
    examples = []
    for number, length in enumerate(lengths):
        mask = [False]
        while len(mask) < length:
            mask += [rng.random() < 0.3] * rng.randint(1, 20)
        token_ids = [rng.randrange(VOCAB) for _ in range(length)]
        examples.append(Example(f"t{number}", f"q{number}", token_ids, mask[:length]))
    return examples


class OtherLinear(torch.nn.Linear):
    """As an adapter or a quantised layer might be."""


def logprobs_and_gradients(model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Of a weighted sum, so that every token's gradient is another."""
    model.zero_grad()
    logprobs = token_logprobs(model, batch)
    (logprobs * torch.linspace(0.5, 2.0, len(logprobs))).sum().backward()
    return logprobs.detach(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


def by_transformers(monkeypatch: pytest.MonkeyPatch, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    with monkeypatch.context() as patch:
        patch.setattr(cpu_forward, "can_run", lambda model, batch: False)
        return logprobs_and_gradients(model, batch)


LENGTHS = {
    "short": [9, 17, 5],
    "one": [40],
    "blocks": [300, 520, 410],
    "a block's end": [256, 255, 130],
    "whole": [300, 520, 410],
    "the last alone": [70, 80],
}


def batch_of(name: str) -> Batch:
    """Of the sequences of `LENGTHS`; in `whole` one row is all the policy's, in `the last alone` one has but its last token."""
    examples = examples_of(LENGTHS[name])
    if (
        name == "whole"
    ):  # so that what the last layer chooses makes several blocks, with positions to drop in other rows
        examples[1] = replace(examples[1], mask=[False] + [True] * 519)
    if name == "the last alone":
        examples[0] = replace(examples[0], mask=[False] * 69 + [True])
    return make_batch(examples, range(len(examples)))


@pytest.mark.parametrize("by_torch", [False, True])
@pytest.mark.parametrize("name", ["qwen3", "as many keys", "qwen2", "biased"])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_same_numbers_as_transformers(monkeypatch: pytest.MonkeyPatch, name: str, lengths: str, by_torch: bool) -> None:
    monkeypatch.setattr(cpu_forward, "_torch_attends_better", lambda dtype: by_torch)
    model, batch = a_model(name).double(), batch_of(lengths)
    assert cpu_forward.can_run(model, batch)
    logprobs, gradients = logprobs_and_gradients(model, batch)
    expected, of_weights = by_transformers(monkeypatch, model, batch)
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)  # the logits are float32
    for weight, gradient in gradients.items():
        error = (gradient - of_weights[weight]).norm() / of_weights[weight].norm()
        assert error < 1e-5, weight  # transformers works norms out in float32


def test_much_to_keep_goes_to_torchs_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three layers of 4 heads: 3 x 4 x 128 x 128 probabilities, and in the last alone 4 x 128 x 64."""
    monkeypatch.setattr(cpu_forward, "_torch_attends_better", lambda dtype: False)
    asked: list[int] = []
    ours = cpu_forward.query_blocks

    def query_blocks(positions: Tensor, **named: Any) -> list[QueryBlock]:
        asked.append(positions.shape[1])
        return ours(positions, **named)

    monkeypatch.setattr(cpu_forward, "query_blocks", query_blocks)
    model, batch = a_model("qwen3").double(), make_batch(examples_of([128]), [0])
    assert 0 < batch.num_masked <= 64
    expected = by_transformers(monkeypatch, model, batch)[0]
    limits = {3 * 4 * 128 * 128 * 8: [128, 64], 3 * 4 * 128 * 128 * 8 - 1: [64], 4 * 128 * 64 * 8 - 1: []}
    for limit, blocks in limits.items():
        asked.clear()
        monkeypatch.setattr(cpu_forward, "_MAX_KEPT_BYTES", limit)
        torch.testing.assert_close(token_logprobs(model, batch), expected, rtol=1e-5, atol=1e-5)
        assert asked == blocks


def test_without_gradients_and_for_some_weights_alone_it_is_the_same() -> None:
    model, batch = a_model("qwen3"), batch_of("blocks")
    logprobs, gradients = logprobs_and_gradients(model, batch)
    with torch.no_grad():
        assert torch.equal(token_logprobs(model.eval(), batch), logprobs)
    model.train().requires_grad_(False)
    some = ("model.layers.0.self_attn.q_norm.weight", "model.layers.2.mlp.up_proj.weight")
    for name in some:
        model.get_parameter(name).requires_grad_(True)
    model.zero_grad()
    logprobs = token_logprobs(model, batch)
    (logprobs * torch.linspace(0.5, 2.0, len(logprobs))).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is not None] == list(some)
    for name in some:
        torch.testing.assert_close(model.get_parameter(name).grad, gradients[name])


def test_the_drawn_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_BLOCK", 2)
    monkeypatch.setattr(attention, "ROUND", 2)
    first, second = attention.query_blocks(torch.tensor([[1, 2, 4], [0, 3, 5]]), num_keys=6, dtype=torch.float32)
    off = -math.inf
    assert first[:3] == (0, 2, 4)
    assert first.mask.tolist() == [[[0, 0, off, off], [0, 0, 0, off]], [[0, off, off, off], [0, 0, 0, 0]]]
    assert second[:3] == (2, 3, 6)
    assert second.mask.tolist() == [[[0, off]], [[0, 0]]]


def test_the_drawn_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_forward, "ROUND", 1)
    mask = torch.tensor([[0, 0, 1, 1, 0, 1], [0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    chosen = cpu_forward._Chosen.of(mask)
    assert chosen.positions.tolist() == [[1, 2, 4], [0, 1, 2]]
    assert chosen.is_wanted.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize("name", ["qwen3", "biased"])
def test_bfloat16_is_as_near_as_transformers_in_bfloat16(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Errors against float32, next to those of transformers with plain matrix products (`eager`)."""
    monkeypatch.setattr(cpu_forward, "_torch_attends_better", lambda dtype: False)
    model, batch = a_model(name), make_batch(examples_of([500, 620, 580]), [0, 1, 2])
    exact, of_weights = by_transformers(monkeypatch, model, batch)
    model.bfloat16().set_attn_implementation("eager")
    ours, theirs = logprobs_and_gradients(model, batch), by_transformers(monkeypatch, model, batch)
    assert (ours[0] - exact).abs().mean() < 1.3 * (theirs[0] - exact).abs().mean()
    errors = [
        [(found[1][weight].float() - exact).norm() for weight, exact in of_weights.items()] for found in (ours, theirs)
    ]
    assert torch.tensor(errors[0]).norm() < 1.3 * torch.tensor(errors[1]).norm()
    for weight, own, other in zip(of_weights, *errors, strict=True):
        assert own < 3 * other, weight


def test_nothing_masked_gives_nothing_and_no_gradient() -> None:
    model = a_model("qwen3")
    batch = make_batch([Example("t", "q", [1, 2, 3], [False] * 3)], [0])
    assert cpu_forward.can_run(model, batch)
    logprobs = token_logprobs(model, batch)
    assert logprobs.shape == (0,)
    logprobs.sum().backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


def test_what_is_left_to_transformers(tmp_path: Path) -> None:
    batch = make_batch(toy_examples(2, vocab_size=VOCAB), [0, 1])
    base = toy_base(tmp_path)

    def loaded(**changes: Any) -> Any:
        return load_model(base, toy_tokenizer(), FP32.model_copy(update=changes))

    other_projection = a_model("qwen2")
    other_projection.model.layers[1].self_attn.k_proj = OtherLinear(24, 12)
    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    others = {
        "adapters": loaded(lora_rank=2),
        "checkpointing": loaded(gradient_checkpointing=True),
        "windows": Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, **windows)),
        "dropout": Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, attention_dropout=0.1)),
        "activation": Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, hidden_act="gelu")),
        "family": LlamaForCausalLM(LlamaConfig(**SIZES)),
        "a projection of another kind": other_projection,
    }
    assert cpu_forward.can_run(a_model("qwen2"), batch)
    assert cpu_forward.can_run(loaded(), batch)
    for why, model in others.items():
        assert not cpu_forward.can_run(model, batch), why
        assert len(token_logprobs(model, batch)) == batch.num_masked
