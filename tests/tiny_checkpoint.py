"""A checkpoint of random weights and a tokenizer of its own: small enough to be built and run within a test."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from webdancer.llm.prompts import load_prompt
from webdancer.train.tokenizer import build_tokenizer

SMALL_TEXTS = [
    "Where was Ada Lunt born? In Velm, by the river Orsk.",
    "search visit answer query goal url think 0123456789",
]


AGENT_TEXTS = [
    load_prompt("agent_brief"),
    '{"name": "search", "arguments": {"query": [""]}} http://wiki.example/wiki/',
]
"""What an agent reads again and again, so that an episode is some hundreds of tokens."""


def build_checkpoint(path: Path, *, texts: Sequence[str] = SMALL_TEXTS, vocab_size: int = 300, seed: int = 0) -> Path:
    """Write a Qwen3 of some ten thousand parameters in Hugging Face format."""
    tokenizer = build_tokenizer(texts, vocab_size=vocab_size)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
