"""A very small random Qwen3 on disk and random sequences for it, shared by the tests of supervised fine-tuning."""

import random
from pathlib import Path

import torch
from rl_toys import toy_model, toy_tokenizer

from webdancer.config import PolicySettings, SftSettings
from webdancer.train.model import save_checkpoint
from webdancer.train.sft_data import Example

VOCAB = 360
FP32 = PolicySettings(device="cpu", dtype="float32", max_context=64, num_threads=1)
BF16 = FP32.model_copy(update={"dtype": "bfloat16"})
SETTINGS = SftSettings(
    num_epochs=3,
    learning_rate=3e-3,
    batch_tokens=120,
    micro_batch_tokens=64,
    validation_share=0.2,
    evals_per_epoch=1,
    patience=99,
    save_every_steps=3,
)


def toy_base(folder: Path) -> Path:
    """Save the toy model with its tokenizer."""
    save_checkpoint(toy_model(vocab_size=VOCAB), toy_tokenizer(vocab_size=VOCAB), folder)
    return folder


def toy_examples(number: int, *, seed: int = 0, vocab_size: int = VOCAB) -> list[Example]:
    """Sequences of 12 to 40 tokens with two turns of the policy; two to a question."""
    rng = random.Random(seed)
    examples = []
    for index in range(number):
        sizes = [rng.randint(3, 10) for _ in range(4)]
        mask = [part % 2 == 1 for part, size in enumerate(sizes) for _ in range(size)]
        token_ids = [rng.randrange(vocab_size) for _ in mask]
        examples.append(Example(f"t{index}", f"q{index // 2}", token_ids, mask))
    return examples


def plain_logprob(model: torch.nn.Module, token_ids: list[int], position: int) -> torch.Tensor:
    """log π(token | before it), from a forward pass over nothing but what is before it."""
    logits = model(input_ids=torch.tensor([token_ids[:position]])).logits[0, -1].float()
    return logits.log_softmax(-1)[token_ids[position]]
