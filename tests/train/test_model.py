"""Log-probabilities against plain forward passes, the schedule, checkpoints on disk."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rl_toys import toy_model, toy_tokenizer
from sft_toys import BF16, FP32, VOCAB, plain_logprob, toy_base, toy_examples
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from webdancer.config import PolicySettings
from webdancer.errors import ConfigError
from webdancer.train import model as model_module
from webdancer.train.batches import cheapest_cuts, make_batch, micro_batches, share_out
from webdancer.train.model import (
    cosine_share,
    load_model,
    resolve_base,
    save_checkpoint,
    token_logprobs,
)
from webdancer.train.sft_data import Example

SMALL = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2,
}  # fmt: skip


def of_family(name: str) -> nn.Module:
    torch.manual_seed(1)
    if name == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**SMALL))
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**SMALL))
    if name == "gemma2":
        return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=16, final_logit_softcapping=2.0))
    if name == "cohere":
        return CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.3))
    if name == "granite":
        return GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=3.0))
    if name == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2))
    return toy_model()


@pytest.mark.parametrize("name", ["qwen3", "qwen2", "llama", "gemma2", "cohere", "granite", "gpt2"])
def test_logprobs_are_those_of_a_plain_pass_over_each_prefix(name: str) -> None:
    model = of_family(name).eval()
    examples = toy_examples(4)
    batch = make_batch(examples, [2, 0, 3])
    expected = [
        plain_logprob(model, examples[row].token_ids, position)
        for row in (2, 0, 3)
        for position, written in enumerate(examples[row].mask)
        if written
    ]
    with torch.no_grad():
        got = token_logprobs(model, batch)
    assert batch.num_masked == len(expected) == len(got)
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_no_sequence_sees_another() -> None:
    """Other rows, and padding, may be anything."""
    model = toy_model()
    examples = toy_examples(6)
    alone = token_logprobs(model, make_batch(examples, [1]))
    batch = make_batch(examples, [1, *[row for row in range(6) if row != 1]])
    batch.token_ids[0, len(examples[1].token_ids) :] = 77
    together = token_logprobs(model, batch)[: len(alone)]
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_logits_in_parts_are_the_same_with_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = toy_model(), make_batch(toy_examples(3), [0, 1, 2])
    whole = token_logprobs(model, batch)
    whole.sum().backward()
    gradients = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    monkeypatch.setattr(model_module, "_MAX_LOGITS", 7 * VOCAB)  # parts of seven tokens
    parts = token_logprobs(model, batch)
    parts.sum().backward()
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_a_known_distribution() -> None:
    """A head of zeros gives a uniform distribution: log-probability -ln V, at any temperature."""
    model, batch = toy_model(), make_batch(toy_examples(1), [0])
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    logprobs = token_logprobs(model, batch, temperature=0.5)
    assert logprobs.tolist() == pytest.approx([-math.log(VOCAB)] * batch.num_masked)


def test_temperature_divides_the_logits() -> None:
    model, batch = toy_model(), make_batch(toy_examples(1), [0])
    logits = model(input_ids=batch.token_ids).logits[0, :-1][batch.mask[0, 1:]] / 0.7
    expected = logits.log_softmax(-1).gather(1, batch.token_ids[batch.mask][:, None])[:, 0]
    torch.testing.assert_close(token_logprobs(model, batch, temperature=0.7), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_gradient_checkpointing_changes_no_number(tmp_path: Path, lora_rank: int) -> None:
    base, batch = toy_base(tmp_path / "base"), make_batch(toy_examples(3), [0, 1, 2])
    gradients = []
    for is_on in (False, True):
        torch.manual_seed(3)
        changes = {"gradient_checkpointing": is_on, "lora_rank": lora_rank}
        model = load_model(base, toy_tokenizer(), FP32.model_copy(update=changes))
        token_logprobs(model, batch).sum().backward()
        gradients.append({name: w.grad for name, w in model.named_parameters() if w.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(("lora_" in name) == (lora_rank > 0) for name in gradients[0])
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).norm() <= 1e-5 * gradient.norm()  # by another forward pass
    assert any(gradient.abs().sum() > 0 for gradient in gradients[0].values())


# Four sequences of 2, 3, 9 and 10 tokens, at most 20 padded tokens a pass: {2, 3} costs 6, {9, 10} costs 20; the other cuts
# pad more, or make more passes of 128 each.
def test_cuts_where_padding_is_least() -> None:
    assert cheapest_cuts([2, 3, 9, 10], max_tokens=20) == [(0, 2), (2, 4)]
    assert cheapest_cuts([2, 3, 9, 10], max_tokens=40) == [(0, 4)]
    assert cheapest_cuts([2, 3, 50], max_tokens=20) == [(0, 2), (2, 3)]  # too long for any batch: alone
    assert cheapest_cuts([], max_tokens=20) == []
    # Padding 200 tokens costs more than a second pass.
    assert cheapest_cuts([100, 300], max_tokens=10_000) == [(0, 1), (1, 2)]


def test_every_sequence_is_in_one_batch_within_the_bound() -> None:
    examples = toy_examples(50)
    batches = micro_batches(examples, max_tokens=100)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(50))
    assert all(batch.token_ids.numel() <= 100 for batch in batches)
    assert sum(batch.num_tokens for batch in batches) == sum(len(example.token_ids) for example in examples)
    assert [row for batch in micro_batches(examples, max_tokens=1000, rows=[7, 3]) for row in sorted(batch.rows)] == [
        3,
        7,
    ]


def test_long_rows_are_rounded_up_and_compute_the_same() -> None:
    """The parts of a row that is a multiple of 64 long, and the logits that are, say what the plain row does."""
    model = toy_model()
    long = Example("a", "a", [1 + number % 90 for number in range(70)], [False] + [True] * 69)
    (batch,) = micro_batches([long], max_tokens=100)
    assert batch.token_ids.shape == batch.mask.shape == (1, 128)
    assert (batch.num_tokens, batch.num_masked) == (70, 69)
    with torch.no_grad():
        plain = model(torch.tensor([long.token_ids])).logits[0, :-1].log_softmax(-1)
        got = token_logprobs(model, batch)
    torch.testing.assert_close(got, plain[torch.arange(69), torch.tensor(long.token_ids[1:])], rtol=1e-4, atol=1e-5)
    assert micro_batches([long, long], max_tokens=255)[0].token_ids.shape == (1, 128)  # 256 would be beyond the bound


def test_shares_are_balanced_and_may_be_empty() -> None:
    assert share_out([5, 9, 4, 2], num_shares=2) == [[1, 3], [0, 2]]  # 9 | 5, then 4 to the lighter, 9 | 9
    assert share_out([5], num_shares=3) == [[0], [], []]


def test_values_of_masked_tokens_line_up() -> None:
    examples = [Example("a", "a", [5, 6, 7, 8], [False, True, False, True]), Example("b", "b", [1, 2], [False, True])]
    batch = make_batch(examples, [1, 0])
    assert batch.token_ids.tolist() == [[1, 2, 0, 0], [5, 6, 7, 8]]
    assert batch.per_token([10.0, 20.0]).tolist() == [20.0, 10.0, 10.0]
    assert batch.masked([[0.0, -1.0, 0.0, -2.0], [0.0, -3.0]]).tolist() == [-3.0, -1.0, -2.0]


def test_sequences_that_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="got 2 token ids and 1 mask values"):
        make_batch([Example("a", "a", [1, 2], [True])], [0])
    with pytest.raises(ValueError, match="nothing comes before it"):
        make_batch([Example("a", "a", [1, 2], [True, True])], [0])


# Ten steps, four of them warm-up: 1/4 … 4/4, then half a cosine over the six left, from 1 (step 4) to 0.1 (step 9).
@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (9, 0.1), (5, 0.1 + 0.45 * (1 + math.cos(math.pi / 5))), (20, 0.1)],
)
def test_cosine_with_warmup(step: int, expected: float) -> None:
    assert cosine_share(step, num_steps=10, warmup_steps=4, min_share=0.1) == pytest.approx(expected)


def test_schedule_of_a_single_step() -> None:
    assert cosine_share(0, num_steps=1, warmup_steps=0, min_share=0.1) == 1.0


def test_checkpoint_keeps_weights_and_names_bfloat16(tmp_path: Path) -> None:
    model = toy_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    save_checkpoint(model, toy_tokenizer(), tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.bfloat16
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, before[name].bfloat16()), name
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert model.dtype == torch.float32
    assert not (tmp_path / "out" / ".checkpoint.tmp").exists()
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_merged_adapters_compute_the_same(tmp_path: Path) -> None:
    base, batch = toy_base(tmp_path / "base"), make_batch(toy_examples(2), [0, 1])
    torch.manual_seed(0)
    model = load_model(base, toy_tokenizer(), FP32.model_copy(update={"lora_rank": 4}))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    adapted = token_logprobs(model, batch)
    save_checkpoint(model, toy_tokenizer(), tmp_path / "out")
    assert torch.equal(token_logprobs(model, batch), adapted)  # the model in training is left alone
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    error = (token_logprobs(merged, batch) - adapted).abs().max()
    assert error < 0.1 * (token_logprobs(plain, batch) - adapted).abs().max()  # what bfloat16 rounds off
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").exists()
    assert not list((tmp_path / "out").glob("adapter_*"))


def test_merging_adapters_copies_no_weight_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, where the engine's cache lies too, there may be no room for a second model."""
    model = load_model(toy_base(tmp_path / "base"), toy_tokenizer(), BF16.model_copy(update={"lora_rank": 4}))

    def refuse(weight: nn.Parameter, memo: object) -> None:
        raise AssertionError(f"a copy of {tuple(weight.shape)}")

    monkeypatch.setattr(nn.Parameter, "__deepcopy__", refuse)
    save_checkpoint(model, toy_tokenizer(), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").exists()


# As in pure base models, a text ends with <|endoftext|>, 0; a turn ends with <|im_end|>, 2.
@pytest.mark.parametrize(("before", "after"), [(None, [2]), (0, [2, 0]), (2, [2]), ([0, 1, 2], [2, 0, 1])])
def test_other_engines_are_told_to_stop_where_a_turn_ends(
    tmp_path: Path, before: int | list[int] | None, after: list[int]
) -> None:
    model, tokenizer = toy_model(), toy_tokenizer()
    model.generation_config.eos_token_id = before
    tokenizer.eos_token = "<|endoftext|>"
    save_checkpoint(model, tokenizer, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.generation_config.eos_token_id == after
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (saved.eos_token, saved.eos_token_id) == ("<|im_end|>", 2)
    assert (model.generation_config.eos_token_id, tokenizer.eos_token) == (before, "<|endoftext|>")
    save_checkpoint(loaded, saved, tmp_path / "again")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "again").generation_config.eos_token_id == after


def test_a_checkpoint_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    base, tokenizer = toy_base(tmp_path / "base"), toy_tokenizer()
    with pytest.raises(ConfigError, match=r"nowhere"):
        load_model(tmp_path / "nowhere", tokenizer, FP32)
    tokenizer.add_tokens(["one", "two"])
    with pytest.raises(ConfigError, match="got a tokenizer of 361 tokens, expected at most the model's 360"):
        load_model(base, tokenizer, FP32)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="cannot load a model from"):
        load_model(base, toy_tokenizer(), FP32)


def test_base_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        resolve_base(str(tmp_path))
    assert resolve_base(str(toy_base(tmp_path / "base"))) == tmp_path / "base"


@pytest.mark.parametrize(
    ("dtype", "capabilities", "expected"),
    [
        ("auto", {"avx512_f": True, "avx512_bf16": True, "cpu_name": "AMD EPYC"}, torch.bfloat16),
        ("auto", {"avx512_f": True, "avx512_bf16": False, "cpu_name": "AMD EPYC"}, torch.float32),
        ("auto", {"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
        ("auto", {"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, torch.float32),
        ("auto", {"neon": True, "bf16": True}, torch.float32),
        ("bfloat16", {"avx2": True}, torch.bfloat16),
        ("float32", {"avx512_bf16": True}, torch.float32),
    ],
)
def test_bfloat16_only_where_the_processor_multiplies_it_faster(
    monkeypatch: pytest.MonkeyPatch, dtype: Any, capabilities: dict[str, Any], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert model_module.dtype_of(PolicySettings(device="cpu", dtype=dtype)) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device")
def test_missing_cuda_is_named() -> None:
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        model_module.device_of(PolicySettings(device="cuda"))
