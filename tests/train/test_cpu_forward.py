"""The forward pass on CPUs against transformers': log-probabilities, gradients, and what it leaves to it."""

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

from webdancer.train import cpu_forward
from webdancer.train.batches import Batch, make_batch
from webdancer.train.model import load_model, token_logprobs
from webdancer.train.sft_data import Example

VOCAB = 50
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "use_cache": False,
}  # fmt: skip
ROPE = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 128}  # fmt: skip


def a_model(name: str, *, seed: int = 0) -> Any:
    """A small random model in which no weight of a norm and no bias is what it was initialised with."""
    torch.manual_seed(seed)
    if name == "qwen2":
        model: Any = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    elif name == "biased":
        model = Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, attention_bias=True, rope_parameters=ROPE))
    else:
        heads = {"num_key_value_heads": 4} if name == "as many keys" else {}
        model = Qwen3ForCausalLM(Qwen3Config(**{**SIZES, **heads}, head_dim=8, tie_word_embeddings=True))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight += 0.3 * torch.randn_like(weight)
    return model.train()


def examples_of(lengths: list[int], *, seed: int = 1) -> list[Example]:
    """Sequences in which spans of tokens are the policy's."""
    rng = random.Random(seed)
    examples = []
    for number, length in enumerate(lengths):
        mask = [False]
        while len(mask) < length:
            mask += [rng.random() < 0.3] * rng.randint(1, 20)
        token_ids = [rng.randrange(VOCAB) for _ in range(length)]
        examples.append(Example(f"t{number}", f"q{number}", token_ids, mask[:length]))
    return examples


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
    "a block's end": [256, 255, 257],
    "last token alone": [70, 80],
}


@pytest.mark.parametrize("name", ["qwen3", "as many keys", "qwen2", "biased"])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_same_numbers_as_transformers(monkeypatch: pytest.MonkeyPatch, name: str, lengths: str) -> None:
    model = a_model(name).double()
    examples = examples_of(LENGTHS[lengths])
    if lengths == "last token alone":
        examples[0] = replace(examples[0], mask=[False] * 69 + [True])
    batch = make_batch(examples, range(len(examples)))
    assert cpu_forward.can_run(model, batch)
    logprobs, gradients = logprobs_and_gradients(model, batch)
    expected, of_weights = by_transformers(monkeypatch, model, batch)
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)  # the logits are float32
    for weight, gradient in gradients.items():
        error = (gradient - of_weights[weight]).norm() / of_weights[weight].norm()
        assert error < 1e-5, weight  # transformers works norms out in float32


def test_same_numbers_with_torchs_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = a_model("qwen3").double(), make_batch(examples_of([300, 270]), [0, 1])
    monkeypatch.setattr(cpu_forward, "_torch_attends_faster", lambda dtype: True)
    logprobs, gradients = logprobs_and_gradients(model, batch)
    expected, of_weights = by_transformers(monkeypatch, model, batch)
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)
    for weight, gradient in gradients.items():
        assert (gradient - of_weights[weight]).norm() < 1e-5 * of_weights[weight].norm(), weight


def test_bfloat16_is_as_near_as_transformers_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors against float32, next to those of transformers with plain matrix products (`eager`)."""
    model, batch = a_model("qwen3"), make_batch(examples_of([500, 620, 580]), [0, 1, 2])
    exact, of_weights = by_transformers(monkeypatch, model, batch)
    model.bfloat16().set_attn_implementation("eager")
    ours, theirs = logprobs_and_gradients(model, batch), by_transformers(monkeypatch, model, batch)
    assert (ours[0] - exact).abs().mean() < 1.3 * (theirs[0] - exact).abs().mean()

    def error(gradients: dict[str, Tensor]) -> float:
        squares = sum((gradients[name].float() - exact).square().sum() for name, exact in of_weights.items())
        return float(squares) ** 0.5

    assert error(ours[1]) < 1.3 * error(theirs[1])


def test_nothing_masked_gives_nothing_and_no_gradient() -> None:
    model = a_model("qwen3")
    batch = make_batch([Example("t", "q", [1, 2, 3], [False] * 3)], [0])
    logprobs = token_logprobs(model, batch)
    assert logprobs.shape == (0,)
    logprobs.sum().backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


def test_what_is_left_to_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(toy_examples(2, vocab_size=VOCAB), [0, 1])
    base = toy_base(tmp_path)

    def loaded(**changes: Any) -> Any:
        return load_model(base, toy_tokenizer(), FP32.model_copy(update=changes))

    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    others = {
        "adapters": loaded(lora_rank=2),
        "checkpointing": loaded(gradient_checkpointing=True),
        "windows": Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, **windows)),
        "dropout": Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, attention_dropout=0.1)),
        "activation": Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, hidden_act="gelu")),
        "family": LlamaForCausalLM(LlamaConfig(**SIZES)),
    }
    assert cpu_forward.can_run(a_model("qwen2"), batch)
    assert cpu_forward.can_run(loaded(), batch)
    for why, model in others.items():
        assert not cpu_forward.can_run(model, batch), why
        assert len(token_logprobs(model, batch)) == batch.num_masked
    monkeypatch.setattr(cpu_forward, "_MAX_SCORES", 2 * 4 * batch.token_ids.shape[1] ** 2 - 1)
    assert not cpu_forward.can_run(a_model("qwen2"), batch)
